package auth

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
	"dovepost/cmd/internal/stack/mailclient"
)

// TestRestarts has authd read its files again and restarts it with SIGTERM while
// twelve IMAP and six submission clients log in all the time: they notice nothing.
// (A login process of Dovecot 2.3 that asks in the very instant in which its
// connection ends tells its client that the password is wrong. No server can help
// that; it may happen once here, on a busy machine.)
func TestRestarts(t *testing.T) {
	var o stack.Options
	o.Bin = bin
	o.Domains = []string{"example.net"}
	for i := range 18 {
		o.Users = append(o.Users, stack.User{Email: fmt.Sprintf("u%d@example.net", i), Password: "secret"})
	}
	s, err := stack.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop() })

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
	if ok.Load() == 0 || later.Load() > ok.Load()/20 || wrong.Load() > 1 {
		t.Error("restarts are noticed")
	}
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
