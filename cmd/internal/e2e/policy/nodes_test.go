package policy

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
)

// site is a database with the tables of contrib/mysql, and a Postfix with an smtpd for each policyd, as on
// several machines with one database.
type site struct {
	*testing.T
	*postfix
	db       *stack.MariaDB
	name     string // of the database
	bin      string
	policyds []*node
}

// node is one machine: its policyd, and an smtpd that asks it at RCPT and at the end of the message.
type node struct {
	*site
	number int
	smtpd  *postfix // where dial goes
	log    string
	cmd    *exec.Cmd
}

// newSite starts n nodes, without their policyds, on the server of all tests.
func newSite(t *testing.T, n int) *site {
	t.Helper()
	name := newDatabase(t).name
	return startSite(t, n, server, name)
}

// newSiteAlone is newSite on a MariaDB of its own, which the test may stop.
func newSiteAlone(t *testing.T, n int) *site {
	t.Helper()
	dir, err := os.MkdirTemp("", "policy-db-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	db, err := stack.StartMariaDB(dir)
	must(t, err)
	t.Cleanup(func() { db.Stop() })
	for i, name := range []string{"schema.sql", "grants.sql", "policy.sql"} {
		text, err := os.ReadFile(filepath.Join("../../../../contrib/mysql", name))
		must(t, err)
		if i > 0 {
			text = append([]byte("USE maildb;\n"), text...)
		}
		must(t, db.Exec(string(text)))
	}
	return startSite(t, n, db, "maildb")
}

func startSite(t *testing.T, n int, db *stack.MariaDB, name string) *site {
	t.Helper()
	s := &site{T: t, postfix: startPostfix(t), db: db, name: name}
	must(t, os.WriteFile(s.cf(), fmt.Appendf(nil, "hosts = %s\nuser = dovepost_policyd\npassword = change-me-policyd\ndbname = %s\n", db.Addr(), name), 0o600))
	s.bin = filepath.Join(binaries(), "policyd")
	// A message that is refused at its end takes from what cleanup may queue in advance of qmgr.
	main, master := "in_flow_delay = 0\n", ""
	var addrs []string
	for i := range n {
		m := &node{site: s, number: i, smtpd: &postfix{dir: s.dir, addr: freeAddr(t)}, log: filepath.Join(s.dir, fmt.Sprintf("policyd%d.log", i))}
		s.policyds, addrs = append(s.policyds, m), append(addrs, m.smtpd.addr)
		main += fmt.Sprintf("p%d = check_policy_service { unix:dovepost/policy%d, timeout=10s, default_action=DUNNO }\n", i, i)
		master += fmt.Sprintf("%s inet n - y - 20 smtpd -o p=$p%d -o smtpd_data_restrictions= -o smtpd_client_connection_count_limit=0 -o smtpd_error_sleep_time=0 -o smtpd_soft_error_limit=10000 -o smtpd_hard_error_limit=10000 -o smtpd_junk_command_limit=10000\n", m.smtpd.addr, i)
		t.Cleanup(func() {
			m.stop(syscall.SIGKILL)
			if t.Failed() {
				t.Logf("policyd %d:\n%s", m.number, m.text())
			}
		})
	}
	s.append(t, "main.cf", main)
	s.append(t, "master.cf", master)
	s.reload(t, addrs...)
	return s
}

// cf is the file for --mysql.
func (s *site) cf() string { return filepath.Join(s.dir, "mysql-policyd.cf") }

// sql runs statements in the database.
func (s *site) sql(format string, args ...any) []string {
	s.Helper()
	rows, err := s.db.Query("USE " + s.name + ";\n" + fmt.Sprintf(format, args...))
	must(s.T, err)
	return rows
}

func (m *node) socket() string {
	return filepath.Join(m.spool(), fmt.Sprintf("dovepost/policy%d", m.number))
}

// start starts the policyd of the node, with --mysql.
func (m *node) start(args ...string) {
	m.Helper()
	os.Remove(m.socket())
	ready := strings.Count(m.text(), "ready")
	stderr, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(m.T, err)
	defer stderr.Close()
	m.cmd = exec.Command(m.bin, append(args, "--mysql", m.cf(), "--listen", "policy:unix:"+m.socket()+",mode=0660,group=postfix")...)
	m.cmd.Stderr = stderr
	must(m.T, m.cmd.Start())
	waitFor(m.T, func() bool { return strings.Count(m.text(), "ready") > ready })
}

func (m *node) stop(sig syscall.Signal) {
	if m.cmd != nil {
		m.cmd.Process.Signal(sig)
		m.cmd.Wait()
		m.cmd = nil
	}
}

func (m *node) text() string {
	text, _ := os.ReadFile(m.log)
	return string(text)
}

// check runs policyd --check and returns what it said and how it ended.
func (m *node) check(args ...string) string {
	out, err := exec.Command(m.bin, append(args, "--check", "--mysql", m.cf())...).CombinedOutput()
	return fmt.Sprintf("%s%v", out, err)
}

// mail sends a message in a session of its own and returns the last answer.
func (m *node) mail(login, sender string, recipients ...string) string {
	m.Helper()
	s := m.smtpd.dial(m.T, "198.51.100.1", login)
	defer s.quit()
	return s.message(sender, recipients...)
}

// message sends a message and returns the last answer.
func (s *session) message(sender string, recipients ...string) string {
	s.t.Helper()
	s.want("250", s.ask("RSET"))
	s.want("250", s.ask("MAIL FROM:<"+sender+">"))
	for _, r := range recipients {
		if reply := s.ask("RCPT TO:<" + r + ">"); reply[0] != '2' {
			return reply
		}
	}
	s.want("354", s.ask("DATA"))
	must(s.t, s.PrintfLine("Subject: test\n\ntest\n."))
	return s.read()
}

// try sends a message from any goroutine; its error is the answer that was none of agreement.
func (s *session) try(login string) error {
	for _, step := range []struct{ line, want string }{
		{"MAIL FROM:<" + login + ">", "250"}, {"RCPT TO:<x@example.com>", "250"}, {"DATA", "354"}, {"Subject: test\r\n\r\ntest\r\n.", "250"},
	} {
		if err := s.PrintfLine("%s", step.line); err != nil {
			return err
		}
		code, text, err := s.ReadResponse(0)
		if code == 0 {
			return err
		}
		if reply := fmt.Sprintf("%d %s", code, text); !strings.HasPrefix(reply, step.want) {
			// smtpd stays in the transaction when the end of the message is refused.
			if err := s.PrintfLine("RSET"); err != nil {
				return err
			}
			if _, _, err := s.ReadResponse(250); err != nil {
				return err
			}
			return errors.New(reply)
		}
	}
	return nil
}

// held returns the lines of postqueue -p that show a message on hold.
func (s *site) held() (lines []string) {
	s.Helper()
	out, err := exec.Command("/usr/sbin/postqueue", "-c", filepath.Join(s.dir, "etc"), "-p").CombinedOutput()
	if err != nil {
		s.Fatalf("postqueue: %v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if id, _, _ := strings.Cut(line, " "); strings.HasSuffix(id, "!") {
			lines = append(lines, line)
		}
	}
	return lines
}

// want checks an answer.
func (s *site) want(t *testing.T, want, got string) {
	t.Helper()
	if !strings.HasPrefix(got, want) {
		t.Fatalf("%q, want %q", got, want)
	}
}

// eventually waits for got to begin with want.
func eventually(t *testing.T, what, want string, got func() string) {
	t.Helper()
	var last string
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if last = got(); strings.HasPrefix(last, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %q, want %q", what, last, want)
		}
	}
}
