package policy

import (
	"strings"
	"syscall"
	"testing"

	"dovepost/cmd/internal/faultproxy"
)

func TestAccessTables(t *testing.T) {
	d := newDatabase(t)
	d.exec(`INSERT INTO access_list (priority, field, pattern, action) VALUES
		(10, 'sender', 'far.example', 'REJECT not from there'), (5, 'sender', 'boss@far.example', 'DUNNO'),
		(10, 'client', '198.51.100.0/25', 'REJECT bad network'), (10, 'sender', 'broken.example', 'NONSENSE');
		CREATE TABLE site_access (who VARCHAR(255) PRIMARY KEY, what VARCHAR(255));
		INSERT INTO site_access VALUES ('.deep.example', '450 4.7.1 later'), ('closed@example.com', 'REJECT closed'),
		('mallory@example.com', 'REJECT account is closed'), ('x@bad.example', 'NONSENSE');
		GRANT SELECT ON site_access TO dovepost_policyd@localhost, dovepost_policyd@127.0.0.1;`)
	proxy := proxied(t)
	site := d.table(server.Addr(), "SELECT what FROM site_access WHERE who = '%s'")
	p := prepare(t)
	p.start("--rules=access", "--access_table=yes", "--access_table_interval=1s", "--mysql="+d.file(proxy.Addr()), "--access_on_error=WARN failed",
		"--access_sender_maps="+site, "--access_recipient_maps="+site, "--access_login_maps="+site)
	ask := func(address, login, sender, recipient string) string {
		t.Helper()
		s := p.postfix.dial(t, address, login)
		defer s.quit()
		return s.rcpt(sender, recipient)
	}
	for _, tt := range []struct{ name, address, login, sender, recipient, want string }{
		{"a sender's domain", "192.0.2.1", "", "a@Far.example", "x@example.com", "554 5.7.1 <x@example.com>: Recipient address rejected: not from there"},
		{"an exemption of higher priority", "192.0.2.1", "", "boss@far.example", "x@example.com", "250"},
		{"an exemption, also from the maps", "192.0.2.1", "", "boss@far.example", "closed@example.com", "250"},
		{"a network of any length", "198.51.100.127", "", "a@b.example", "x@example.com", "554 5.7.1 <x@example.com>: Recipient address rejected: bad network"},
		{"its neighbour", "198.51.100.128", "", "a@b.example", "x@example.com", "250"},
		{"a subdomain in a map", "192.0.2.1", "", "a@very.deep.example", "x@example.com", "450 4.7.1 <x@example.com>: Recipient address rejected: later"},
		{"a recipient in a map", "192.0.2.1", "", "a@b.example", "Closed@example.com", "554"},
		{"a login in a map", "192.0.2.1", "mallory@example.com", "a@b.example", "x@example.com", "554"},
		{"an action that is none", "192.0.2.1", "", "x@bad.example", "x@example.com", "250"},
		{"nothing", "192.0.2.1", "", "a@b.example", "x@example.com", "250"},
	} {
		if got := ask(tt.address, tt.login, tt.sender, tt.recipient); !strings.HasPrefix(got, tt.want) {
			t.Errorf("it handles %s: %q, want %q", tt.name, got, tt.want)
		}
	}
	if log := p.log(); !strings.Contains(log, "rows of the access table are left out") || !strings.Contains(log, `action="WARN failed"`) {
		t.Error("the log says nothing about what is wrong")
	}
	t.Log("rows are live in a second")
	d.exec("INSERT INTO access_list (field, pattern, action) VALUES ('sender', 'new.example', 'REJECT')")
	waitFor(t, func() bool { return strings.HasPrefix(ask("192.0.2.1", "", "a@new.example", "x@example.com"), "554") })
	t.Log("without the database the table's last rows count")
	must(t, proxy.Set(faultproxy.Refuse()))
	waitFor(t, func() bool { return strings.Contains(p.log(), "the access table cannot be read") })
	s := p.postfix.dial(t, "192.0.2.1", "")
	s.want("554", s.rcpt("a@new.example", "x@example.com"))
	s.quit()
	t.Log("started without it, the rule fails as access_on_error says, and knows the rows as soon as they can be read")
	p.stop(syscall.SIGTERM)
	p.start("--rules=access", "--access_table=yes", "--access_table_interval=1s", "--mysql="+d.file(proxy.Addr()), "--access_on_error=450 4.3.0 not now")
	s = p.postfix.dial(t, "192.0.2.1", "")
	s.want("450 4.3.0", s.rcpt("a@new.example", "x@example.com"))
	must(t, proxy.Set(faultproxy.Pass()))
	waitFor(t, func() bool { return strings.HasPrefix(s.rcpt("a@new.example", "x@example.com"), "554") })
	s.want("250", s.rcpt("a@b.example", "x@example.com"))
	s.quit()
}
