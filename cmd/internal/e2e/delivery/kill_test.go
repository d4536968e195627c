package delivery

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dovepost/cmd/internal/stack/mailclient"
)

// kills is how often lmtpd dies, and senders how many clients it has meanwhile.
var kills = map[bool]int{false: 100, true: 500}[os.Getenv("DOVEPOST_LONG") != ""]

const senders = 8

// outcome is what the clients were told.
type outcome struct {
	mu      sync.Mutex // guards the rest
	saved   map[string][]string
	resent  int
	refused []string
}

// work sends messages of all sizes, some to several users, until ctx ends. What has no
// answer, or a temporary one, is sent again; some answers the client does not wait for.
func (o *outcome) work(ctx context.Context, worker int) {
	var c *client
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	sizes := []int{10, 500, 4000, 4000, 30000, 40000, 200000, 600000}
	for n := 0; ctx.Err() == nil; n++ {
		subject := fmt.Sprintf("kill-%d-%d", worker, n)
		message := "Received: by client.test id " + subject + "; now\r\nSubject: " + subject + "\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", sizes[rand.IntN(len(sizes))]/72) + "end\r\n"
		first := rand.IntN(users)
		left := []string{user(first), user(first + 7), user(first + 11)}[:1+2*rand.IntN(2)]
		for len(left) > 0 {
			var err error
			if c == nil {
				if c, err = dial(); err != nil {
					c = nil
					continue
				}
			}
			send := c.send
			if rand.IntN(10) == 0 {
				send = c.sendAndLeave
			}
			codes, err := send(message, left...)
			if err != nil {
				c.Close()
				c = nil
			}
			left = o.note(subject, left, codes)
		}
	}
}

// note takes down the answers and returns who has none yet.
func (o *outcome) note(subject string, rcpts []string, codes []int) (left []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, code := range codes {
		switch {
		case code == 250:
			o.saved[rcpts[i]] = append(o.saved[rcpts[i]], subject)
		case code >= 500:
			o.refused = append(o.refused, fmt.Sprintf("%s to %s: %d", subject, rcpts[i], code))
		default:
			left = append(left, rcpts[i])
		}
	}
	o.resent += len(left)
	return left
}

// TestKills kills lmtpd at random instants, or lets it hang, while readers move the messages to another mailbox or
// expunge them. Whatever it has acknowledged Dovecot shows, whole, and once, also where the answer was
// lost and the message sent again.
func TestKills(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o := outcome{saved: map[string][]string{}}
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	for worker := range senders {
		wait.Go(func() { o.work(ctx, worker) })
	}
	expunged := make([]map[string]int, readers)
	for i := range readers {
		wait.Go(func() { expunged[i] = read(ctx, t, user(i)) })
	}
	for n := range kills {
		time.Sleep(time.Duration(20+rand.IntN(120)) * time.Millisecond)
		if n%5 == 0 {
			site.Signal("lmtpd", syscall.SIGSTOP)
			time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
		}
		if n%10 == 0 {
			site.Signal("lmtpd", syscall.SIGCONT)
			continue
		}
		site.KillDaemon("lmtpd")
		if err := site.WaitDaemon("lmtpd"); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	wait.Wait()
	saved := 0
	for rcpt, all := range o.saved {
		count := subjects(t, rcpt)
		for i := range readers {
			if rcpt == user(i) {
				add(count, subjectsIn(t, rcpt, archive))
				add(count, expunged[i])
			}
		}
		for _, subject := range all {
			saved++
			if count[subject] != 1 {
				t.Errorf("%s was acknowledged and is %d times in the mailboxes of %s", subject, count[subject], rcpt)
			}
		}
	}
	t.Logf("%d kills; %d acknowledged, %d sent again", kills, saved, o.resent)
	if len(o.refused) > 0 {
		t.Errorf("refused for good: %v", o.refused)
	}
	if saved == 0 || o.resent == 0 {
		t.Error("no kill met a delivery")
	}
}

func add(to, from map[string]int) {
	for subject, n := range from {
		to[subject] += n
	}
}

// readers is how many of the users read their mail meanwhile, and archive where they put it.
const (
	readers = 5
	archive = "Archive"
)

// read moves each second message of a user's INBOX to another mailbox and expunges the others, until ctx
// ends. It returns what it has expunged, by subject.
func read(ctx context.Context, t *testing.T, user string) map[string]int {
	gone := map[string]int{}
	c, err := mailclient.LoginIMAP(site.IMAPAddr, site.Roots, user, "x")
	if err != nil {
		t.Error(err)
		return gone
	}
	defer c.Close()
	c.Cmd("CREATE %s", archive)
	for n := 0; ctx.Err() == nil; n++ {
		subject, err := readOne(c, n%2 == 0)
		if err != nil {
			t.Errorf("the reader of %s: %v", user, err)
			return gone
		}
		if subject == "" {
			time.Sleep(5 * time.Millisecond)
		} else if n%2 == 0 {
			gone[subject]++
		}
	}
	return gone
}

// readOne does it to the first message and returns its subject, or none if there is no message.
func readOne(c *mailclient.IMAP, expunge bool) (subject string, err error) {
	if _, err := c.Must("SELECT INBOX"); err != nil {
		return "", err
	}
	numbers, err := c.Find("ALL")
	if err != nil || len(numbers) == 0 {
		return "", err
	}
	text, err := c.Fetch("1")
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(text, "\nSubject: ")
	subject, _, _ = strings.Cut(rest, "\r\n")
	if !expunge {
		_, err = c.Must("MOVE 1 %s", archive)
		return subject, err
	}
	if _, err = c.Must(`STORE 1 +FLAGS.SILENT (\Deleted)`); err == nil {
		_, err = c.Must("EXPUNGE")
	}
	return subject, err
}
