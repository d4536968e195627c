// Package e2e tests the daemons with the real Postfix, Dovecot and MariaDB. A
// program that is missing is a failure.
//
// The tests of this directory share one stack and run one after the other. With
// DOVEPOST_E2E=native in the environment they run against the database clients of
// Postfix and Dovecot instead: what fails then is a difference, not a fault.
package e2e

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
	"dovepost/cmd/internal/stack/mailclient"
	"dovepost/cmd/internal/stack/walk"
)

// mail is the stack that the tests share.
var mail *stack.Stack

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	flavour := stack.Dovepost
	if os.Getenv("DOVEPOST_E2E") == "native" {
		flavour = stack.Native
	}
	options := walk.Options(flavour)
	for i := range loadUsers {
		options.Users = append(options.Users, stack.User{Email: loadUser(i), Password: password(loadUser(i))})
	}
	options.Users = append(options.Users, stack.User{Email: neverSeen, Password: password(neverSeen)})
	var err error
	if mail, err = stack.Start(options); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code = m.Run()
	if code != 0 {
		fmt.Fprintf(os.Stderr, "logs are in %s\n", mail.Dir)
		err = mail.Halt()
	} else {
		err = mail.Stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// neverSeen is a user who exists and never logs in while the database is there.
const neverSeen = "never-seen@example.net"

// loadUsers is how many users there are beside those of the walk.
const loadUsers = 8

func loadUser(i int) string { return fmt.Sprintf("load%d@example.net", i) }

// password returns the password of every user of the stack.
func password(user string) string {
	localpart, _, _ := strings.Cut(user, "@")
	return walk.Password(localpart)
}

// eventually tries until ok returns nil, for as long as limit.
func eventually(t *testing.T, limit time.Duration, what string, ok func() error) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after %v: %v", what, limit, err)
		}
	}
}

// outside connects to port 25 as a foreign server.
func outside(t *testing.T) *mailclient.SMTP {
	t.Helper()
	c, err := dialOutside()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func dialOutside() (*mailclient.SMTP, error) {
	c, err := mailclient.DialSMTP(mail.SMTPAddr)
	if err != nil {
		return nil, err
	}
	if err := c.FromOutside("203.0.113.9", "mx.remote.example"); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// rcpt asks port 25 in a session of its own whether it would take mail for to.
// Postfix remembers each pair of sender and recipient for the life of a process,
// so every question has its own sender.
func rcpt(to string) (mailclient.Reply, error) {
	c, err := dialOutside()
	if err != nil {
		return mailclient.Reply{}, err
	}
	defer c.Quit()
	return c.Rcpt(unique("sender")+"@remote.example", to)
}

// unique returns a name that was never used before.
func unique(prefix string) string {
	return fmt.Sprintf("%s-%d-%d", prefix, os.Getpid(), serial.Add(1))
}

var serial atomic.Int64

// imapLogin logs in and out, and returns the answer to LOGIN.
func imapLogin(user, password string) (string, error) {
	c, err := mailclient.DialIMAP(mail.IMAPAddr, mail.Roots)
	if err != nil {
		return "", err
	}
	defer c.Close()
	a, err := c.Login(user, password)
	if err == nil && a.OK() {
		err = c.Logout()
	}
	return a.String(), err
}

// pop3Login does the same over POP3.
func pop3Login(user, password string) (string, error) {
	c, err := mailclient.DialPOP3(mail.POP3Addr, mail.Roots)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return c.Login(user, password)
}

// smtpAuth logs in at the submission port, and returns the answer to AUTH PLAIN.
func smtpAuth(user, password string) (mailclient.Reply, error) {
	c, err := mailclient.DialSMTP(mail.SubmissionAddr)
	if err != nil {
		return mailclient.Reply{}, err
	}
	defer c.Close()
	if err := c.StartTLS(mail.Roots); err != nil {
		return mailclient.Reply{}, err
	}
	return c.AuthPlain(user, password)
}

// lmtpRcpt asks the LMTP server whether it would deliver to to.
func lmtpRcpt(to string) (mailclient.Reply, error) {
	c, err := mailclient.DialSMTP(mail.LMTPAddr)
	if err != nil {
		return mailclient.Reply{}, err
	}
	defer c.Quit()
	if err := c.Must("LHLO test.client"); err != nil {
		return mailclient.Reply{}, err
	}
	return c.Rcpt("sender@remote.example", to)
}

// begins returns an error unless got, an answer that came with err, begins with want.
func begins(what, got string, err error, want string) error {
	if err == nil && !strings.HasPrefix(got, want) {
		err = fmt.Errorf("got %q, want %q", got, want)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// works asks every protocol once, with users that exist.
func works() error {
	user := loadUser(0)
	reply, err := rcpt(user)
	errs := begins("RCPT", reply.String(), err, "250 ")
	reply, err = rcpt(unique("nobody") + "@example.net")
	errs = errors.Join(errs, begins("RCPT of an unknown user", reply.String(), err, "550 5.1.1 "))
	text, err := imapLogin(user, password(user))
	errs = errors.Join(errs, begins("IMAP", text, err, "OK "))
	text, err = pop3Login(user, password(user))
	errs = errors.Join(errs, begins("POP3", text, err, "+OK"))
	reply, err = smtpAuth(user, password(user))
	errs = errors.Join(errs, begins("AUTH", reply.String(), err, "235 "))
	reply, err = lmtpRcpt(user)
	return errors.Join(errs, begins("LMTP", reply.String(), err, "250 "))
}

// copies counts the messages in a user's INBOX that have the subject.
func copies(user, subject string) (int, error) {
	c, err := mailclient.LoginIMAP(mail.IMAPAddr, mail.Roots, user, password(user))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if _, err := c.Must("SELECT INBOX"); err != nil {
		return 0, err
	}
	found, err := c.Find("HEADER Subject " + subject)
	return len(found), err
}
