package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
	"dovepost/cmd/internal/stack/mailclient"
)

// needDaemons fails a test about daemons that the native flavour does not have.
func needDaemons(t *testing.T) {
	t.Helper()
	if mail.Flavour != stack.Dovepost {
		t.Fatal("the native flavour has no daemons of ours")
	}
}

// traffic is a foreign server that sends messages until its context ends. It does
// what foreign servers do: what is put off it tries again.
type traffic struct {
	mu       sync.Mutex        // guards the rest
	accepted map[string]string // subject to recipient, of messages that Postfix has taken
	putOff   int
	refused  []error
}

// send sends one message after the other, to one user after the other, in some sessions at a time.
func (f *traffic) send(ctx context.Context, sessions int) *sync.WaitGroup {
	f.accepted = map[string]string{}
	var wait sync.WaitGroup
	for range sessions {
		wait.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				f.deliver(loadUser(i%loadUsers), unique("load"))
			}
		})
	}
	return &wait
}

// deliver sends one message, in a session of its own, until Postfix has taken or refused it.
func (f *traffic) deliver(user, subject string) {
	for range 100 {
		reply, err := attempt(user, subject)
		f.mu.Lock()
		switch {
		case err == nil && reply.OK():
			f.accepted[subject] = user
			f.mu.Unlock()
			return
		case err == nil && reply.Code >= 500:
			f.refused = append(f.refused, fmt.Errorf("%s to %s: %v", subject, user, reply))
			f.mu.Unlock()
			return
		}
		f.putOff++
		f.mu.Unlock()
		time.Sleep(20 * time.Millisecond)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused = append(f.refused, fmt.Errorf("%s to %s: put off 100 times", subject, user))
}

// attempt runs one session up to the first reply that is not positive, and returns the last reply.
func attempt(user, subject string) (mailclient.Reply, error) {
	c, err := dialOutside()
	if err != nil {
		return mailclient.Reply{}, err
	}
	defer c.Close()
	reply, err := c.Rcpt(subject+"@remote.example", user)
	if err != nil || !reply.OK() {
		return reply, err
	}
	return c.Data("Subject: " + subject + "\n\nload\n")
}

// arrived compares the mailboxes with what was accepted: every message is there, and once.
func (f *traffic) arrived(t *testing.T) {
	t.Helper()
	flushQueue(t)
	for i := range loadUsers {
		user := loadUser(i)
		count, err := subjects(user)
		if err != nil {
			t.Fatal(err)
		}
		for subject, owner := range f.accepted {
			if owner != user {
				continue
			}
			if count[subject] != 1 {
				t.Errorf("%s is %d times in the mailbox of %s", subject, count[subject], user)
			}
		}
	}
}

// subjects counts the messages of a user's INBOX by subject.
func subjects(user string) (map[string]int, error) {
	c, err := mailclient.LoginPOP3(mail.POP3Addr, mail.Roots, user, password(user))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	all, err := c.Messages()
	if err != nil {
		return nil, err
	}
	count := map[string]int{}
	for _, text := range all {
		if _, rest, ok := strings.Cut(text, "\r\nSubject: "); ok {
			subject, _, _ := strings.Cut(rest, "\r\n")
			count[subject]++
		}
	}
	return count, c.Quit()
}

// TestKillUnderLoad kills each daemon with SIGKILL again and again while mail
// comes in and users log in. The listeners are held, so a client waits where it
// would else be refused: no message is lost, and nothing is refused for good.
func TestKillUnderLoad(t *testing.T) {
	needDaemons(t)
	for _, name := range stack.Daemons {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			var f traffic
			sending := f.send(ctx, 4)
			var logins logins
			users := logins.run(ctx)
			for range 5 {
				time.Sleep(300 * time.Millisecond)
				mail.KillDaemon(name)
				if err := mail.WaitDaemon(name); err != nil {
					t.Error(err)
				}
			}
			cancel()
			sending.Wait()
			users.Wait()
			f.arrived(t)
			t.Logf("%d messages accepted, %d times put off; %d logins, %d put off", len(f.accepted), f.putOff, logins.ok, logins.putOff)
			if len(f.accepted) == 0 || logins.ok == 0 {
				t.Error("there was no load")
			}
			if err := errors.Join(append(f.refused, logins.refused...)...); err != nil {
				t.Errorf("refused for good: %v", err)
			}
			eventually(t, recovery, "everything", works)
		})
	}
}

// logins logs a user in at the submission port until its context ends.
type logins struct {
	ok, putOff int
	refused    []error
}

func (l *logins) run(ctx context.Context) *sync.WaitGroup {
	var wait sync.WaitGroup
	wait.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			user := loadUser(i % loadUsers)
			reply, err := smtpAuth(user, password(user))
			switch {
			case err == nil && reply.OK():
				l.ok++
			case err == nil && reply.Code >= 500:
				l.refused = append(l.refused, fmt.Errorf("AUTH %s: %v", user, reply))
			default:
				l.putOff++
			}
		}
	})
	return &wait
}
