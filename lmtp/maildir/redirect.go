package maildir

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"dovepost/lmtp"
	"dovepost/lmtp/journal"
)

// forward is a message that leaves for another address.
type forward struct {
	to string
	claim
}

var errNoSender = errors.New("no way to redirect mail is configured")

// redirect submits what leaves for other addresses, when all that is to be stored is written and
// not yet visible. That runs on a thread of its own: this one has the rights of
// the mailboxes' owner.
func (t *transaction) redirect(round []*delivery) {
	for _, v := range round {
		for _, w := range v.forwards {
			if !v.waits() {
				break
			}
			if w.entry.State == journal.Done {
				continue // it was sent on before the answer to it got lost
			}
			sent := make(chan error)
			go func() { sent <- t.send(v.mb, w.to) }()
			if err := <-sent; err != nil {
				// Its status, if it has one, is not ours: it may have room tomorrow.
				v.err = fmt.Errorf("redirect to %s: %v", w.to, err)
				continue
			}
			if w.held {
				t.Journal.Done(w.key)
			}
			t.log().InfoContext(t.ctx, "redirected", "session", t.env.Session, "user", v.mb.User, "to", v.mb.Rcpt, "redirect", w.to)
		}
	}
}

func (t *transaction) send(mb *lmtp.Mailbox, to string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	if t.Sender == nil {
		return errNoSender
	}
	return t.Sender.Send(t.ctx, t.env.Sender, to, newRedirected(t.msg, mb.Rcpt))
}

// redirected is a message without the Return-Path and Delivered-To that this delivery has put
// before it, and with a Delivered-To that says where it was: by that a loop is known.
type redirected struct {
	lmtp.Message
	mark string
	own  int64 // octets at the beginning that are left out
}

func newRedirected(msg lmtp.Message, rcpt string) *redirected {
	m := &redirected{Message: msg, mark: "Delivered-To: " + rcpt + "\n"}
	r := bufio.NewReaderSize(msg.Open(), 4<<10)
	for _, name := range []string{"Return-Path:", "Delivered-To:"} {
		line, err := r.ReadSlice('\n')
		if err != nil || !strings.HasPrefix(string(line), name) {
			break
		}
		m.own += int64(len(line))
	}
	return m
}

func (m *redirected) Open() io.Reader {
	msg := m.Message.Open()
	if _, err := io.CopyN(io.Discard, msg, m.own); err != nil {
		return failing{err}
	}
	return io.MultiReader(strings.NewReader(m.mark), msg)
}

func (m *redirected) Size() int64 { return m.Message.Size() - m.own + int64(len(m.mark)) }

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// looped reports whether msg has been delivered to rcpt before. Whoever has passed it on
// since has put his Received above the mark, so that what this delivery itself put
// at the top is not taken for it.
func looped(msg lmtp.Message, rcpt string) bool {
	n := 0
	for name, value := range lmtp.Header(msg) {
		if n++; n <= 2 && (strings.EqualFold(name, "Return-Path") || strings.EqualFold(name, "Delivered-To")) {
			continue
		}
		if strings.EqualFold(name, "Delivered-To") && strings.EqualFold(value, rcpt) {
			return true
		}
	}
	return false
}
