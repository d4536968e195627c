package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// from sends a message of a login from an address and returns the last answer.
func (m *node) from(address, login string, recipients ...string) string {
	m.Helper()
	s := m.smtpd.dial(m.T, address, login)
	defer s.quit()
	return s.message(login, recipients...)
}

func TestShield(t *testing.T) {
	s := newSiteAlone(t, 2)
	must(t, os.WriteFile(filepath.Join(s.dir, "etc/known"), []byte("x@example.com ok\ny@example.com ok\njoe@example.com ok\njim@example.com ok\n"), 0o644))
	run(t, "/usr/sbin/postconf", "-c", filepath.Join(s.dir, "etc"), "-e", "local_recipient_maps=texthash:"+filepath.Join(s.dir, "etc/known"))
	s.reload(t)
	s.sql(`ALTER TABLE users ADD active INT NOT NULL DEFAULT 1;
INSERT INTO users (email, password) VALUES ('joe@example.com', ''), ('jim@example.com', ''), ('x@example.com', '');
GRANT UPDATE (active) ON users TO 'dovepost_policyd'@'localhost', 'dovepost_policyd'@'127.0.0.1';`)
	told := filepath.Join(s.dir, "told")
	must(t, os.WriteFile(filepath.Join(s.dir, "sendmail"), []byte("#!/bin/sh\ncat >> "+told+"\n"), 0o755))
	args := []string{"--rules", "shield", "--shield_networks", "5", "--shield_regions", "0", "--shield_refused", "5", "--shield_bounces", "5",
		"--shield_lock_query", "UPDATE users SET active = 0 WHERE email = '%u'", "--notify_to", "postmaster@example.com", "--notify_via", filepath.Join(s.dir, "sendmail")}
	for _, m := range s.policyds {
		m.start(args...)
	}
	a, b := s.policyds[0], s.policyds[1]
	state := func(login string) string {
		return strings.Join(s.sql("SELECT state, reason FROM shield_accounts WHERE login = '%s'", login), ";")
	}

	t.Run("many networks, over two machines", func(t *testing.T) {
		for i := range 5 {
			s.want(t, "250", s.policyds[i%2].from(fmt.Sprintf("198.18.%d.1", i), "joe@example.com", "x@example.com"))
		}
		if held := s.held(); len(held) != 0 {
			t.Fatalf("on hold already: %q", held)
		}
		eventually(t, "all machines know of five", "5", func() string { return s.sql("SELECT COUNT(*) FROM shield_networks")[0] })
		time.Sleep(5100 * time.Millisecond) // what a knows of b is too old then
		s.want(t, "250", a.from("198.18.77.1", "Joe@Example.com", "x@example.com"))
		if held := s.held(); len(held) != 1 {
			t.Fatalf("on hold: %q, want one", held)
		}
		eventually(t, "the row", "held\tsends from 6 networks of /24 or /64 within 1h0m0s", func() string { return state("joe@example.com") })
		eventually(t, "the lock", "0", func() string { return s.sql("SELECT active FROM users WHERE email = 'joe@example.com'")[0] })
		if active := s.sql("SELECT active FROM users WHERE email = 'jim@example.com'")[0]; active != "1" {
			t.Error("somebody else is locked, too")
		}
		eventually(t, "the other machine", "2", func() string {
			s.want(t, "250", b.from("198.18.0.1", "joe@example.com", "x@example.com"))
			return fmt.Sprint(len(s.held()))
		})
		s.want(t, "250", b.from("198.18.0.1", "jim@example.com", "x@example.com"))
		if held := len(s.held()); held != 2 {
			t.Errorf("%d on hold, want 2: somebody else's, too", held)
		}
		for _, m := range s.policyds {
			want := 0
			if m == a {
				want = 1
			}
			if got := strings.Count(m.text(), `msg="account put on hold"`); got != want {
				t.Errorf("policyd %d says %d times that an account is put on hold, want %d", m.number, got, want)
			}
		}
		eventually(t, "the notification", "1", func() string {
			text, _ := os.ReadFile(told)
			return fmt.Sprint(strings.Count(string(text), "Subject: account put on hold: joe@example.com"))
		})
	})
	t.Run("a restart, and MySQL away", func(t *testing.T) {
		a.stop(syscall.SIGTERM)
		a.start(args...)
		before := len(s.held())
		s.want(t, "250", a.from("198.18.0.1", "joe@example.com", "x@example.com"))
		must(t, s.db.Stop())
		time.Sleep(5100 * time.Millisecond)
		s.want(t, "250", a.from("198.18.0.1", "joe@example.com", "x@example.com"))
		s.want(t, "250", a.from("198.18.0.1", "stranger@example.com", "x@example.com"))
		if held := len(s.held()); held != before+2 {
			t.Errorf("%d on hold, want %d", held, before+2)
		}
		must(t, s.db.Start())
	})
	t.Run("released by one row", func(t *testing.T) {
		s.sql("UPDATE shield_accounts SET state = 'released' WHERE login = 'joe@example.com'")
		for _, m := range s.policyds {
			eventually(t, "released", "true", func() string {
				before := len(s.held())
				s.want(t, "250", m.from("198.18.0.1", "joe@example.com", "x@example.com"))
				return fmt.Sprint(len(s.held()) == before)
			})
		}
	})
	t.Run("recipients that are not there", func(t *testing.T) {
		c := a.smtpd.dial(t, "198.18.0.1", "jim@example.com")
		defer c.quit()
		for i := range 4 {
			c.want("250", c.ask("RSET"))
			c.want("250", c.ask("MAIL FROM:<jim@example.com>"))
			c.want("250", c.ask("RCPT TO:<y@example.com>"))
			c.want("550 5.1.1", c.ask(fmt.Sprintf("RCPT TO:<a%d@example.com>", i)))
			c.want("550 5.1.1", c.ask(fmt.Sprintf("RCPT TO:<b%d@example.com>", i)))
			c.want("354", c.ask("DATA"))
			must(t, c.PrintfLine("Subject: test\n\ntest\n."))
			c.want("250", c.read())
		}
		eventually(t, "the row", "held\t6 recipients were refused for ", func() string { return state("jim@example.com") })
	})
	t.Run("a proxy filter, which has no queue files", func(t *testing.T) {
		before, behind := &postfix{dir: s.dir, addr: freeAddr(t)}, freeAddr(t)
		s.append(t, "master.cf", fmt.Sprintf("%s inet n - y - 20 smtpd -o p=$p1 -o smtpd_proxy_filter=%s -o smtpd_client_connection_count_limit=0\n"+
			"%s inet n - y - 20 smtpd -o smtpd_recipient_restrictions= -o smtpd_data_restrictions= -o smtpd_end_of_data_restrictions=\n", before.addr, behind, behind))
		s.reload(t, before.addr)
		c := before.dial(t, "198.18.0.1", "jane@example.com")
		defer c.quit()
		for range 8 {
			c.want("250", c.message("jane@example.com", "x@example.com", "y@example.com", "x@example.com"))
		}
		if got := state("jane@example.com"); got != "" {
			t.Errorf("jane: %s", got)
		}
		eventually(t, "the counts", "24\t0", func() string {
			return s.sql("SELECT SUM(tried), SUM(refused) FROM shield_counts WHERE name = 'jane@example.com' AND step < 900")[0]
		})
	})
	t.Run("bounces", func(t *testing.T) {
		for range 6 {
			s.want(t, "250", b.from("198.18.0.1", "x@example.com", "y@example.com"))
		}
		for range 6 {
			c := b.smtpd.dial(t, "203.0.113.1", "")
			c.want("250", c.message("", "x@example.com"))
			c.want("250", c.message("", "y@example.com")) // who does not send
			c.quit()
		}
		eventually(t, "the row", "held\t6 bounces came for 6 within 1h0m0s", func() string { return state("x@example.com") })
		if got := s.sql("SELECT active FROM users WHERE email = 'x@example.com'")[0]; got != "1" {
			t.Error("x is locked for what anybody can send")
		}
		if got := state("y@example.com"); got != "" {
			t.Errorf("y: %s", got)
		}
	})
	t.Run("a wrong setting", func(t *testing.T) {
		for setting, want := range map[string]string{
			"--shield_lock_query=UPDATE users SET active = 0":                     "lock everybody",
			"--shield_lock_query=DELETE FROM users WHERE email = '%u'":            "no UPDATE",
			"--shield_lock_query=UPDATE users SET nothing = 0 WHERE email = '%u'": "nothing",
			"--shield_lock_query=UPDATE users SET active = 0 WHERE email = '%x'":  "want %u",
			"--shield_action=DUNNO": "shield_action",
		} {
			if out := a.check("--rules", "shield", setting); !strings.Contains(out, want) || !strings.Contains(out, "exit status 78") {
				t.Errorf("%s: %s", setting, out)
			}
		}
	})
}
