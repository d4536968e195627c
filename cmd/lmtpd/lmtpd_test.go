package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dovepost/auth"
	"dovepost/auth/dovecot"
	"dovepost/cmd/internal/daemon"
	"dovepost/cmd/internal/daemon/daemontest"
	"dovepost/cmd/internal/faultproxy"
)

// The tests run this binary as lmtpd.
func TestMain(m *testing.M) { daemontest.Main(m, main) }

// process is a running lmtpd.
type process struct {
	*daemontest.Daemon
	socket string
}

func start(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	socket := filepath.Join(dir, "lmtp")
	p := &process{daemontest.Start(t, daemontest.Command(t, append(args, "--hostname=mx.test", "--listen=lmtp:unix:"+socket)...)), socket}
	p.WaitFor("msg=ready")
	return p
}

// dial connects to lmtpd and reads its greeting.
func (p *process) dial(t *testing.T) *textproto.Conn {
	t.Helper()
	c, err := net.Dial("unix", p.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	text := textproto.NewConn(c)
	expect(t, text, "220 mx.test dovepost ready.")
	return text
}

// say sends a command and expects the replies.
func say(t *testing.T, c *textproto.Conn, command string, want ...string) {
	t.Helper()
	if err := c.PrintfLine("%s", command); err != nil {
		t.Fatal(err)
	}
	expect(t, c, want...)
}

// expect reads lines that begin with want.
func expect(t *testing.T, c *textproto.Conn, want ...string) {
	t.Helper()
	for _, w := range want {
		if got, err := c.ReadLine(); err != nil || !strings.HasPrefix(got, w) {
			t.Fatalf("got %q, %v; want %q", got, err, w)
		}
	}
}

func TestExitCodes(t *testing.T) {
	server := fmt.Sprintf("hosts = 127.0.0.1:%d\nuser = u\npassword = s3cret\ndbname = d\n", faultproxy.ClosedPort(t))
	good := daemontest.WriteFile(t, "good.cf", server)
	sql := daemontest.WriteFile(t, "bad.conf", "driver = mysql\nconnect = host=127.0.0.1 password=s3cret\nuser_query = SELECT '%{nosuch}'\n")
	listen := "--listen=lmtp:unix:" + filepath.Join(t.TempDir(), "s")
	for _, tt := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"no users", []string{"--check"}, 78, "one of sql, mysql and userdb"},
		{"users from two places", []string{"--check", "--mysql=" + good, "--sql=" + sql}, 78, "one of sql, mysql and userdb"},
		{"a file that is not there", []string{"--check", "--mysql=/nonexistent/a.cf"}, 78, "/nonexistent/a.cf"},
		{"a query that cannot be", []string{"--check", "--sql=" + sql}, 78, "bad.conf"},
		{"a location that is none", []string{"--check", "--mysql=" + good, "--mail_location=sdbox:~/s"}, 78, "sdbox"},
		{"an unknown kind", []string{"--mysql=" + good, "--listen=smtp:unix:/nonexistent/s"}, 78, "smtp"},
		{"an unknown flag", []string{"--password=x"}, 64, "unknown flag"},
		{"a value that is none", []string{"--mysql=" + good, "--quota_full_tempfail=perhaps"}, 64, "quota_full_tempfail"},
		{"--check without a server", []string{"--check", listen, "--mysql=" + good}, 75, "connect"},
	} {
		t.Run("it handles "+tt.name, func(t *testing.T) {
			daemontest.Exits(t, tt.code, tt.says, tt.args...)
		})
	}
}

// A database that is away is no obstacle at start and never an unknown user; SIGHUP
// with a bad file changes nothing.
func TestAway(t *testing.T) {
	file := daemontest.WriteFile(t, "mysql.cf", fmt.Sprintf("hosts = 127.0.0.1:%d\nuser = u\npassword = s3cret\ndbname = d\n", faultproxy.ClosedPort(t)))
	p := start(t, t.TempDir(), "--mysql="+file)
	ask := func() {
		t.Helper()
		c := p.dial(t)
		say(t, c, "MAIL FROM:<>", "250 ")
		say(t, c, "RCPT TO:<alice@example.com>", "451 4.3.0 <alice@example.com> Temporary internal error")
		say(t, c, "DATA", "503 ")
		say(t, c, "QUIT", "221 ")
	}
	ask()
	if err := os.WriteFile(file, []byte("hosts\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGHUP)
	p.WaitFor("level=ERROR")
	ask()
	p.Stop()
}

// authServer serves auth-userdb with one user, alice@example.com.
type authServer struct{ home string }

func (a authServer) LookupUser(_ context.Context, r *auth.Request) (*auth.User, error) {
	if r.Login != "alice@example.com" {
		return nil, auth.ErrUnknownUser
	}
	return &auth.User{Name: r.Login, Home: a.home, Fields: auth.Fields{{Name: "quota_rule", Value: "*:storage=4", HasValue: true}}}, nil
}

func (authServer) LookupPass(context.Context, *auth.Request) (*auth.Credentials, error) {
	return nil, auth.ErrUnknownUser
}

func (authServer) Users(context.Context, string) iter.Seq2[string, error] {
	return func(func(string, error) bool) {}
}

func (a authServer) serve(t *testing.T, path string) {
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	h := &dovecot.MasterHandler{Instance: dovecot.NewInstance(), UserdbOnly: true, Passdb: a, Userdb: a}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				h.ServeConn(context.Background(), c)
			}()
		}
	}()
}

// From the socket to the file: the users of an auth-userdb socket, quota, detail
// mailboxes, a drain in the middle of a message.
func TestDelivery(t *testing.T) {
	dir, err := os.MkdirTemp("", "lmtpd")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	home := filepath.Join(dir, "alice")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // then mail belongs to 5000
		if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(home, 5000, 5000)); err != nil {
			t.Fatal(err)
		}
	}
	authServer{home}.serve(t, filepath.Join(dir, "userdb"))
	p := start(t, dir, "--userdb=unix:"+filepath.Join(dir, "userdb"), "--lmtp_save_to_detail_mailbox", "--lda_mailbox_autocreate=yes")

	c := p.dial(t)
	say(t, c, "MAIL FROM:<bob@x.test>", "250 ")
	say(t, c, "RCPT TO:<alice@example.com>", "250 ")
	say(t, c, "RCPT TO:<carol@example.com>", "550 5.1.1 <carol@example.com> User doesn't exist: carol@example.com")
	say(t, c, "RCPT TO:<alice+work@example.com>", "250 ")
	say(t, c, "DATA", "354 ")
	say(t, c, "Subject: one\r\n\r\ntext\r\n.", "250 2.0.0 <alice@example.com> ", "250 2.0.0 <alice+work@example.com> ")
	for _, folder := range []string{"Maildir/new", "Maildir/.work/new"} {
		names, err := os.ReadDir(filepath.Join(home, folder))
		if err != nil || len(names) != 1 {
			t.Fatalf("%s: %v, %v; want one message", folder, names, err)
		}
		text, err := os.ReadFile(filepath.Join(home, folder, names[0].Name()))
		if got := string(text); err != nil || !strings.HasPrefix(got, "Return-Path: <bob@x.test>\nReceived: from unknown\n\tby mx.test with LMTP\n") || !strings.HasSuffix(got, "\nSubject: one\n\ntext\n") {
			t.Errorf("%s: %q, %v", folder, got, err)
		}
	}

	say(t, c, "MAIL FROM:<bob@x.test>", "250 ")
	say(t, c, "RCPT TO:<alice@example.com>", "250 ")
	say(t, c, "DATA", "354 ")
	say(t, c, strings.Repeat("0123456789\r\n", 500)+".", "552 5.2.2 <alice@example.com> Quota exceeded (mailbox for user is full)")

	say(t, c, "MAIL FROM:<bob@x.test>", "250 ")
	say(t, c, "RCPT TO:<alice@example.com>", "250 ")
	say(t, c, "DATA", "354 ")
	say(t, c, "two")
	p.Signal(syscall.SIGTERM)
	p.WaitFor("msg=stopping")
	say(t, c, ".", "250 2.0.0 <alice@example.com> ", "421 4.3.2 mx.test Shutting down")
	p.Wait()
}

func TestManual(t *testing.T) {
	text := daemon.Manual(source)
	if !strings.HasPrefix(text, "Lmtpd takes mail") || strings.Contains(text, "//go:") {
		t.Errorf("the manual begins %.40q", text)
	}
	for _, word := range []string{"--sql", "--mysql", "--userdb", "SIGHUP", "mail_home", "quota = count"} {
		if !strings.Contains(text, word) {
			t.Errorf("the manual does not mention %q", word)
		}
	}
}
