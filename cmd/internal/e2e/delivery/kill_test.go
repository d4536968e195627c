package delivery

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// kills is how often lmtpd dies, and senders how many clients it has meanwhile.
const (
	kills   = 100
	senders = 8
)

// outcome is what the clients were told.
type outcome struct {
	mu      sync.Mutex // guards the rest
	saved   map[string][]string
	resent  int
	refused []string
}

// work sends messages of all sizes, some to several users, until ctx ends. What has no
// answer, or a temporary one, is sent again.
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
			codes, err := c.send(message, left...)
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

// TestKills kills lmtpd at random instants. Whatever it has acknowledged Dovecot shows,
// whole, and once, also where the answer was lost and the message sent again.
func TestKills(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o := outcome{saved: map[string][]string{}}
	var wait sync.WaitGroup
	for worker := range senders {
		wait.Go(func() { o.work(ctx, worker) })
	}
	for range kills {
		time.Sleep(time.Duration(20+rand.IntN(120)) * time.Millisecond)
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
		for _, subject := range all {
			saved++
			if count[subject] != 1 {
				t.Errorf("%s was acknowledged and is %d times in the mailbox of %s", subject, count[subject], rcpt)
			}
		}
	}
	t.Logf("%d acknowledged, %d sent again", saved, o.resent)
	if len(o.refused) > 0 {
		t.Errorf("refused for good: %v", o.refused)
	}
	if saved == 0 || o.resent == 0 {
		t.Error("no kill met a delivery")
	}
}
