// Package adopt has a real Postfix with mysql: tables change over to lookupd, by the
// commands that lookupd prints, and back.
package adopt

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
	"dovepost/cmd/internal/stack/mailclient"
)

const schema = `CREATE DATABASE mail CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
USE mail;
CREATE TABLE domains (domain VARCHAR(255) PRIMARY KEY);
CREATE TABLE users (email VARCHAR(255) PRIMARY KEY);
CREATE TABLE alias (address VARCHAR(255) PRIMARY KEY, goto TEXT);
CREATE TABLE access (k VARCHAR(255) PRIMARY KEY, action VARCHAR(255));
INSERT INTO domains VALUES ('a.test'), ('all.test');
INSERT INTO users VALUES ('user@a.test'), ('other@a.test'), ('box@all.test');
INSERT INTO alias VALUES ('list@a.test', 'user@a.test, other@a.test'), ('@all.test', 'user@a.test');
INSERT INTO access VALUES ('blocked@a.test', 'REJECT blocked by table'), ('evil.test', 'REJECT evil sender');
CREATE USER reader@localhost IDENTIFIED BY 'secret';
GRANT SELECT ON mail.* TO reader@localhost;`

// mainCf has all that the plan knows: a macro, several tables of a parameter, a table
// among others, a default that follows, an access table, a class.
const mainCf = `
sql = proxy:mysql:${config_directory}/
virtual_mailbox_domains = ${sql}domains.cf
virtual_mailbox_maps = ${sql}users.cf
virtual_alias_maps =
   ${sql}alias.cf,
   ${sql}self.cf
relocated_maps = inline:{gone@a.test=elsewhere@other.test}, ${sql}none.cf
recipient_delimiter = +
virtual_transport = discard:
mydestination =
local_recipient_maps =
mynetworks = 127.0.0.9
smtpd_restriction_classes = strict
strict = check_sender_access ${sql}access.cf
smtpd_recipient_restrictions = strict, check_recipient_access ${sql}access.cf, reject_unauth_destination
smtpd_discard_ehlo_keywords = chunking
ipc_idle = 1s
`

// tables are the .cf files by name.
var tables = map[string]string{
	"domains": "SELECT 1 FROM domains WHERE domain='%s'",
	"users":   "SELECT 1 FROM users WHERE email='%s'",
	"alias":   "SELECT goto FROM alias WHERE address='%s'",
	"self":    "SELECT email FROM users WHERE email='%s'",
	"none":    "SELECT 1 FROM users WHERE email='%s' AND 1=0",
	"access":  "SELECT action FROM access WHERE k='%s'",
}

// site is a Postfix, its database, and lookupd beside it.
type site struct {
	t       *testing.T
	dir     string
	postfix *stack.Postfix
	db      *stack.MariaDB
	lookupd *stack.Daemon
	bin     string
	sent    int
}

func start(t *testing.T) *site {
	dir, err := os.MkdirTemp("", "adopt")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, dir: dir, bin: filepath.Join(dir, "bin")}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s.must(stack.Build(s.bin))
	s.db, err = stack.StartMariaDB(dir)
	s.must(err)
	t.Cleanup(func() { s.db.Stop() })
	s.must(s.db.Exec(schema))
	etc := filepath.Join(dir, "postfix", "etc")
	s.must(os.MkdirAll(etc, 0o755))
	for name, query := range tables {
		text := "hosts = unix:" + s.db.Socket() + "\nuser = reader\npassword = secret\ndbname = mail\nquery = " + query + "\n"
		s.must(os.WriteFile(filepath.Join(etc, name+".cf"), []byte(text), 0o644))
	}
	// The second listener has an override of its own.
	s.postfix, err = stack.StartPostfix(dir, mainCf, []string{"max_use=1"},
		[]string{"max_use=1", "smtpd_recipient_restrictions=permit_auth_destination,reject", "smtpd_sender_restrictions=check_sender_access,proxy:mysql:" + etc + "/access.cf"})
	s.must(err)
	t.Cleanup(func() { s.postfix.Stop() })
	s.lookupd, err = stack.StartDaemon(filepath.Join(s.bin, "lookupd"), dir, "socketmap", s.socket(), "--postfix", etc)
	s.must(err)
	t.Cleanup(func() { s.lookupd.Stop() })
	return s
}

func (s *site) socket() string { return filepath.Join(s.postfix.Spool(), "dovepost", "lookup") }

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// run runs a command of the site and returns what it prints.
func (s *site) run(name string, args ...string) string {
	s.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// commands are those that lookupd prints.
func (s *site) commands(mode string) string {
	s.t.Helper()
	out, err := exec.Command(filepath.Join(s.bin, "lookupd"), "--postfix", s.postfix.ConfigDir(), "--print-main-cf="+mode).Output()
	s.must(err)
	return string(out)
}

// settings are all that main.cf and master.cf say.
func (s *site) settings() string {
	s.t.Helper()
	return s.run("postconf", "-c", s.postfix.ConfigDir(), "-n") + s.run("postconf", "-c", s.postfix.ConfigDir(), "-P") + s.run("postconf", "-c", s.postfix.ConfigDir(), "-M")
}

// file is main.cf without comments and empty lines.
func (s *site) file() string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.postfix.ConfigDir(), "main.cf"))
	s.must(err)
	var lines []string
	for line := range strings.Lines(string(text)) {
		if strings.TrimSpace(line) != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// joined is a main.cf without continuation lines.
func joined(file string) string { return regexp.MustCompile(`\n?[ \t]+`).ReplaceAllString(file, " ") }

// behaviour is what an SMTP client and the log see of some addresses.
func (s *site) behaviour() string {
	s.t.Helper()
	var all strings.Builder
	for _, ask := range []struct {
		listener int
		from, to string
	}{
		{0, "x@out.test", "user@a.test"},
		{0, "x@out.test", "USER+ext@A.test"},
		{0, "x@out.test", "list@a.test"},
		{0, "x@out.test", "list+ext@a.test"},
		{0, "x@out.test", "box@all.test"},
		{0, "x@out.test", "any+ext@all.test"},
		{0, "x@out.test", "nobody@a.test"},
		{0, "x@out.test", "gone@a.test"},
		{0, "x@out.test", "blocked@a.test"},
		{0, "x@out.test", "user@foreign.test"},
		{0, "x@evil.test", "user@a.test"},
		{1, "x@sub.evil.test", "user@a.test"},
		{1, "x@out.test", "list@a.test"},
	} {
		fmt.Fprintf(&all, "%d %s %s: %s\n", ask.listener, ask.from, ask.to, s.send(ask.listener, ask.from, ask.to))
	}
	return all.String()
}

// send sends a message and returns the refusal, or who got it.
func (s *site) send(listener int, from, to string) string {
	s.t.Helper()
	s.sent++
	id := fmt.Sprintf("<%d@out.test>", s.sent)
	c, err := mailclient.DialSMTP(s.postfix.Addr(listener))
	s.must(err)
	defer c.Close()
	s.must(c.Must("EHLO test.client"))
	s.must(c.Must("MAIL FROM:<%s>", from))
	if r, err := c.Cmd("RCPT TO:<%s>", to); err != nil || !r.OK() {
		return fmt.Sprint(r, err)
	}
	s.must(c.Must("DATA"))
	r, err := c.Cmd("Message-ID: %s\r\n\r\ntext\r\n.", id)
	if err != nil || !r.OK() {
		return fmt.Sprint("DATA: ", r, err)
	}
	s.must(s.postfix.WaitQueue(time.Minute))
	// The queue can be empty a moment before the log is written.
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if got, all := s.delivered(id); all || time.Now().After(end) {
			return got
		}
	}
}

// delivered returns who got a message, as the log has it; and whether it is out of the queue.
func (s *site) delivered(id string) (to string, all bool) {
	s.t.Helper()
	log, err := os.ReadFile(s.postfix.MailLog())
	s.must(err)
	var got []string
	name, queue := "", ""
	for line := range strings.Lines(string(log)) {
		if before, _, ok := strings.Cut(line, ": message-id="+id); ok {
			name = before[strings.LastIndexByte(before, ' ')+1:]
			queue, all = name+": to=", false
		}
		all = all || name != "" && strings.Contains(line, " "+name+": removed")
		if _, after, ok := strings.Cut(line, queue); ok && queue != "" {
			rcpt, _, _ := strings.Cut(after, ",")
			got = append(got, rcpt)
		}
	}
	slices.Sort(got)
	return strings.Join(got, " "), all
}

// session begins one with smtpd that goes on after a change: it still has the tables of before, and
// proxymap, which it must ask for them on a new connection after ipc_idle, those of after.
func (s *site) session() (goOn func()) {
	s.t.Helper()
	c, err := mailclient.DialSMTP(s.postfix.Addr(0))
	s.must(err)
	s.must(c.Must("EHLO test.client"))
	rcpt := func() {
		s.t.Helper()
		s.must(c.Must("MAIL FROM:<x@out.test>"))
		s.must(c.Must("RCPT TO:<user@a.test>"))
		s.must(c.Must("RSET"))
	}
	rcpt()
	return func() {
		s.t.Helper()
		defer c.Close()
		time.Sleep(2 * time.Second) // ipc_idle, and the reload
		rcpt()
	}
}

// TestThereAndBack: the printed commands change nothing that a client sees, leave no table in
// MySQL but where they say so, draw no warning, and are undone by the others. lookupd
// finds the same maps once Postfix asks it.
func TestThereAndBack(t *testing.T) {
	s := start(t)
	etc := s.postfix.ConfigDir()
	native, settings, warnings, file := s.behaviour(), s.settings(), s.run("postfix", "-c", etc, "check"), s.file()
	t.Logf("native:\n%s", native)
	for _, want := range []string{"user@a.test: <user@a.test>", "list@a.test: <other@a.test> <user@a.test>", "any+ext@all.test: <user@a.test>",
		"nobody@a.test: 550", "blocked by table", "evil sender", "gone@a.test: 550"} {
		if !strings.Contains(native, want) {
			t.Fatalf("the site is not as it should be: no %q", want)
		}
	}
	there, back := s.commands("switch"), s.commands("back")
	old := s.session()
	s.run("sh", "-e", "-c", there)
	s.must(s.postfix.PostfixReload())
	old()
	if got := s.run("postfix", "-c", etc, "check"); got != warnings {
		t.Errorf("postfix check says %q; before %q", got, warnings)
	}
	for _, line := range strings.Split(s.run("postconf", "-c", etc, "-nx")+s.run("postconf", "-c", etc, "-Px"), "\n") {
		name, _, _ := strings.Cut(line, " = ")
		if strings.Contains(line, "mysql:") && !slices.Contains([]string{"sql", "dovepost_tables", "proxy_read_maps"}, name) {
			t.Errorf("still with MySQL: %s", line)
		}
	}
	if got := s.behaviour(); got != native {
		t.Errorf("switched: got\n%swant\n%s", got, native)
	}
	table := strings.TrimSpace(s.run("postconf", "-c", etc, "-hx", "virtual_alias_maps"))
	if v, err := s.postfix.PostmapTable(table, "list+x@a.test"); err != nil || v != "user+x@a.test,other+x@a.test" {
		t.Errorf("postmap: %q, %v", v, err)
	}

	// A new process, and one that has read its files again, know the maps.
	s.must(s.lookupd.Restart())
	s.lookupd.Signal(syscall.SIGHUP)
	if got := s.behaviour(); got != native {
		t.Errorf("lookupd started anew: got\n%swant\n%s", got, native)
	}
	if again := s.commands("back"); again != back {
		t.Errorf("the way back, asked for later, is\n%swant\n%s", again, back)
	}

	s.must(s.db.Stop())
	if got := s.behaviour(); got != native {
		t.Errorf("without the database: got\n%swant\n%s", got, native)
	}
	s.must(s.db.Start())

	// One setting goes back and forth.
	old = s.session()
	s.run("postconf", "-c", etc, "-e", "dovepost=")
	s.must(s.postfix.PostfixReload())
	old()
	s.must(s.lookupd.Stop())
	if got := s.behaviour(); got != native {
		t.Errorf("dovepost is empty: got\n%swant\n%s", got, native)
	}

	old = s.session()
	s.run("sh", "-e", "-c", back)
	s.must(s.postfix.PostfixReload())
	old()
	// postconf writes a value on one line, where the site had several.
	if got, want := s.file(), joined(file); joined(got) != want {
		t.Errorf("back: main.cf is\n%swant\n%s", got, want)
	}
	if got := s.settings(); got != settings {
		t.Errorf("back: got\n%swant\n%s", got, settings)
	}
	if got := s.behaviour(); got != native {
		t.Errorf("back: got\n%swant\n%s", got, native)
	}
}
