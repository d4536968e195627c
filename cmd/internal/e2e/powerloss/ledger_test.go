package powerloss

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dovepost/cmd/internal/stack/mailclient"
)

const users = 20

// delivery is a message for one user.
type delivery struct{ id, user string }

// ledger is what the clients have sent, and what they were told.
type ledger struct {
	mu      sync.Mutex // guards the rest
	texts   map[string]string
	acked   map[delivery]bool // of all that was sent
	refused []string
}

func newLedger() *ledger { return &ledger{texts: map[string]string{}, acked: map[delivery]bool{}} }

// compose makes a message that proves itself: it has the sum of its body in its header.
func compose(id string, size int) string {
	body := strings.Repeat(id+" "+strings.Repeat("x", 70)+"\n", 1+size/75)
	return fmt.Sprintf("Received: by client.test with LMTP\n\tid %s; now\nSubject: %s\nX-Sum: %x\n\n%s", id, id, sha256.Sum256([]byte(body)), body)
}

// work sends messages, every second one to three users, until ctx ends. What has no answer, or a
// temporary one, is sent again.
func (l *ledger) work(ctx context.Context, addr, worker string) {
	sizes := []int{10, 1000, 5000, 5000, 10000, 100000}
	var c *mailclient.SMTP
	for n := 0; ctx.Err() == nil; n++ {
		id := fmt.Sprintf("%s-%d", worker, n)
		first := rand.IntN(users)
		var to []string
		for _, step := range []int{0, 7, 11}[:1+n%2*2] {
			to = append(to, fmt.Sprintf("u%d", (first+step)%users))
		}
		l.mu.Lock()
		l.texts[id] = compose(id, sizes[rand.IntN(len(sizes))])
		for _, user := range to {
			l.acked[delivery{id, user}] = false
		}
		l.mu.Unlock()
		for len(to) > 0 && ctx.Err() == nil {
			if to, c = l.send(c, addr, id, to); len(to) > 0 {
				time.Sleep(10 * time.Millisecond)
			}
		}
	}
	if c != nil {
		c.Close()
	}
}

// send runs a transaction and returns who has no answer yet, and the connection if it is good.
func (l *ledger) send(c *mailclient.SMTP, addr, id string, to []string) (left []string, _ *mailclient.SMTP) {
	l.mu.Lock()
	text := l.texts[id]
	l.mu.Unlock()
	var err error
	if c == nil {
		if c, err = mailclient.DialSMTP(addr); err != nil {
			return to, nil
		}
		err = c.Must("LHLO client.test")
	}
	if err == nil {
		err = c.Must("MAIL FROM:<a@b.test>")
	}
	for _, user := range to {
		if err == nil {
			err = c.Must("RCPT TO:<%s>", user)
		}
	}
	var r mailclient.Reply
	if err == nil {
		r, err = c.Data(text)
	}
	for i, user := range to {
		if err == nil && i > 0 {
			r, err = c.ReadReply()
		}
		if err != nil || !l.note(delivery{id, user}, r) {
			left = append(left, user)
		}
	}
	if err != nil {
		c.Close()
		c = nil
	}
	return left, c
}

// note takes an answer down and reports whether it is a final one.
func (l *ledger) note(d delivery, r mailclient.Reply) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case r.Code == 250:
		l.acked[d] = true
	case r.Code >= 500:
		l.refused = append(l.refused, fmt.Sprintf("%s to %s: %v", d.id, d.user, r))
	default:
		return false
	}
	return true
}

// count returns the deliveries that were acknowledged, and the others.
func (l *ledger) count() (acked, open map[delivery]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	acked, open = map[delivery]bool{}, map[delivery]bool{}
	for d, ok := range l.acked {
		if ok {
			acked[d] = true
		} else {
			open[d] = true
		}
	}
	return acked, open
}

// settled waits until the clients have read what was answered, and returns the same as count.
func (l *ledger) settled() (acked, open map[delivery]bool) {
	for before := -1; ; time.Sleep(50 * time.Millisecond) {
		if acked, open = l.count(); len(acked) == before {
			return acked, open
		}
		before = len(acked)
	}
}

// found is what lies in the mailboxes below a directory.
type found struct {
	copies map[delivery]int
	torn   []string
	drafts int
}

// look reads all messages.
func look(t *testing.T, dir string) found {
	t.Helper()
	f := found{copies: map[delivery]int{}}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		switch filepath.Base(filepath.Dir(path)) {
		case "tmp":
			f.drafts++
			return nil
		case "new", "cur":
		default:
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		head, body, _ := bytes.Cut(text, []byte("\n\n"))
		fields := strings.SplitN(string(head), "\nSubject: ", 2)
		if len(fields) < 2 || !strings.HasSuffix(fields[1], fmt.Sprintf("\nX-Sum: %x", sha256.Sum256(body))) {
			f.torn = append(f.torn, fmt.Sprintf("%s (%d octets)", path, len(text)))
			return nil
		}
		id, _, _ := strings.Cut(fields[1], "\n")
		user, _, _ := strings.Cut(strings.TrimPrefix(path, dir+"/"), "/")
		f.copies[delivery{id, user}]++
		return nil
	})
	must(t, err)
	return f
}

// missing counts those of acked that are not there.
func (f found) missing(acked map[delivery]bool) (n int) {
	for d := range acked {
		if f.copies[d] == 0 {
			n++
		}
	}
	return n
}

// doubled returns those that are there more than once.
func (f found) doubled() (all []delivery) {
	for d, n := range f.copies {
		if n > 1 {
			all = append(all, d)
		}
	}
	return all
}
