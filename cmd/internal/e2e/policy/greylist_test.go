package policy

import (
	"fmt"
	"net/mail"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const deferred = "450 4.2.0 <%s>: Recipient address rejected: Greylisted, try again in %d seconds"

// age makes the rows of the greylist older.
func (d *database) age(by time.Duration) {
	d.t.Helper()
	n := int(by / time.Second)
	d.exec(fmt.Sprintf("UPDATE greylist SET first_seen = first_seen - %[1]d, expires = expires - %[1]d; UPDATE greylist_networks SET expires = expires - %[1]d;", n))
}

// sooner reports whether an answer is that of want a little later: less than a minute is left of its time.
func sooner(got, want string) bool {
	const again = "try again in "
	a, left, _ := strings.Cut(got, again)
	b, all, found := strings.Cut(want, again)
	var n, most int
	fmt.Sscan(left, &n)
	fmt.Sscan(all, &most)
	return found && a == b && n <= most && n > most-60
}

func TestGreylist(t *testing.T) {
	d := newDatabase(t)
	d.exec(`INSERT INTO greylist_recipients VALUES ('off@example.com', 0), ('quiet.example', 0);`)
	p := prepare(t)
	p.start("--rules=greylist", "--mysql="+d.file(server.Addr()), "--greylist_auto_allow=2", "--recipient_delimiter=+", "--mynetworks=203.0.113.0/24")
	try := func(address, login, sender, recipient string) string {
		t.Helper()
		s := p.postfix.dial(t, address, login)
		defer s.quit()
		return s.send(sender, recipient)
	}
	first := fmt.Sprintf(deferred, "x@example.com", 300)
	for _, tt := range []struct {
		name                              string
		age                               time.Duration
		address, login, sender, recipient string
		want                              string
	}{
		{"a stranger", 0, "192.0.2.1", "", "a@far.example", "x@example.com", first},
		{"an early retry from its network", time.Minute, "192.0.2.2", "", "a@far.example", "x@example.com", fmt.Sprintf(deferred, "x@example.com", 240)},
		{"what a restriction after policyd refuses", 0, "192.0.2.1", "", "a@far.example", "gone@example.com", "554 5.7.1"},
		{"a login", 0, "192.0.2.3", "user", "a@far.example", "x@example.com", "250"},
		{"mynetworks", 0, "203.0.113.3", "", "a@far.example", "x@example.com", "250"},
		{"a recipient who opted out", 0, "192.0.2.3", "", "a@far.example", "Off+tag@Example.com", "250"},
		{"the retry", 4 * time.Minute, "192.0.2.9", "", "A@Far.Example", "X+tag@example.com", "250"},
		{"the next message", 0, "192.0.2.9", "", "a@far.example", "x@example.com", "250"},
		{"another sender", 0, "192.0.2.9", "", "prvs=2617a3b4c5=b@far.example", "x@example.com", first},
		{"its retry, signed anew", 5 * time.Minute, "192.0.2.9", "", "prvs=9617ffff00=b@far.example", "x@example.com", "250"},
		{"a third sender of a network that is known now", 0, "192.0.2.9", "", "c@far.example", "y@example.com", "250"},
		{"an unknown network", 0, "198.51.100.1", "", "c@far.example", "x@example.com", first},
		{"its retry after the window", 49 * time.Hour, "198.51.100.1", "", "c@far.example", "x@example.com", first},
		{"a bounce, judged when it comes", 0, "198.51.100.1", "", "", "x@example.com", strings.Replace(first, "<x@example.com>: Recipient address", "<DATA>: Data command", 1)},
		{"the bounce again", 5 * time.Minute, "198.51.100.1", "", "", "x@example.com", "250"},
	} {
		if tt.age > 0 {
			d.age(tt.age)
		}
		if got := try(tt.address, tt.login, tt.sender, tt.recipient); !strings.HasPrefix(got, tt.want) && !sooner(got, tt.want) {
			t.Errorf("it handles %s: %q, want %q", tt.name, got, tt.want)
		}
	}
	t.Log("a callout has its answer at once")
	s := p.postfix.dial(t, "198.51.100.200", "")
	s.want("250", s.rcpt("", "x@example.com"))
	s.quit()
	if got := d.query("SELECT network, passes FROM greylist_networks ORDER BY passes"); len(got) != 2 || !strings.HasPrefix(got[1], "192.0.2.0/24\t2") {
		t.Errorf("networks: %q", got)
	}
	t.Log("another policyd on the same database knows what this one has learnt")
	p.stop(15)
	p.start("--rules=greylist", "--mysql="+d.file(server.Addr()), "--greylist_auto_allow=2", "--greylist_opt_in=yes")
	s = p.postfix.dial(t, "198.51.100.200", "")
	s.want("250", s.rcpt("new@far.example", "x@example.com"))
	d.exec("INSERT INTO greylist_recipients VALUES ('example.com', 1)")
	s.want("450", s.rcpt("new@far.example", "y@example.com"))
	s.want("250", s.rcpt("new@far.example", "off@example.com"))
	s.quit()
	s = p.postfix.dial(t, "192.0.2.9", "")
	s.want("250", s.rcpt("new@far.example", "y@example.com"))
	s.quit()
}

// A real Postfix is put off, tries again by itself, and its mail has the header that tells how
// long that took.
func TestGreylistWithARetryingPostfix(t *testing.T) {
	d := newDatabase(t)
	p := prepare(t)
	p.start("--rules=greylist", "--mysql="+d.file(server.Addr()), "--greylist_delay=4s", "--greylist_header=yes", "--mynetworks=")
	sender := startSender(t, p.postfix)
	begun := time.Now()
	sender.submit("a@far.example", "x@example.com", "Subject: greylisted\n\nhello\n")
	var kept string
	waitFor(t, func() bool {
		files, _ := filepath.Glob(filepath.Join(p.postfix.spool(), "hold", "*"))
		if len(files) == 0 {
			return false
		}
		kept = filepath.Base(files[0])
		return true
	})
	took := time.Since(begun)
	waitFor(t, func() bool { return strings.Contains(sender.log(), "status=sent") })
	m, err := mail.ReadMessage(strings.NewReader(p.postfix.cat(t, kept)))
	must(t, err)
	var seconds int
	if _, err := fmt.Sscanf(m.Header.Get("X-Greylist"), "delayed %d seconds by dovepost at ", &seconds); err != nil || seconds < 4 || time.Duration(seconds-1)*time.Second > took {
		t.Errorf("after %v X-Greylist is %q: %v", took, m.Header.Get("X-Greylist"), err)
	}
	if log := sender.log(); !strings.Contains(log, "status=deferred (host 127.0.0.1[127.0.0.1] said: 450 4.2.0") || !strings.Contains(log, "status=sent") {
		t.Errorf("the sender's log:\n%s", log)
	}
	deferrals := strings.Count(sender.log(), "status=deferred")
	sender.submit("a@far.example", "x@example.com", "Subject: known\n\nhello\n")
	waitFor(t, func() bool { return strings.Count(sender.log(), "status=sent") == 2 })
	if strings.Count(sender.log(), "status=deferred") != deferrals {
		t.Error("the second message is put off, too")
	}
}
