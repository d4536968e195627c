package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
	"dovepost/cmd/internal/stack/mailclient"
)

// TestReloadUnderLoad has each daemon read its files again while mail comes in
// and users log in: nobody notices.
func TestReloadUnderLoad(t *testing.T) {
	needDaemons(t)
	undisturbed(t, func() error {
		for range 5 {
			for _, name := range stack.Daemons {
				mail.Signal(name, syscall.SIGHUP)
			}
			time.Sleep(100 * time.Millisecond)
		}
		return nil
	})
}

// TestUpgradeUnderLoad restarts each daemon with SIGTERM, as an upgrade does: the
// old one finishes what it has begun, the next one takes over the listener.
// Nothing is put off, and nothing is delivered twice.
func TestUpgradeUnderLoad(t *testing.T) {
	needDaemons(t)
	for _, name := range stack.Daemons {
		t.Run(name, func(t *testing.T) {
			undisturbed(t, func() error {
				for range 3 {
					if err := mail.RestartDaemon(name); err != nil {
						return err
					}
					time.Sleep(200 * time.Millisecond)
				}
				return nil
			})
		})
	}
}

// TestPostfixReload reloads Postfix while mail comes in.
func TestPostfixReload(t *testing.T) {
	undisturbed(t, func() error {
		for range 3 {
			if err := mail.PostfixReload(); err != nil {
				return err
			}
			time.Sleep(300 * time.Millisecond)
		}
		return nil
	})
}

// undisturbed runs disturb under load, and expects that messages arrive exactly
// once and that no login is refused for good.
func undisturbed(t *testing.T, disturb func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var f traffic
	sending := f.send(ctx, 3)
	var l logins
	users := l.run(ctx)
	time.Sleep(200 * time.Millisecond)
	if err := disturb(); err != nil {
		t.Error(err)
	}
	time.Sleep(200 * time.Millisecond)
	cancel()
	sending.Wait()
	users.Wait()
	f.arrived(t)
	t.Logf("%d messages accepted, %d times put off; %d logins, %d put off", len(f.accepted), f.putOff, l.ok, l.putOff)
	if err := errors.Join(append(f.refused, l.refused...)...); err != nil {
		t.Errorf("refused for good: %v", err)
	}
	if len(f.accepted) == 0 || l.ok == 0 {
		t.Error("there was no load")
	}
	eventually(t, recovery, "everything", works)
}

// TestSessionOutlivesAuthd: an IMAP session that is open does not depend on authd
// any more, and one that has not logged in yet finds the successor.
func TestSessionOutlivesAuthd(t *testing.T) {
	needDaemons(t)
	user := loadUser(4)
	open, err := mailclient.LoginIMAP(mail.IMAPAddr, mail.Roots, user, password(user))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	waiting, err := mailclient.DialIMAP(mail.IMAPAddr, mail.Roots)
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	if err := mail.RestartDaemon("authd"); err != nil {
		t.Fatal(err)
	}
	if _, err := open.Must("SELECT INBOX"); err != nil {
		t.Errorf("the open session: %v", err)
	}
	a, err := waiting.Login(user, password(user))
	if err := begins("the session that waited", a.String(), err, "OK "); err != nil {
		t.Error(err)
	}
}

// TestLoginsWhileAuthdRestarts: no user hears that the password is wrong because
// authd is on its way out, but for the one whom a login process of Dovecot 2.3 tells so that asks in the
// very instant in which its connection ends, see TestRestarts in e2e/auth.
func TestLoginsWhileAuthdRestarts(t *testing.T) {
	needDaemons(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	var mu sync.Mutex // guards the counters
	ok, later, wrong := 0, 0, 0
	for i := range 3 {
		user := loadUser(i)
		wait.Go(func() {
			for ctx.Err() == nil {
				text, err := imapLogin(user, password(user))
				mu.Lock()
				switch {
				case err == nil && strings.HasPrefix(text, "OK "):
					ok++
				case err == nil && !strings.HasPrefix(text, "NO [UNAVAILABLE]"):
					t.Logf("LOGIN: %s", text)
					wrong++
				default:
					later++
				}
				mu.Unlock()
			}
		})
	}
	for range 5 {
		time.Sleep(200 * time.Millisecond)
		if err := mail.RestartDaemon("authd"); err != nil {
			t.Error(err)
		}
	}
	cancel()
	wait.Wait()
	t.Logf("%d logins, %d put off, %d refused", ok, later, wrong)
	if ok == 0 || wrong > 1 {
		t.Error("restarts are noticed")
	}
}

// TestDovecotReload reloads Dovecot with an open session and one that has not
// logged in, and then restarts it, while authd runs on. Dovecot may drop a
// session that is on its way to a process that has just been told to go, but
// nobody hears that the password is wrong.
func TestDovecotReload(t *testing.T) {
	user := loadUser(5)
	open, err := mailclient.LoginIMAP(mail.IMAPAddr, mail.Roots, user, password(user))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	waiting, err := mailclient.DialIMAP(mail.IMAPAddr, mail.Roots)
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	if _, err := mail.Doveadm("reload"); err != nil {
		t.Fatal(err)
	}
	if _, err := open.Must("SELECT INBOX"); err != nil {
		t.Errorf("the open session: %v", err)
	}
	if a, err := waiting.Login(user, password(user)); err == nil && strings.Contains(a.Text, "AUTHENTICATIONFAILED") {
		t.Errorf("the session that waited: %v", a)
	}
	eventually(t, recovery, "after the reload", works)

	if err := mail.StopDovecot(); err != nil {
		t.Fatal(err)
	}
	// Delivery does not depend on Dovecot.
	if mail.Flavour == stack.Dovepost {
		subject := unique("without-dovecot")
		reply, err := attempt(user, subject)
		if err := begins("delivery", reply.String(), err, "250 "); err != nil {
			t.Error(err)
		}
		if err := mail.WaitQueue(time.Minute); err != nil {
			t.Error(err)
		}
		defer func() {
			if n, err := copies(user, subject); err != nil || n != 1 {
				t.Errorf("%d copies, %v; want 1", n, err)
			}
		}()
	}
	if err := mail.StartDovecot(); err != nil {
		t.Fatal(err)
	}
	eventually(t, recovery, "after the restart", works)
}

// TestNewUser: a row that is added is a mailbox at once, and one that is removed
// is none.
func TestNewUser(t *testing.T) {
	user := unique("new") + "@example.net"
	asks := func(want string) func() error {
		return func() error {
			reply, err := lmtpRcpt(user)
			return begins("LMTP", reply.String(), err, want)
		}
	}
	if err := asks("550 5.1.1 ")(); err != nil {
		t.Fatal(err)
	}
	row := stack.Quote(user)
	if err := mail.DB.Exec(fmt.Sprintf("INSERT INTO maildb.users (email, password, quota) VALUES (%s, '{PLAIN}x', 0)", row)); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the new user", asks("250 2.1.5 "))
	if err := mail.DB.Exec("DELETE FROM maildb.users WHERE email = " + row); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the removed user", asks("550 5.1.1 "))
}
