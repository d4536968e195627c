package e2e

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"dovepost/cmd/internal/stack/mailclient"
)

// recovery is how long after the database's return everything must work again.
const recovery = 30 * time.Second

// unavailable asks every protocol while the database does not answer: none may
// say "no". All are asked at the same time.
func unavailable() error {
	user := neverSeen
	questions := []func() error{
		func() error {
			reply, err := rcpt(unique("never-seen") + "@example.net")
			return begins("RCPT", reply.String(), err, "451 4.3.0 ")
		},
		func() error {
			text, err := imapLogin(user, password(user))
			return begins("IMAP", text, err, "NO [UNAVAILABLE] ")
		},
		func() error {
			text, err := imapLogin(user, "wrong")
			return begins("IMAP, wrong password", text, err, "NO [UNAVAILABLE] ")
		},
		func() error {
			text, err := pop3Login(user, password(user))
			return begins("POP3", text, err, "-ERR [SYS/TEMP] ")
		},
		func() error {
			reply, err := smtpAuth(user, password(user))
			return begins("AUTH", reply.String(), err, "454 4.7.0 ")
		},
		func() error {
			reply, err := lmtpRcpt(unique("never-seen") + "@example.net")
			return begins("LMTP", reply.String(), err, "451 4.3.0 ")
		},
		func() error {
			_, err := mail.Doveadm("user", unique("never-seen")+"@example.net")
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 75 {
				return fmt.Errorf("doveadm user: %v, want exit code 75", err)
			}
			return nil
		},
	}
	answers := make(chan error, len(questions))
	for _, ask := range questions {
		go func() { answers <- ask() }()
	}
	var errs error
	for range questions {
		errs = errors.Join(errs, <-answers)
	}
	return errs
}

// TestDatabaseDown stops the database, in good order and by force: every protocol
// says "later", and works again when the database is back, without anybody
// touching anything.
func TestDatabaseDown(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func() error
	}{{"stopped", mail.DB.Stop}, {"killed", mail.DB.Kill}} {
		if err := works(); err != nil {
			t.Fatalf("before it is %s: %v", tt.name, err)
		}
		if err := tt.end(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := unavailable(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		t.Logf("%s: temporary answers in %v", tt.name, time.Since(began))
		if err := mail.DB.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, recovery, "after it was "+tt.name, works)
	}
}

// TestDatabaseFrozen stops the database's process without closing a connection,
// as a hanging disk would. Postfix waits 10 s for a login and 100 s for a table.
func TestDatabaseFrozen(t *testing.T) {
	if err := works(); err != nil {
		t.Fatal(err)
	}
	if err := mail.DB.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer mail.DB.Signal(syscall.SIGCONT)
	began := time.Now()
	if err := unavailable(); err != nil {
		t.Error(err)
	}
	took := time.Since(began)
	t.Logf("temporary answers in %v", took)
	if took > time.Minute {
		t.Errorf("answers took %v", took)
	}
	mail.DB.Signal(syscall.SIGCONT)
	eventually(t, recovery, "after the database moves again", works)
}

// TestQueuedMailSurvivesOutage: mail that Postfix took before the database went
// away is neither bounced nor lost nor doubled.
func TestQueuedMailSurvivesOutage(t *testing.T) {
	user, subject := loadUser(2), unique("queued")
	c := outside(t)
	reply, err := c.Rcpt("sender@remote.example", user)
	if err := begins("RCPT", reply.String(), err, "250 "); err != nil {
		t.Fatal(err)
	}
	if err := c.Must("DATA"); err != nil {
		t.Fatal(err)
	}
	if err := mail.DB.Stop(); err != nil {
		t.Fatal(err)
	}
	// cleanup(8) looks the recipient up again: it may take the message, or ask for it later.
	reply, err = c.Cmd("Subject: %s\r\n\r\nqueued\r\n.", subject)
	if err != nil || reply.Code != 250 && reply.Code != 451 {
		t.Fatalf("end of DATA: %v, %v; want 250 or 451", reply, err)
	}
	if err := mail.DB.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, recovery, "after the database is back", works)
	if reply.Code == 451 {
		if err := c.Send("sender2@remote.example", user, "Subject: "+subject+"\n\nqueued\n"); err != nil {
			t.Fatal(err)
		}
	}
	flushQueue(t)
	if n, err := copies(user, subject); err != nil || n != 1 {
		t.Errorf("%d copies, %v; want 1", n, err)
	}
}

// TestDeferredMailIsDelivered: the LMTP server cannot resolve a recipient that
// Postfix has accepted; Postfix keeps the message until it can.
func TestDeferredMailIsDelivered(t *testing.T) {
	user, subject := loadUser(3), unique("deferred")
	c, err := mailclient.DialSMTP(mail.LMTPAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Must("LHLO test.client"); err != nil {
		t.Fatal(err)
	}
	if err := mail.DB.Stop(); err != nil {
		t.Fatal(err)
	}
	reply, err := c.Rcpt("sender@remote.example", unique("never-seen")+"@example.net")
	if err := begins("LMTP RCPT", reply.String(), err, "451 4.3.0 "); err != nil {
		t.Error(err)
	}
	if err := mail.DB.Start(); err != nil {
		t.Fatal(err)
	}
	// The session that has seen the outage goes on.
	eventually(t, recovery, "the same LMTP session", func() error {
		if err := c.Must("RSET"); err != nil {
			return err
		}
		reply, err := c.Rcpt("sender@remote.example", user)
		return begins("RCPT", reply.String(), err, "250 ")
	})
	if reply, err := c.Data("Subject: " + subject + "\n\ndeferred\n"); err != nil || !strings.HasPrefix(reply.String(), "250 2.0.0 ") {
		t.Fatalf("DATA: %v, %v", reply, err)
	}
	if n, err := copies(user, subject); err != nil || n != 1 {
		t.Errorf("%d copies, %v; want 1", n, err)
	}
}

// flushQueue has Postfix try until it holds nothing any more.
func flushQueue(t *testing.T) {
	t.Helper()
	eventually(t, 2*time.Minute, "queue", func() error {
		if err := mail.WaitQueue(500 * time.Millisecond); err == nil {
			return nil
		}
		if err := mail.PostfixFlush(); err != nil {
			return err
		}
		return mail.WaitQueue(2 * time.Second)
	})
}
