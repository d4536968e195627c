package stack

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// The accounts of the stack. Only the mail store's is known to the database; the
// others are numbers without a name, as little as a daemon needs.
const (
	MailUID   = 5000
	lookupUID = 5001
	authUID   = 5002
)

// Daemons are dovepost's daemons, in the order in which the stack starts them.
var Daemons = []string{"lookupd", "authd", "lmtpd"}

// Build compiles the daemons to dir. It works from anywhere in the module.
func Build(dir string) error {
	args := []string{"build", "-o", dir + "/"}
	for _, name := range Daemons {
		args = append(args, "dovepost/cmd/"+name)
	}
	out, err := exec.Command("go", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// prepareDaemons makes the directories that the sockets need, and the files that
// the daemons read.
func (s *Stack) prepareDaemons(o *Options) error {
	dovenull, err := groupID("dovenull")
	if err != nil {
		return err
	}
	login := filepath.Join(s.DovecotRun(), "login")
	for _, d := range []struct {
		path     string
		uid, gid int
		mode     os.FileMode
	}{
		{s.daemonDir("."), 0, 0, 0o755},
		{s.daemonDir("lookupd"), lookupUID, lookupUID, 0o700},
		{s.daemonDir("authd"), authUID, authUID, 0o700},
		{s.daemonDir("lmtpd"), MailUID, MailUID, 0o700},
		{filepath.Join(s.Spool(), "dovepost"), 0, 0, 0o755},
		{login, 0, dovenull, 0o750}, // as Dovecot wants it
		{filepath.Join(login, "dovepost"), 0, 0, 0o755},
	} {
		if err := os.MkdirAll(d.path, d.mode); err != nil {
			return err
		}
		if err := os.Chown(d.path, d.uid, d.gid); err != nil {
			return err
		}
	}
	for name, owner := range map[string]int{"lookupd": lookupUID, "authd": authUID, "lmtpd": MailUID} {
		if err := s.writeTables(s.daemonDir(name), owner, sqlFile); err != nil {
			return err
		}
	}
	return nil
}

// daemonDir is where the files of a daemon are.
func (s *Stack) daemonDir(name string) string { return filepath.Join(s.Dir, "dovepost", name) }

// guessFreely is for authd: all the clients of a stack come from loopback, and would
// wait for each other's wrong passwords. DaemonArgs can take it back.
const guessFreely = "--auth_guard_allow_nets=127.0.0.0/8"

// timerSlack is TimerSlackNSec= of the daemons' units, where they have it.
var timerSlack = map[string]time.Duration{"authd": 5 * time.Millisecond, "lookupd": 5 * time.Millisecond, "policyd": 5 * time.Millisecond}

// startDaemons starts lookupd, authd and lmtpd with sockets where Postfix and
// Dovecot look for them.
func (s *Stack) startDaemons(o *Options) error {
	spool, run := s.Spool(), s.DovecotRun()
	sql := func(name string) string { return filepath.Join(s.daemonDir(name), "dovecot-sql.conf.ext") }
	lookup := []string{"--recipient_delimiter=" + o.Delimiter}
	for _, t := range tables {
		lookup = append(lookup, "--map="+t.parameter+"="+t.kind+":"+filepath.Join(s.daemonDir("lookupd"), t.file))
	}
	for _, d := range []struct {
		name    string
		id      uint32
		args    []string
		sockets []socket
	}{
		{"lookupd", lookupUID, lookup, []socket{
			{"socketmap", spool + "/dovepost/lookup", 0o660, "postfix", "postfix"},
		}},
		{"authd", authUID, []string{"--auth_mechanisms=plain login", "--sql=" + sql("authd"), guessFreely}, []socket{
			{"client", spool + "/private/auth", 0o660, "postfix", "postfix"},
			{"client", run + "/auth-client", 0o600, "", ""},
			{"login", run + "/auth-login", 0o600, "", ""},
			{"login", run + "/login/dovepost/login", 0o600, "dovenull", ""},
			{"master", run + "/auth-master", 0o600, "", ""},
			{"userdb", run + "/auth-userdb", 0o660, "", ""},
		}},
		{"lmtpd", MailUID, []string{"--recipient_delimiter=" + o.Delimiter, "--sql=" + sql("lmtpd")}, []socket{
			{"lmtp", spool + "/dovepost/lmtp", 0o660, "postfix", "postfix"},
		}},
	} {
		argv := append([]string{filepath.Join(s.bin, d.name)}, d.args...)
		u := &unit{name: d.name, argv: append(argv, o.DaemonArgs[d.name]...), uid: d.id, gid: d.id, dir: s.daemonDir("."), slack: timerSlack[d.name]}
		if err := startUnit(u, d.sockets); err != nil {
			return err
		}
		s.units[d.name] = u
	}
	return nil
}

// KillDaemon ends a daemon with SIGKILL and waits for its end. Its sockets stay, and it comes back by
// itself; WaitDaemon waits for that.
func (s *Stack) KillDaemon(name string) { s.units[name].kill() }

// RestartDaemon ends a daemon with SIGTERM, as a package upgrade does, and waits
// for its successor.
func (s *Stack) RestartDaemon(name string) error { return s.units[name].restart() }

// WaitDaemon waits until a killed daemon is ready again.
func (s *Stack) WaitDaemon(name string) error { return s.units[name].waitReady() }
