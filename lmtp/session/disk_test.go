package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dovepost/lmtp"
)

// slowDisk is a Deliverer that takes a second for each message, and counts what it works on at a time.
type slowDisk struct{ now, most atomic.Int64 }

func (d *slowDisk) Deliver(ctx context.Context, env *lmtp.Envelope, to []*lmtp.Mailbox, msg lmtp.Message) []error {
	n := d.now.Add(int64(len(to)))
	defer d.now.Add(-int64(len(to)))
	for most := d.most.Load(); n > most && !d.most.CompareAndSwap(most, n); most = d.most.Load() {
	}
	time.Sleep(time.Second)
	return make([]error, len(to))
}

// However many messages come at a time, the disk gets as many as there are threads for; the others wait.
func TestDiskWorkIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := new(slowDisk)
		h := newHandler(nil)
		h.Deliverer, h.DiskWork = d, 4
		var wait sync.WaitGroup
		for i := range 20 {
			rcpts := ""
			for n := range i%3 + 1 {
				rcpts += fmt.Sprintf("RCPT TO:<u%d@example.test>\r\n", n+1)
			}
			wait.Go(func() {
				c := &script{Reader: strings.NewReader("MAIL FROM:<>\r\n" + rcpts + "DATA\r\n.\r\nQUIT\r\n")}
				if err := h.ServeConn(t.Context(), c); err != nil || strings.Count(c.out.String(), " Saved\r\n") != i%3+1 {
					t.Errorf("%v: %q", err, c.out.String())
				}
			})
		}
		wait.Wait()
		if most := d.most.Load(); most > 4 || most < 3 {
			t.Errorf("%d at a time; want at most 4", most)
		}
		if h.usage.work.used != 0 {
			t.Errorf("left: %d", h.usage.work.used)
		}
	})
}

// While the disk hangs, who waits for it is put off in the end, and goes on.
func TestDiskHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(new(memory))
		h.DiskWork = 1
		if !h.enterDisk(1, nil) {
			t.Fatal("no place for the first")
		}
		const message = "MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nDATA\r\n.\r\nQUIT\r\n"
		c := &script{Reader: strings.NewReader(message)}
		start := time.Now()
		if err := h.ServeConn(t.Context(), c); err != nil || time.Since(start) != DefaultDataTimeout ||
			!strings.Contains(c.out.String(), "451 4.2.0 <u1@example.test> Internal error") || !strings.HasSuffix(c.out.String(), "221 2.0.0 Bye\r\n") {
			t.Errorf("%v after %v: %q", err, time.Since(start), c.out.String())
		}
		// The end of the daemon does not wait for it either.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		c = &script{Reader: strings.NewReader(message)}
		if err := h.ServeConn(ctx, c); err != nil && !errors.Is(err, io.EOF) || !strings.Contains(c.out.String(), "451 4.2.0") {
			t.Errorf("%v: %q", err, c.out.String())
		}
	})
}
