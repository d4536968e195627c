package policy

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const overLimit = "450 4.7.1 <END-OF-MESSAGE>: End-of-data rejected: sending limit of this account reached, try again in "

func TestRate(t *testing.T) {
	s := newSiteAlone(t, 2)
	args := []string{"--rules", "rate", "--rate_limits", "5 messages/1h, 10 recipients/1h", "--rate_total_limits", "inherit, 3K messages/1h"}
	for _, m := range s.policyds {
		m.start(args...)
	}
	a, b := s.policyds[0], s.policyds[1]

	t.Run("messages", func(t *testing.T) {
		for range 5 {
			s.want(t, "250", a.mail("one@example.com", "one@example.com", "x@example.com"))
		}
		s.want(t, overLimit+"6", a.mail("one@example.com", "one@example.com", "x@example.com"))
		s.want(t, overLimit, a.mail("One@Example.COM", "one@example.com", "x@example.com"))
		s.want(t, "250", a.mail("", "one@example.com", "x@example.com"))
		eventually(t, "the other policyd", overLimit, func() string { return b.mail("one@example.com", "one@example.com", "x@example.com") })
	})
	t.Run("recipients", func(t *testing.T) {
		nine := make([]string, 9)
		for i := range nine {
			nine[i] = fmt.Sprintf("r%d@example.com", i)
		}
		s.want(t, "250", a.mail("two@example.com", "two@example.com", nine...))
		s.want(t, overLimit, a.mail("two@example.com", "two@example.com", nine[:2]...))
		s.want(t, "250", a.mail("two@example.com", "two@example.com", nine[:1]...))
		s.want(t, "450 4.7.1 <END-OF-MESSAGE>: End-of-data rejected: sending limit of this account reached, this message is too much by itself",
			a.mail("three@example.com", "three@example.com", append(nine, "y@example.com", "z@example.com")...))
	})
	t.Run("rows are live within seconds", func(t *testing.T) {
		one := func() string { return a.mail("four@example.com", "four@example.com", "x@example.com") }
		s.want(t, "250", one())
		s.sql("INSERT INTO rate_limits (name, limits) VALUES ('four@example.com', '1 message/1h')")
		eventually(t, "an entry of its own", overLimit, one)
		s.sql("UPDATE rate_limits SET limits = 'unlimited' WHERE name = 'four@example.com'")
		eventually(t, "unlimited", "250", one)
		for range 7 {
			s.want(t, "250", one())
		}
		s.sql("DELETE FROM rate_limits; INSERT INTO rate_limits (name, limits) VALUES ('@example.com', 'inherit, 1M bytes/1d')")
		eventually(t, "the domain's, which inherits", overLimit, one)
		s.sql("UPDATE rate_limits SET limits = '1K messages/1h', total = '3 messages/1h'")
		eventually(t, "the sum", "450 4.7.1 <END-OF-MESSAGE>: End-of-data rejected: sending limit of this domain reached, try again in 6", func() string {
			return b.mail("six@example.com", "six@example.com", "x@example.com")
		})
		s.sql("DELETE FROM rate_limits")
		eventually(t, "the default", "250", func() string { return b.mail("sixth@example.com", "sixth@example.com", "x@example.com") })
	})
	t.Run("a backup that holds the table", func(t *testing.T) {
		ended := make(chan error, 1)
		go func() {
			_, err := s.db.Query("USE maildb; LOCK TABLES rate_counts READ; SELECT SLEEP(3)")
			ended <- err
		}()
		eventually(t, "the lock", "1", func() string {
			return s.sql("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(3)%%'")[0]
		})
		for range 5 {
			s.want(t, "250", a.mail("backup@example.com", "backup@example.com", "x@example.com"))
			time.Sleep(400 * time.Millisecond)
		}
		s.want(t, overLimit, a.mail("backup@example.com", "backup@example.com", "x@example.com"))
		if strings.Contains(a.text(), "a server does not answer") {
			t.Error("policyd took the server for away, for all its rules")
		}
		must(t, <-ended)
		eventually(t, "what was counted", "5", func() string {
			return s.sql("SELECT SUM(messages) FROM rate_counts WHERE name = 'backup@example.com'")[0]
		})
	})
	t.Run("a row of a transaction that ends late", func(t *testing.T) {
		s.sql("INSERT INTO rate_limits (name, limits) VALUES ('late@example.com', 'unlimited'), ('soon@example.com', 'unlimited')")
		ended := make(chan error, 1)
		go func() {
			_, err := s.db.Query("USE maildb; START TRANSACTION; UPDATE rate_limits SET limits = '0 messages/1h' WHERE name = 'late@example.com'; SELECT SLEEP(4); COMMIT")
			ended <- err
		}()
		eventually(t, "the transaction", "1", func() string {
			return s.sql("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(4)%%'")[0]
		})
		s.sql("UPDATE rate_limits SET limits = '0 messages/1h' WHERE name = 'soon@example.com'")
		eventually(t, "the other one", "450", func() string { return a.mail("soon@example.com", "soon@example.com", "x@example.com") })
		must(t, <-ended)
		eventually(t, "the late one", "450", func() string { return a.mail("late@example.com", "late@example.com", "x@example.com") })
		s.sql("DELETE FROM rate_limits")
	})
	t.Run("a restart forgets nothing", func(t *testing.T) {
		for range 5 {
			s.want(t, "250", a.mail("seven@example.com", "seven@example.com", "x@example.com"))
		}
		a.stop(syscall.SIGTERM)
		a.start(args...)
		s.want(t, overLimit, a.mail("seven@example.com", "seven@example.com", "x@example.com"))
	})
	t.Run("MySQL is away", func(t *testing.T) {
		for i := range 3 {
			s.want(t, "250", a.mail("eight@example.com", "eight@example.com", "x@example.com"))
			if i == 1 {
				must(t, s.db.Stop())
			}
		}
		for range 2 {
			s.want(t, "250", a.mail("eight@example.com", "eight@example.com", "x@example.com"))
		}
		s.want(t, overLimit, a.mail("eight@example.com", "eight@example.com", "x@example.com"))
		s.want(t, "250", a.mail("nine@example.com", "nine@example.com", "x@example.com"))
		must(t, s.db.Start())
		eventually(t, "the other one knows what was counted meanwhile", overLimit, func() string {
			return b.mail("eight@example.com", "eight@example.com", "x@example.com")
		})
	})
	t.Run("MySQL hangs", func(t *testing.T) {
		s.want(t, "250", a.mail("ten@example.com", "ten@example.com", "x@example.com"))
		must(t, s.db.Signal(syscall.SIGSTOP))
		defer s.db.Signal(syscall.SIGCONT)
		time.Sleep(1100 * time.Millisecond) // what is known of ten is too old now
		for range 4 {
			s.want(t, "250", a.mail("ten@example.com", "ten@example.com", "x@example.com"))
		}
		s.want(t, overLimit, a.mail("ten@example.com", "ten@example.com", "x@example.com"))
	})
	t.Run("rate_on_error and shield_on_error, of a policyd that has never seen MySQL", func(t *testing.T) {
		s.db.Signal(syscall.SIGCONT)
		for rule, at := range map[string]string{"rate": "<END-OF-MESSAGE>: End-of-data", "shield": "<x@example.com>: Recipient address"} {
			a.stop(syscall.SIGTERM)
			must(t, s.db.Stop())
			a.start("--rules", rule, "--rate_limits", "5 messages/1h", "--"+rule+"_on_error", "450 4.3.0 "+rule+" failed")
			one := func() string { return a.mail("eleven@example.com", "eleven@example.com", "x@example.com") }
			s.want(t, "450 4.3.0 "+at+" rejected: "+rule+" failed", one())
			s.want(t, "250", a.mail("", "eleven@example.com", "x@example.com"))
			must(t, s.db.Start())
			eventually(t, "MySQL again", "250", one)
		}
	})
	t.Run("a wrong setting", func(t *testing.T) {
		a.stop(syscall.SIGTERM)
		for setting, want := range map[string]string{"rate_limits=5 mails/1h": "rate_limits: want limits", "rate_action=SHOUT": "rate_action: not an action", "rate_action=DUNNO": "limits nothing"} {
			out := a.check("--rules", "rate", "--"+setting)
			if !strings.Contains(out, want) || !strings.Contains(out, "exit status 78") {
				t.Errorf("%s: %s", setting, out)
			}
		}
		s.sql("REVOKE INSERT ON rate_counts FROM 'dovepost_policyd'@'localhost', 'dovepost_policyd'@'127.0.0.1'")
		if out := a.check("--rules", "rate"); !strings.Contains(out, "exit status 78") || !strings.Contains(out, "INSERT") {
			t.Errorf("without the right to write: %s", out)
		}
	})
}

// A login sends 1,000 messages, in several sessions to two machines at once.
func TestRateStopsABurst(t *testing.T) {
	const limit, messages, sessions = 300, 1000, 4
	s := newSite(t, 2)
	for _, m := range s.policyds {
		m.start("--rules", "rate", "--rate_limits", fmt.Sprintf("%d messages/1h", limit))
	}
	burst := func(login string, nodes ...*node) (accepted [2][]time.Time) {
		var mu sync.Mutex
		var wait sync.WaitGroup
		before := s.statements()
		for i := range sessions {
			m := nodes[i%len(nodes)]
			c := m.smtpd.dial(t, "198.51.100.1", login)
			wait.Go(func() {
				for range messages / sessions {
					if err := c.try(login); err == nil {
						mu.Lock()
						accepted[m.number] = append(accepted[m.number], time.Now())
						mu.Unlock()
					} else if !strings.HasPrefix(err.Error(), overLimit) {
						t.Error(err)
						return
					}
				}
			})
		}
		wait.Wait()
		t.Logf("%s: %d accepted; %d statements for %d messages", login, len(accepted[0])+len(accepted[1]), s.statements()-before, messages)
		return accepted
	}
	one := burst("alone@example.com", s.policyds[0])
	if got := len(one[0]); got != limit {
		t.Errorf("one policyd let %d pass, want %d", got, limit)
	}
	two := burst("both@example.com", s.policyds...)
	beyond := len(two[0]) + len(two[1]) - limit
	// The stated error: what one of them let pass in twice the interval, and the time of a statement.
	stated := min(most(two[0], 2200*time.Millisecond), most(two[1], 2200*time.Millisecond))
	if beyond < 0 || beyond > stated {
		t.Errorf("two let pass %d more than %d, stated are at most %d", beyond, limit, stated)
	}
	t.Logf("two policyds: %d beyond the limit, stated are at most %d", beyond, stated)
	eventually(t, "all is in the table", fmt.Sprint(limit+beyond), func() string {
		return strings.Join(s.sql("SELECT SUM(messages) FROM rate_counts WHERE name = 'both@example.com' AND step = 60"), " ")
	})
}

// statements returns how many statements the database has executed.
func (s *site) statements() (n int) {
	s.Helper()
	rows := s.sql("SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'COM_STMT_EXECUTE'")
	_, err := fmt.Sscan(rows[0], &n)
	must(s.T, err)
	return n
}

// most returns how many of the times are within one span.
func most(times []time.Time, span time.Duration) (n int) {
	slices.SortFunc(times, time.Time.Compare)
	for i, j := 0, 0; j < len(times); j++ {
		for times[j].Sub(times[i]) > span {
			i++
		}
		n = max(n, j-i+1)
	}
	return n
}

func TestRateWindowsMove(t *testing.T) {
	s := newSite(t, 1)
	m := s.policyds[0]
	m.start("--rules", "rate", "--rate_limits", "4 messages/3s", "--rate_action", "HOLD")
	one := func() { s.want(t, "250", m.mail("joe@example.com", "joe@example.com", "x@example.com")) }
	type span struct{ begun, ended time.Time }
	var sent []span // each that passed
	for len(sent) < 6 {
		before, begun := len(s.held()), time.Now()
		one()
		if len(s.held()) == before {
			sent = append(sent, span{begun, time.Now()})
		}
		time.Sleep(50 * time.Millisecond)
	}
	for i := 4; i < len(sent); i++ {
		if took := sent[i].ended.Sub(sent[i-4].begun); took < 3*time.Second {
			t.Errorf("message %d passed %v after the fourth before it, want 3 s", i, took)
		}
	}
	if len(s.held()) == 0 {
		t.Error("nothing is on hold")
	}
	if !strings.Contains(m.text(), "sending limit reached") {
		t.Error("the log says nothing")
	}
}
