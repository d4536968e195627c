package policy

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
)

// The layouts that the lookup and auth tests have, with the aliases that some add here.
const (
	lookupLayouts = "../lookup/testdata/layouts"
	authLayouts   = "../auth/testdata/layouts"
)

// A mailsite is a mail server with the tables of a layout, asked by Postfix itself: one smtpd that
// asks policyd, and one that does not. lmtpd stores the mail.
type mailsite struct {
	t *testing.T
	*stack.Postfix
	dir   string // of all; the mail store is in mail
	sql   string // the layout's dovecot-sql.conf.ext
	cast  []string
	log   *stack.Daemon // policyd
	users string        // the layout's database
}

var (
	mailPaths = regexp.MustCompile(`/var/mail/vmail|/var/vmail|/srv/vmail`)
	connect   = regexp.MustCompile(`(?m)^connect = .*$`)
	account   = regexp.MustCompile(`(?m)^(hosts|user|password|dbname) *=.*$`)
	tableFile = regexp.MustCompile(`/[a-z/]+/([A-Za-z0-9_-]+\.cf)`)
)

const mailsiteCF = `myhostname = mail.here.example
mydestination =
mynetworks = 127.0.0.0/8
default_transport = discard:
relay_transport = discard:
recipient_delimiter = +
smtpd_soft_error_limit = 1000
smtpd_hard_error_limit = 1000
smtpd_junk_command_limit = 1000
virtual_alias_recursion_limit = 50
virtual_transport = lmtp:unix:dovepost/lmtp
`

// contribCF is what contrib/postfix/main.cf has for policyd, except that a request without an answer shows.
func contribCF(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../../../contrib/postfix/main.cf")
	must(t, err)
	_, text, found := bytes.Cut(text, []byte("# With policyd."))
	lines := regexp.MustCompile(`(?m)^#([a-z_]+ = ?|  )(.*)$`).FindAll(text, -1)
	if !found || len(lines) < 7 {
		t.Fatalf("contrib's main.cf has no lines for policyd: %q", lines)
	}
	var main string
	for _, line := range lines {
		main += string(line[1:]) + "\n"
	}
	return strings.Replace(main, "timeout=10s, default_action=DUNNO", "timeout=20s, default_action=DEFER", 1)
}

// newMailsite loads a layout and more SQL into a database, and starts everything. args are policyd's.
func newMailsite(t *testing.T, layout, more, main string, args ...string) *mailsite {
	t.Helper()
	dir, err := os.MkdirTemp("", "policy-site-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	s := &mailsite{t: t, dir: dir}
	must(t, os.Mkdir(filepath.Join(dir, "mail"), 0o777))
	must(t, os.Chmod(filepath.Join(dir, "mail"), 0o777))
	s.load(layout, more)
	main = mailsiteCF + contribCF(t) + s.fragment(layout) + main
	s.Postfix, err = stack.StartPostfix(dir, main, nil,
		[]string{"smtpd_recipient_restrictions=", "smtpd_end_of_data_restrictions="})
	must(t, err)
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			for _, file := range []string{s.MailLog(), s.log.Log()} {
				text, _ := os.ReadFile(file)
				t.Logf("%s:\n%s", file, text)
			}
		}
	})
	s.daemon("lmtpd", "lmtp", filepath.Join(s.Spool(), "dovepost/lmtp"), "--sql="+s.sql)
	s.log = s.daemon("policyd", "policy", filepath.Join(s.Spool(), "dovepost/policy"), append(args, "--postfix="+s.ConfigDir(), "--sql="+s.sql)...)
	return s
}

// binDir is where binaries puts them; empty before.
var binDir string

// binaries builds the daemons, once.
var binaries = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp("", "policy-bin-")
	binDir = dir
	if err == nil {
		err = exec.Command("go", "build", "-o", dir, "dovepost/cmd/policyd", "dovepost/cmd/lmtpd", "dovepost/cmd/authd", "dovepost/cmd/dovepost").Run()
	}
	if err != nil {
		panic(err)
	}
	return dir
})

func (s *mailsite) daemon(name, kind, path string, args ...string) *stack.Daemon {
	s.t.Helper()
	d, err := stack.StartDaemon(filepath.Join(binaries(), name), s.dir, kind, path, args...)
	must(s.t, err)
	s.t.Cleanup(func() { d.Stop() })
	return d
}

// load makes the database of a layout, and the copies of its files that ask it.
func (s *mailsite) load(layout, more string) {
	s.t.Helper()
	d := newDatabase(s.t) // starts the server
	s.users = d.name + "_users"
	sql := fmt.Sprintf(`CREATE DATABASE %[1]s CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
		CREATE USER %[1]s@127.0.0.1 IDENTIFIED BY 'secret', %[1]s@localhost IDENTIFIED BY 'secret';
		GRANT SELECT ON %[1]s.* TO %[1]s@127.0.0.1, %[1]s@localhost; USE %[1]s;`, s.users)
	from := filepath.Join(lookupLayouts, layout)
	for _, file := range []string{"schema.sql", "data.sql"} {
		text, err := os.ReadFile(filepath.Join(from, file))
		must(s.t, err)
		sql += "\n" + mailPaths.ReplaceAllString(string(text), s.dir+"/mail")
	}
	must(s.t, server.Exec(sql+"\n"+more))

	files, err := filepath.Glob(filepath.Join(from, "mysql*.cf"))
	must(s.t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(s.t, err)
		text = fmt.Appendf(account.ReplaceAll(text, nil), "\nhosts = inet:%s\nuser = %s\npassword = secret\ndbname = %[2]s\n", server.Addr(), s.users)
		must(s.t, os.WriteFile(filepath.Join(s.dir, filepath.Base(file)), text, 0o644))
	}
	text, err := os.ReadFile(filepath.Join(authLayouts, layout, "dovecot-sql.conf.ext"))
	must(s.t, err)
	host, port, err := net.SplitHostPort(server.Addr())
	must(s.t, err)
	text = connect.ReplaceAll(text, fmt.Appendf(nil, "connect = host=%s port=%s dbname=%s user=%[3]s password=secret", host, port, s.users))
	s.sql = filepath.Join(s.dir, "dovecot-sql.conf.ext")
	must(s.t, os.WriteFile(s.sql, mailPaths.ReplaceAll(text, []byte(s.dir+"/mail")), 0o644))

	text, err = os.ReadFile(filepath.Join(from, "expect-resolve.tsv"))
	must(s.t, err)
	for line := range strings.Lines(string(text)) {
		if recipient, _, ok := strings.Cut(line, "\t"); ok && line[0] != '#' {
			s.cast = append(s.cast, recipient)
		}
	}
}

// fragment returns the main.cf of a layout, which names the copies.
func (s *mailsite) fragment(layout string) string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(lookupLayouts, layout, "main.cf.fragment"))
	must(s.t, err)
	main := regexp.MustCompile(`(?m)^(virtual_transport|smtpd_recipient_restrictions) =.*$`).ReplaceAllString(string(text), "")
	return tableFile.ReplaceAllStringFunc(main, func(path string) string {
		for _, prefix := range []string{"", "mysql-", "mysql_"} {
			file := filepath.Join(s.dir, prefix+filepath.Base(path))
			if _, err := os.Stat(file); err == nil {
				return file
			}
		}
		s.t.Fatalf("%s: there is no %s", layout, path)
		return ""
	}) + "\n"
}

// dial opens a session with an smtpd: 0 asks policyd, 1 does not.
func (s *mailsite) dial(listener int) *session {
	s.t.Helper()
	nc, err := net.Dial("tcp", s.Addr(listener))
	must(s.t, err)
	nc.SetDeadline(time.Now().Add(2 * time.Minute))
	c := &session{s.t, textproto.NewConn(nc)}
	s.t.Cleanup(func() { c.Close() })
	c.want("220", c.read())
	c.want("250", c.ask("EHLO client.test"))
	return c
}

var queuedAs = regexp.MustCompile(`queued as ([0-9A-Za-z]+)`)

// deliver sends a message past policyd and returns how it ended for each recipient that it was
// for in the end: sent, or bounced with a status. A message that is put off is refused.
func (s *mailsite) deliver(recipient string) (ends []string) {
	s.t.Helper()
	c := s.dial(1)
	reply := c.send("", recipient)
	c.quit()
	id := queuedAs.FindStringSubmatch(reply)
	if id == nil {
		return []string{"refused " + reply}
	}
	var lines []string
	waitFor(s.t, func() bool {
		text, err := os.ReadFile(s.MailLog())
		must(s.t, err)
		lines = nil
		scan := bufio.NewScanner(strings.NewReader(string(text)))
		for scan.Scan() {
			if strings.Contains(scan.Text(), " "+id[1]+": ") {
				lines = append(lines, scan.Text())
			}
		}
		return slices.ContainsFunc(lines, func(line string) bool {
			return strings.HasSuffix(line, id[1]+": removed") || strings.Contains(line, "status=deferred")
		})
	})
	for _, line := range lines {
		if _, status, ok := strings.Cut(line, " status="); ok {
			_, dsn, _ := strings.Cut(line, " dsn=")
			word, _, _ := strings.Cut(status, " ")
			ends = append(ends, word+" "+dsn[:5])
		}
	}
	return ends
}

// fill makes a user's mailbox, which must have got a message, hold 2 GiB.
func (s *mailsite) fill(user string) {
	s.t.Helper()
	filled := 0
	local, _, _ := strings.Cut(user, "@")
	err := filepath.WalkDir(filepath.Join(s.dir, "mail"), func(path string, d os.DirEntry, err error) error {
		if err != nil || !strings.Contains(path, "/"+local+"/") {
			return err
		}
		switch d.Name() {
		case "maildirsize":
			return os.Remove(path)
		case "new":
			info, err := os.Stat(path)
			must(s.t, err)
			name := filepath.Join(path, "1.M1P1.host,S=2147483648,W=2147483648")
			must(s.t, os.WriteFile(name, nil, 0o600))
			uid, gid := owner(info)
			must(s.t, os.Chown(name, uid, gid))
			filled++
		}
		return nil
	})
	must(s.t, err)
	if filled == 0 {
		s.t.Fatalf("%s has no mailbox", user)
	}
}
