package policy

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dovepost/cmd/internal/faultproxy"
)

// everything are settings with which all rules are on and have something to say.
func everything(mysql string) []string {
	return []string{"--rules=access,sender,rate,shield,greylist,quota", "--mysql=" + mysql, "--access_table=yes", "--access_table_interval=1s",
		"--rate_limits=1000 messages/1h"}
}

// flow sends n messages from a stranger, one from a login in between, and returns the longest
// time that one of them took. All are to be accepted.
func (p *policyd) flow(n int, name string) time.Duration {
	p.t.Helper()
	var longest time.Duration
	s := p.postfix.dial(p.t, "198.51.100.9", "")
	for i := range n {
		begun := time.Now()
		s.want("250", s.send(fmt.Sprintf("%s-%c@far.example", name, 'a'+i), "user@example.com"))
		longest = max(longest, time.Since(begun))
	}
	s.quit()
	s = p.postfix.dial(p.t, "203.0.113.9", "user@example.com")
	begun := time.Now()
	s.want("250", s.send("user@example.com", "x@example.com"))
	s.quit()
	return max(longest, time.Since(begun))
}

// Whatever happens to policyd and to its database, mail keeps flowing. What each fault may cost is
// stated: lookup_timeout for those who are the first to see that the database hangs, and the
// timeout in main.cf, here 3 s, for each request that a stopped policyd gets. The limits below are
// for a busy machine; to wait in each of three restrictions would take longer.
func TestMailFlowsWhateverFails(t *testing.T) {
	d := newDatabase(t)
	d.exec("INSERT INTO users (email, password, quota) VALUES ('user@example.com', 'x', 1024)")
	proxy, err := faultproxy.Listen("tcp", "127.0.0.1:0", "tcp", server.Addr())
	must(t, err)
	t.Cleanup(func() { proxy.Close() })
	p := prepare(t)
	start := func() { p.start(everything(d.file(proxy.Addr()))...) }
	start()
	judges := func(name string) {
		t.Helper()
		waitFor(t, func() bool {
			s := p.postfix.dial(t, "198.51.100.9", "")
			defer s.quit()
			return strings.HasPrefix(s.rcpt(name+"@far.example", "user@example.com"), "450 4.2.0")
		})
	}
	judges("first")

	t.Log("the database refuses connections")
	must(t, proxy.Set(faultproxy.Refuse()))
	if took := p.flow(5, "refused"); took > 4*time.Second {
		t.Errorf("a message took %v", took)
	}
	must(t, proxy.Set(faultproxy.Pass()))
	judges("back")

	t.Log("the database hangs: the first questions wait for lookup_timeout, all others pass at once")
	must(t, proxy.Set(faultproxy.Hang()))
	if took := p.flow(1, "hanging"); took > 12*time.Second {
		t.Errorf("the first message took %v", took)
	}
	if took := p.flow(5, "later"); took > 4*time.Second {
		t.Errorf("a later message took %v", took)
	}
	must(t, proxy.Set(faultproxy.Pass()))
	judges("again")

	t.Log("the network loses everything")
	must(t, proxy.Set(faultproxy.Lose()))
	if took := p.flow(1, "lost"); took > 12*time.Second {
		t.Errorf("the first message took %v", took)
	}
	if took := p.flow(5, "lost-later"); took > 4*time.Second {
		t.Errorf("a later message took %v", took)
	}
	must(t, proxy.Set(faultproxy.Pass()))
	judges("found")

	t.Log("started while the database is away")
	p.stop(syscall.SIGTERM)
	must(t, proxy.Set(faultproxy.Refuse()))
	start()
	if took := p.flow(3, "away"); took > 4*time.Second {
		t.Errorf("a message took %v", took)
	}
	must(t, proxy.Set(faultproxy.Pass()))
	judges("there")

	t.Log("policyd is killed in the middle of a session")
	s := p.postfix.dial(t, "198.51.100.9", "")
	s.want("450", s.rcpt("one@far.example", "user@example.com"))
	p.stop(syscall.SIGKILL)
	begun := time.Now()
	s.want("250", s.send("two@far.example", "user@example.com"))
	// Postfix itself waits for smtpd_policy_service_retry_delay, 1 s, in each of three restrictions.
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("without policyd a message took %v", took)
	}
	s.quit()
	os.Remove(p.socket())
	start()
	judges("reborn")

	t.Log("policyd is stopped: each request costs the timeout in main.cf")
	p.Process.Signal(syscall.SIGSTOP)
	s = p.postfix.dial(t, "198.51.100.9", "")
	begun = time.Now()
	s.want("250", s.rcpt("three@far.example", "user@example.com"))
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("with a stopped policyd a recipient took %v", took)
	}
	p.Process.Signal(syscall.SIGCONT)
	s.quit()
	judges("awake")
}

// on_error of each rule is what happens when its database does not answer.
func TestOnError(t *testing.T) {
	d := newDatabase(t)
	d.exec("INSERT INTO users (email, password, quota) VALUES ('user@example.com', 'x', 1024)")
	proxy, err := faultproxy.Listen("tcp", "127.0.0.1:0", "tcp", server.Addr())
	must(t, err)
	t.Cleanup(func() { proxy.Close() })
	p := prepare(t)
	for _, rule := range []string{"access", "sender", "greylist", "quota"} {
		args := everything(d.file(proxy.Addr()))
		args[0] = "--rules=" + rule
		args = slices.Concat(args, []string{"--" + rule + "_on_error=450 4.3.0 " + rule + " failed"})
		must(t, proxy.Set(faultproxy.Refuse()))
		p.start(args...)
		login := ""
		if rule == "sender" {
			login = "user@example.com"
		}
		s := p.postfix.dial(t, "198.51.100.9", login)
		want := "450 4.3.0 <user@example.com>: Recipient address rejected: " + rule + " failed"
		if got := s.rcpt("other@example.com", "user@example.com"); got != want {
			t.Errorf("%s: got %q, want %q", rule, got, want)
		}
		s.quit()
		must(t, proxy.Set(faultproxy.Pass()))
		waitFor(t, func() bool {
			s := p.postfix.dial(t, "198.51.100.9", login)
			defer s.quit()
			return !strings.Contains(s.rcpt("other@example.com", "user@example.com"), "failed")
		})
		p.stop(syscall.SIGTERM)
		os.Remove(p.socket())
	}
}
