// Package notify tells an administrator, in a few messages, what a policy has done.
//
// A notification never waits and never fails a decision: it is queued, and one goroutine
// sends what is queued, again after a while where the mail server does not take it. The
// queue is bounded, and so is how many are sent in an hour; what is left out is counted,
// and the next message says how many those were. How a message is sent is the caller's
// business.
package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"mime/quotedprintable"
	"strings"
	"sync"
	"time"
)

// The errors of Notify.
var (
	ErrTooMany = errors.New("notification left out: too many of them")
	ErrClosed  = errors.New("notification left out: the daemon ends")
)

const (
	queueSize    = 64
	sendTimeout  = 30 * time.Second
	closeTimeout = 5 * time.Second
	maxSubject   = 200
	maxBody      = 64 << 10
	period       = time.Hour
)

// pauses are between the tries to send one message.
var pauses = []time.Duration{time.Second, 10 * time.Second, time.Minute, 5 * time.Minute}

// Notifier sends notifications. Its fields are set before Start.
type Notifier struct {
	// Send hands a message, lines that end in LF, to the mail server. An error that is Final
	// is not tried again.
	Send func(ctx context.Context, message []byte) error

	From, To string // addresses, for the header
	Host     string // for the Message-ID
	Limit    int    // messages an hour; 0: no limit
	Log      *slog.Logger

	Final func(err error) bool // may be nil: every error is tried again
	Now   func() time.Time     // nil: time.Now

	mu      sync.Mutex // guards what follows
	queue   chan message
	closed  bool
	sent    []time.Time // within the last hour
	leftOut int
	serial  int

	done   chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	stop   chan struct{}
}

type message struct {
	subject string
	text    []byte
}

// Start begins to send. The Notifier must be closed. A nil one has nothing to send.
func (n *Notifier) Start() {
	if n == nil {
		return
	}
	n.queue, n.done, n.stop = make(chan message, queueSize), make(chan struct{}), make(chan struct{})
	n.ctx, n.cancel = context.WithCancel(context.Background())
	go n.run()
}

// Notify queues a message and returns at once. Errors: ErrTooMany, ErrClosed. A nil Notifier
// tells nobody, which is no error.
func (n *Notifier) Notify(_ context.Context, subject, body string) error {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return ErrClosed
	}
	now := n.now()
	for len(n.sent) > 0 && now.Sub(n.sent[0]) >= period {
		n.sent = n.sent[1:]
	}
	if n.Limit > 0 && len(n.sent) >= n.Limit || len(n.queue) == cap(n.queue) {
		n.leftOut++
		return ErrTooMany
	}
	n.serial++
	n.queue <- message{subject, n.write(subject, body, now)} // there is room: only this method fills it
	n.sent = append(n.sent, now)
	n.leftOut = 0
	return nil
}

func (n *Notifier) now() time.Time {
	if n.Now != nil {
		return n.Now()
	}
	return time.Now()
}

// write makes the message. n.mu is held.
func (n *Notifier) write(subject, body string, now time.Time) []byte {
	if n.leftOut > 0 {
		body += fmt.Sprintf("\n(%d notifications before this one were left out.)\n", n.leftOut)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: %s\nTo: %s\nSubject: %s\nDate: %s\nMessage-ID: <policy.%d.%d@%s>\n", n.From, n.To,
		mime.QEncoding.Encode("utf-8", oneLine(subject)), now.Format(time.RFC1123Z), now.UnixNano(), n.serial, n.Host)
	b.WriteString("Auto-Submitted: auto-generated\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n")
	w := quotedprintable.NewWriter(&b)
	_, _ = w.Write([]byte(strings.ToValidUTF8(body[:min(len(body), maxBody)], "?"))) // a Buffer takes all
	_ = w.Close()
	return bytes.ReplaceAll(b.Bytes(), []byte("\r\n"), []byte("\n"))
}

// oneLine makes text fit for a header.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	return strings.ToValidUTF8(text[:min(len(text), maxSubject)], "")
}

func (n *Notifier) run() {
	defer close(n.done)
	for m := range n.queue {
		n.send(m)
	}
}

// send tries until the message is taken, or for as long as there are pauses.
func (n *Notifier) send(m message) {
	for try := 0; ; try++ {
		ctx, cancel := context.WithTimeout(n.ctx, sendTimeout)
		err := n.Send(ctx, m.text)
		cancel()
		if err == nil {
			n.Log.Info("notification sent", "subject", m.subject, "to", n.To)
			return
		}
		if try == len(pauses) || n.Final != nil && n.Final(err) {
			n.Log.Error("notification not sent", "subject", m.subject, "to", n.To, "err", err)
			return
		}
		n.Log.Warn("notification not sent, will be tried again", "subject", m.subject, "to", n.To, "in", pauses[try], "err", err)
		select {
		case <-time.After(pauses[try]):
		case <-n.stop:
			try = len(pauses) - 1 // once more
		}
	}
}

// Close sends what is queued, for a few seconds at most. A nil Notifier has nothing.
func (n *Notifier) Close() {
	if n == nil {
		return
	}
	n.mu.Lock()
	begun := n.queue != nil
	if begun && !n.closed {
		close(n.queue)
		close(n.stop)
	}
	n.closed = true
	n.mu.Unlock()
	if !begun {
		return
	}
	defer time.AfterFunc(closeTimeout, n.cancel).Stop()
	<-n.done
	n.cancel()
}
