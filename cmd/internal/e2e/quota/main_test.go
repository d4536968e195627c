// Package quota lets lmtpd and a live Dovecot keep the same quotas, flags and keywords: what one
// counts or marks the other finds. A program that is missing is a failure.
package quota

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
	"dovepost/cmd/internal/stack/mailclient"
)

// counted has Dovecot's backend count, sized a maildirsize file for each user.
var counted, sized *stack.Stack

// scratch has the programs and templates of the warnings, and what they leave.
var scratch string

const (
	domain  = "example.net"
	maxMail = 1 << 20
)

// quotas are the users' limits in KiB.
var quotas = map[string]int64{
	"count": 0, "box": 40, "rcpt": 20, "part": 100, "mail": 4000, "script": 4000, "many": 2000,
	"max": 0, "junk": 0, "live": 0, "idle": 0, "control": 0, "killed": 0, "heal": 0, "odd": 60, "move": 0, "verdict": 0,
}

func address(user string) string { return user + "@" + domain }

func TestMain(m *testing.M) { os.Exit(run(m)) }

// conf is what Dovecot is told, in the words of its version.
func conf(backend, script string) ([]string, error) {
	out, err := exec.Command("dovecot", "--version").Output()
	if err != nil {
		return nil, err
	}
	service := fmt.Sprintf("service quota-warning {\n executable = script %s\n unix_listener quota-warning {\n mode = 0666\n }\n}", script)
	if strings.HasPrefix(string(out), "2.3.") {
		return []string{"plugin {", "quota = " + backend + ":User quota", "quota_vsizes = " + map[string]string{"count": "yes", "maildir": "no"}[backend],
			"quota_rule2 = Trash:storage=+20K", "quota_rule3 = Spam:ignore", "}", service}, nil
	}
	return []string{"quota \"User quota\" {\n driver = " + backend + "\n}", "namespace inbox {\n mailbox Trash {\n quota_storage_extra = 20K\n }\n mailbox Spam {\n quota_ignore = yes\n }\n}", service}, nil
}

func run(m *testing.M) int {
	var err error
	if scratch, err = os.MkdirTemp("", "quota"); err == nil {
		err = os.Chmod(scratch, 0o777)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(scratch)
	script := filepath.Join(scratch, "warn")
	write := "#!/bin/sh\necho \"$@\" >> " + scratch + "/$1.$2\n"
	message := filepath.Join(scratch, "message")
	err = errors.Join(os.WriteFile(script, []byte(write), 0o755),
		os.WriteFile(message, []byte("From: postmaster@%d\nTo: %u\nSubject: almost full\n\nDear %n, delete something.\n"), 0o644))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var wg sync.WaitGroup
	stacks, errs := []**stack.Stack{&counted, &sized}, make([]error, 2)
	for i, backend := range []string{"count", "maildir"} {
		wg.Go(func() { *stacks[i], errs[i] = start(backend, script, message) })
	}
	wg.Wait()
	code := 1
	if errs[0] == nil && errs[1] == nil {
		code = m.Run()
	}
	for i, s := range stacks {
		switch {
		case errs[i] != nil:
			fmt.Fprintln(os.Stderr, errs[i])
			continue
		case code != 0:
			fmt.Fprintln(os.Stderr, "logs are in", (*s).Dir)
			err = (*s).Halt()
		default:
			err = errors.Join((*s).Stop(), os.RemoveAll((*s).Dir))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

func start(backend, script, message string) (*stack.Stack, error) {
	dovecot, err := conf(backend, script)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "dovepost-")
	if err != nil {
		return nil, err
	}
	o := stack.Options{
		Dir: dir, Domains: []string{domain}, DovecotConf: dovecot,
		DaemonArgs: map[string][]string{"lmtpd": {
			"--quota=" + backend + ":User quota", "--quota_rule2=Trash:storage=+20K", "--quota_rule3=Spam:ignore",
			"--lmtp_save_to_detail_mailbox", "--lda_mailbox_autocreate", "--lmtp_rcpt_check_quota", "--quota_max_mail_size=" + strconv.Itoa(maxMail),
			"--base_dir=" + filepath.Join(dir, "dovecot/run"),
			"--quota_warning=storage=3000K exec:" + script + " program %u",
			"--quota_warning2=storage=2400K message:" + message,
			"--quota_warning3=storage=50%% quota-warning script %u",
			"--junk_header=X-Spam-Flag: YES, X-Spam-Status: Yes, X-Spam: Yes", `--junk_flags=\Seen $Junk`,
		}},
	}
	for user, limit := range quotas {
		o.Users = append(o.Users, stack.User{Email: address(user), Password: "x", Quota: limit})
	}
	return stack.Start(o)
}

// client is an LMTP client.
type client struct {
	net.Conn
	*textproto.Reader
}

func dial(s *stack.Stack) (*client, error) {
	conn, err := net.Dial("unix", s.LMTPAddr)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(2 * time.Minute))
	c := &client{conn, textproto.NewReader(bufio.NewReader(conn))}
	if _, _, err = c.ReadResponse(220); err == nil {
		_, err = c.cmd("LHLO client.test")
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *client) cmd(line string) (string, error) {
	if _, err := fmt.Fprintf(c, "%s\r\n", line); err != nil {
		return "", err
	}
	code, text, err := c.ReadResponse(0)
	return fmt.Sprintf("%d %s", code, text), err
}

// send delivers a message with LF line ends and returns the last reply.
func (c *client) send(rcpt, message string) (string, error) {
	if reply, err := c.cmd("MAIL FROM:<sender@remote.example>"); err != nil || reply[0] != '2' {
		return reply, err
	}
	if reply, err := c.cmd("RCPT TO:<" + rcpt + ">"); err != nil || reply[0] != '2' {
		_, err2 := c.cmd("RSET")
		return reply, errors.Join(err, err2)
	}
	if reply, err := c.cmd("DATA"); err != nil || reply[0] != '3' {
		return reply, err
	}
	return c.cmd(strings.ReplaceAll(message, "\n", "\r\n") + ".")
}

// send delivers one message over a connection of its own.
func send(t *testing.T, s *stack.Stack, rcpt, message string) string {
	t.Helper()
	c, err := dial(s)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	reply, err := c.send(rcpt, message)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// sendOK delivers what must arrive.
func sendOK(t *testing.T, s *stack.Stack, rcpt, message string) {
	t.Helper()
	if reply := send(t, s, rcpt, message); !strings.HasPrefix(reply, "250 ") {
		t.Errorf("to %s: %s", rcpt, reply)
	}
}

// kilobytes is a message of about n KiB.
func kilobytes(n int) string {
	return "Subject: x\n\n" + strings.Repeat(strings.Repeat("x", 62)+"\n", n*1024/63)
}

func doveadm(t *testing.T, s *stack.Stack, args ...string) string {
	t.Helper()
	out, err := s.Doveadm(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// used returns what Dovecot says a user has, in KiB.
func used(t *testing.T, s *stack.Stack, user string) int {
	t.Helper()
	for line := range strings.Lines(doveadm(t, s, "-f", "tab", "quota", "get", "-u", address(user))) {
		if fields := strings.Split(line, "\t"); len(fields) > 2 && fields[1] == "STORAGE" {
			n, err := strconv.Atoi(fields[2])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no STORAGE")
	return 0
}

// stored adds up the files of a user as they are, in octets on disk and with CRLF.
func stored(t *testing.T, s *stack.Stack, user string, folders ...string) (size, vsize int64) {
	t.Helper()
	for _, folder := range folders {
		for _, sub := range []string{"new", "cur"} {
			names, _ := filepath.Glob(filepath.Join(s.MailRoot(), domain, user, "Maildir", folder, sub, "*"))
			for _, name := range names {
				text, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				size += int64(len(text))
				vsize += int64(len(text) + bytes.Count(text, []byte("\n")))
			}
		}
	}
	return size, vsize
}

// login opens a mailbox over IMAP.
func login(t *testing.T, s *stack.Stack, user, mailbox string) *mailclient.IMAP {
	t.Helper()
	c, err := mailclient.LoginIMAP(s.IMAPAddr, s.Roots, address(user), "x")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if mailbox != "" {
		if _, err := c.Must("SELECT %s", mailbox); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func must(t *testing.T, c *mailclient.IMAP, format string, args ...any) string {
	t.Helper()
	a, err := c.Must(format, args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(a.Untagged, "\n")
}

// waitFor waits until what says so.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after a minute", what)
		}
	}
}

func dialTCP(addr string) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", addr, time.Minute)
	if err == nil {
		c.SetDeadline(time.Now().Add(2 * time.Minute))
	}
	return c, err
}
