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

// flow sends n messages from strangers, and one from a login at the end. All are to be accepted, and nearly
// all at once: to wait for lookup_timeout in each of three restrictions would take all of them half a minute or more.
func (p *policyd) flow(n int, name string) {
	p.t.Helper()
	begun := time.Now()
	s := p.postfix.dial(p.t, "198.51.100.9", "")
	for i := range n {
		s.want("250", s.send(fmt.Sprintf("%s-%c@far.example", name, 'a'+i), "user@example.com"))
	}
	s.quit()
	s = p.postfix.dial(p.t, "203.0.113.9", "user@example.com")
	s.want("250", s.send("user@example.com", "x@example.com"))
	s.quit()
	if took := time.Since(begun); took > time.Duration(n+1)*3*lookupTimeout*4/5 {
		p.t.Errorf("%d messages took %v", n+1, took)
	}
}

// proxied returns a way to MariaDB on which things go wrong.
func proxied(t *testing.T) *faultproxy.Proxy {
	proxy, err := faultproxy.Listen("tcp", "127.0.0.1:0", "tcp", server.Addr())
	must(t, err)
	t.Cleanup(func() { proxy.Close() })
	return proxy
}

// lookupTimeout is below the timeout in main.cf, which is 3 s here.
const lookupTimeout = time.Second

// Whatever happens to policyd and to its database, mail keeps flowing. What each fault may cost is
// stated: lookup_timeout for those who are the first to see that the database hangs, and the
// timeout in main.cf for each request that a stopped policyd gets.
func TestMailFlowsWhateverFails(t *testing.T) {
	d := newDatabase(t)
	d.exec("INSERT INTO users (email, password, quota) VALUES ('user@example.com', 'x', 1024)")
	proxy := proxied(t)
	p := prepare(t)
	start := func() {
		p.start(append(everything(d.file(proxy.Addr())), "--lookup_timeout="+lookupTimeout.String(), "--answer_within=2500ms")...)
	}
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

	for _, outage := range []struct {
		name  string
		fault faultproxy.Fault
	}{
		{"refused", faultproxy.Refuse()},
		{"hanging", faultproxy.Hang()}, // the first questions wait for lookup_timeout, all others pass at once
		{"lost", faultproxy.Lose()},
	} {
		t.Logf("connections to the database are %s", outage.name)
		must(t, proxy.Set(outage.fault))
		s := p.postfix.dial(t, "198.51.100.9", "")
		s.want("250", s.send(outage.name+"@far.example", "user@example.com"))
		s.quit()
		p.flow(9, outage.name)
		must(t, proxy.Set(faultproxy.Pass()))
		judges("after-" + outage.name)
	}

	t.Log("started while the database is away")
	p.stop(syscall.SIGTERM)
	must(t, proxy.Set(faultproxy.Refuse()))
	start()
	p.flow(9, "away")
	must(t, proxy.Set(faultproxy.Pass()))
	judges("there")

	t.Log("policyd is killed in the middle of a session")
	s := p.postfix.dial(t, "198.51.100.9", "")
	s.want("450", s.rcpt("one@far.example", "user@example.com"))
	p.stop(syscall.SIGKILL)
	s.want("250", s.send("two@far.example", "user@example.com"))
	s.quit()
	os.Remove(p.socket())
	start()
	judges("reborn")

	t.Log("policyd is stopped: each request costs the timeout in main.cf")
	p.freeze()
	s = p.postfix.dial(t, "198.51.100.9", "")
	s.want("250", s.rcpt("three@far.example", "user@example.com"))
	p.Process.Signal(syscall.SIGCONT)
	s.quit()
	judges("awake")
}

// on_error of each rule is what happens when its database does not answer.
func TestOnError(t *testing.T) {
	d := newDatabase(t)
	d.exec("INSERT INTO users (email, password, quota) VALUES ('user@example.com', 'x', 1024)")
	proxy := proxied(t)
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
