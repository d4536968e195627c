package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dovepost/auth"
	"dovepost/auth/dovecot"
	"dovepost/cmd/internal/daemon"
	"dovepost/cmd/internal/faultproxy"
)

// The tests run this binary as lmtpd.
func TestMain(m *testing.M) {
	if os.Getenv("RUN_LMTPD") != "" {
		main()
	}
	os.Exit(m.Run())
}

// command returns lmtpd with arguments.
func command(t *testing.T, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), "RUN_LMTPD=1")
	return cmd
}

// process is a running lmtpd.
type process struct {
	*exec.Cmd
	log    *bufio.Scanner
	socket string
}

func start(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	p := &process{socket: filepath.Join(dir, "lmtp")}
	p.Cmd = command(t, append(args, "--hostname=mx.test", "--listen=lmtp:unix:"+p.socket)...)
	stderr, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	p.log = bufio.NewScanner(stderr)
	p.waitFor(t, "msg=ready")
	return p
}

// waitFor reads the log until a line has words.
func (p *process) waitFor(t *testing.T, words string) {
	t.Helper()
	for p.log.Scan() {
		if strings.Contains(p.log.Text(), "s3cret") {
			t.Errorf("the log says the password: %s", p.log.Text())
		}
		if strings.Contains(p.log.Text(), words) {
			return
		}
	}
	t.Fatalf("the log ended without %q", words)
}

// stop sends SIGTERM and expects a good end.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.Process.Signal(syscall.SIGTERM)
	for p.log.Scan() {
	}
	if err := p.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
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

func writeFile(t *testing.T, name, text string) string {
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExitCodes(t *testing.T) {
	server := fmt.Sprintf("hosts = 127.0.0.1:%d\nuser = u\npassword = s3cret\ndbname = d\n", faultproxy.ClosedPort(t))
	good := writeFile(t, "good.cf", server)
	sql := writeFile(t, "bad.conf", "driver = mysql\nconnect = host=127.0.0.1 password=s3cret\nuser_query = SELECT '%{nosuch}'\n")
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
			out, err := command(t, tt.args...).CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != tt.code || !strings.Contains(string(out), tt.says) {
				t.Errorf("%v: %v, %s; want exit %d that says %q", tt.args, err, out, tt.code, tt.says)
			}
			if strings.Contains(string(out), "s3cret") {
				t.Errorf("says the password: %s", out)
			}
		})
	}
}

// A database that is away is no obstacle at start and never an unknown user; SIGHUP
// with a bad file changes nothing.
func TestAway(t *testing.T) {
	file := writeFile(t, "mysql.cf", fmt.Sprintf("hosts = 127.0.0.1:%d\nuser = u\npassword = s3cret\ndbname = d\n", faultproxy.ClosedPort(t)))
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
	p.Process.Signal(syscall.SIGHUP)
	p.waitFor(t, "level=ERROR")
	ask()
	p.stop(t)
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
	p.Process.Signal(syscall.SIGTERM)
	p.waitFor(t, "msg=stopping")
	say(t, c, ".", "250 2.0.0 <alice@example.com> ", "421 4.3.2 mx.test Shutting down")
	for p.log.Scan() {
	}
	if err := p.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
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
