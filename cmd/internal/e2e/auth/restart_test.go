package auth

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
	"dovepost/cmd/internal/stack/mailclient"
)

// loginUsers is how many clients log in at the same time.
const loginUsers = 200

// loginStack is a site with loginUsers users who may log in without TLS.
func loginStack(t *testing.T) *stack.Stack {
	t.Helper()
	cleartext := "disable_plaintext_auth = no"
	if isModern() {
		cleartext = "auth_allow_cleartext = yes"
	}
	o := stack.Options{Bin: bin, Domains: []string{"example.net"}, DovecotConf: []string{
		"ssl = yes", cleartext, "service imap-login {", "process_limit = 500", "}", "service imap {", "process_limit = 500", "}"}}
	for i := range loginUsers {
		o.Users = append(o.Users, stack.User{Email: fmt.Sprintf("u%d@example.net", i), Password: "secret"})
	}
	s, err := stack.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop() })
	return s
}

// TestRestarts has authd read its files again and restarts it with SIGTERM while
// twelve IMAP and six submission clients log in all the time: they notice nothing.
// (A login process of Dovecot 2.3 that asks in the very instant in which its
// connection ends tells its client that the password is wrong. No server can help
// that; it may happen once here, on a busy machine.)
//
// Then it is killed, once while clients are connected and have not logged in, and once
// while two hundred log in; and Dovecot is reloaded in the middle of an exchange.
func TestRestarts(t *testing.T) {
	s := loginStack(t)
	t.Run("SIGHUP and SIGTERM", func(t *testing.T) { restarted(t, s) })
	t.Run("SIGKILL between logins", func(t *testing.T) { killedWhileIdle(t, s) })
	t.Run("SIGKILL", func(t *testing.T) { killed(t, s) })
	t.Run("doveadm reload", func(t *testing.T) { reloaded(t, s) })
}

func restarted(t *testing.T, s *stack.Stack) {
	var ok, later, wrong atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	for i := range 18 {
		login, yes, no := imapLogin, "OK ", "NO [UNAVAILABLE]"
		if i >= 12 {
			login, yes, no = submissionLogin, "235 ", "454 "
		}
		wait.Go(func() {
			for ctx.Err() == nil {
				switch text, err := login(s, fmt.Sprintf("u%d@example.net", i)); {
				case err != nil, strings.HasPrefix(text, no):
					later.Add(1)
				case strings.HasPrefix(text, yes):
					ok.Add(1)
				default:
					t.Logf("a right password: %s", text)
					wrong.Add(1)
				}
			}
		})
	}
	for range 5 {
		time.Sleep(300 * time.Millisecond)
		s.Signal("authd", syscall.SIGHUP)
		time.Sleep(300 * time.Millisecond)
		if err := s.RestartDaemon("authd"); err != nil {
			t.Error(err)
		}
	}
	time.Sleep(300 * time.Millisecond)
	cancel()
	wait.Wait()
	t.Logf("%d logins, %d put off, %d refused", ok.Load(), later.Load(), wrong.Load())
	if ok.Load() == 0 || later.Load() > 2+ok.Load()/20 || wrong.Load() > 1 {
		t.Error("restarts are noticed")
	}
}

// killedWhileIdle: who is connected and has not said who he is waits for the next
// authd, which Dovecot 2.3 asks 5 s after it has connected to the last.
func killedWhileIdle(t *testing.T, s *stack.Stack) {
	var clients []*rawIMAP
	for range 50 {
		c, err := dialRaw(s.IMAPAddr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, c)
	}
	s.KillDaemon("authd")
	if err := s.WaitDaemon("authd"); err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for i, c := range clients {
		wait.Go(func() {
			if text, err := c.login(fmt.Sprintf("u%d@example.net", i)); err != nil || !strings.HasPrefix(text, "OK ") {
				t.Errorf("a login behind the end of authd: %q, %v", text, err)
			}
		})
	}
	wait.Wait()
}

// killed: what Dovecot 2.3 says of an exchange that has begun when authd dies cannot be
// helped. Nobody else may hear that a right password is wrong.
func killed(t *testing.T, s *stack.Stack) {
	type outcome struct {
		sent time.Time
		text string
		err  error
	}
	outcomes := make(chan outcome, 100*loginUsers)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wait sync.WaitGroup
	for i := range loginUsers {
		wait.Go(func() {
			for ctx.Err() == nil && len(outcomes) < cap(outcomes)-loginUsers {
				c, err := dialRaw(s.IMAPAddr)
				if err != nil {
					outcomes <- outcome{err: err}
					return
				}
				o := outcome{sent: time.Now()}
				o.text, o.err = c.login(fmt.Sprintf("u%d@example.net", i))
				outcomes <- o
				c.Close()
			}
		})
	}
	load := func() { // goes on for 2 s, and then until half as many logins have ended as there are clients
		time.Sleep(2 * time.Second)
		enough := len(outcomes) + loginUsers/2
		for deadline := time.Now().Add(time.Minute); len(outcomes) < enough && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
	}
	load()
	s.KillDaemon("authd")
	death := time.Now()
	if err := s.WaitDaemon("authd"); err != nil {
		t.Error(err)
	}
	load()
	cancel()
	wait.Wait()
	close(outcomes)
	var ok, later, inFlight int
	for o := range outcomes {
		switch {
		case o.err != nil, strings.HasPrefix(o.text, "NO [UNAVAILABLE]"):
			later++
		case strings.HasPrefix(o.text, "OK "):
			ok++
		case o.sent.Before(death):
			inFlight++
		default:
			t.Errorf("a right password, sent %v after authd's end: %s", o.sent.Sub(death), o.text)
		}
	}
	t.Logf("%d clients: %d logins, %d put off, %d in flight were refused", loginUsers, ok, later, inFlight)
	if ok < loginUsers/2 {
		t.Error("hardly anybody could log in")
	}
}

// reloaded: an exchange that has begun goes on over a reload of Dovecot, and the sockets
// stay where they are.
func reloaded(t *testing.T, s *stack.Stack) {
	c, err := dialRaw(s.IMAPAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i, step := range []struct{ say, hear string }{
		{"a AUTHENTICATE LOGIN", "+ VXNlcm5hbWU6"}, {base64.StdEncoding.EncodeToString([]byte("u1@example.net")), "+ UGFzc3dvcmQ6"}, {base64.StdEncoding.EncodeToString([]byte("secret")), "a OK "},
	} {
		line, err := c.say(step.say)
		for err == nil && strings.HasPrefix(line, "* ") {
			line, err = c.line()
		}
		if err != nil || !strings.HasPrefix(line, step.hear) {
			log, _ := os.ReadFile(s.Dir + "/dovecot/dovecot.log")
			t.Fatalf("behind %q: %q, %v; want %q\n%s", step.say, line, err, step.hear, log[max(0, len(log)-2000):])
		}
		if i == 0 {
			reload(t, s)
		}
	}
	if text, err := imapLogin(s, "u2@example.net"); err != nil || !strings.HasPrefix(text, "OK ") {
		t.Errorf("a login behind the reloads: %q, %v", text, err)
	}
	if _, err := s.Doveadm("user", "u2@example.net"); err != nil {
		t.Error(err)
	}
}

// reload has Dovecot reload, and waits until it has made its sockets again: whoever
// finishes a login before has nobody to hand it over to, whichever auth service is used.
func reload(t *testing.T, s *stack.Stack) {
	t.Helper()
	socket := s.DovecotRun() + "/login/imap"
	before, err := os.Stat(socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Doveadm("reload"); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		after, err := os.Stat(socket)
		if err == nil && (!os.SameFile(before, after) || !after.ModTime().Equal(before.ModTime())) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("Dovecot does not reload")
		}
	}
	appear(t, socket, s.Dir+"/dovecot/dovecot.log")
}

// rawIMAP is an IMAP connection without TLS, on which one speaks line by line.
type rawIMAP struct {
	net.Conn
	r *bufio.Reader
}

// dialRaw connects and reads the greeting.
func dialRaw(addr string) (*rawIMAP, error) {
	nc, err := net.DialTimeout("tcp", addr, time.Minute)
	if err != nil {
		return nil, err
	}
	c := &rawIMAP{Conn: nc, r: bufio.NewReader(nc)}
	if _, err := c.line(); err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

func (c *rawIMAP) line() (string, error) {
	c.SetReadDeadline(time.Now().Add(time.Minute))
	line, err := c.r.ReadString('\n')
	return strings.TrimSpace(line), err
}

func (c *rawIMAP) say(line string) (string, error) {
	if _, err := fmt.Fprintf(c, "%s\r\n", line); err != nil {
		return "", err
	}
	return c.line()
}

// command returns the lines that answer a command; the last one without its tag.
func (c *rawIMAP) command(command string) (lines []string, err error) {
	line, err := c.say("a " + command)
	for ; err == nil; line, err = c.line() {
		if last, ok := strings.CutPrefix(line, "a "); ok {
			return append(lines, last), nil
		}
		lines = append(lines, line)
	}
	return lines, err
}

// login returns the answer to LOGIN, without its tag.
func (c *rawIMAP) login(user string) (string, error) {
	lines, err := c.command("LOGIN " + user + " secret")
	if err != nil {
		return "", err
	}
	return lines[len(lines)-1], nil
}

func imapLogin(s *stack.Stack, user string) (string, error) {
	c, err := mailclient.DialIMAP(s.IMAPAddr, s.Roots)
	if err != nil {
		return "", err
	}
	defer c.Close()
	a, err := c.Login(user, "secret")
	return a.String(), err
}

func submissionLogin(s *stack.Stack, user string) (string, error) {
	c, err := mailclient.DialSMTP(s.SubmissionAddr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.StartTLS(s.Roots); err != nil {
		return "", err
	}
	reply, err := c.AuthPlain(user, "secret")
	return reply.String(), err
}
