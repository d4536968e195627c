package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"dovepost/lmtp"
)

// transaction is what MAIL begins and RSET, a delivery or the end of the
// connection ends.
type transaction struct {
	id        string
	env       *lmtp.Envelope
	begun     time.Time
	announced int64       // SIZE= of MAIL; 0: none
	rcpts     []recipient // accepted
	tried     int         // RCPT commands that named a path
	spool     *spool      // nil before DATA or the first BDAT
	decoder   decoder     // of BDAT
	failed    bool        // a BDAT was refused, so all others are too
}

// recipient is one accepted RCPT.
type recipient struct {
	address Address
	orcpt   Address
	text    string // address as replies and headers write it
	id      string
	mailbox *lmtp.Mailbox
	first   int    // index of the recipient that this one repeats, or -1
	reply   string // after its delivery
}

func (s *session) newTransaction(from Address) *transaction {
	id := s.id
	if s.begun > 1 {
		id += ":T" + strconv.Itoa(s.begun)
	}
	return &transaction{id: id, begun: s.h.now(), env: &lmtp.Envelope{
		Sender: from.String(), Hello: s.hello, RemoteAddr: s.remote, TLS: tlsText(s.secure), Session: id,
		Queue: s.forward.ident,
	}}
}

// find returns the index of the first recipient that says the same, or -1. The
// domain of an address does not depend on case, its local part may.
func (t *transaction) find(to, orcpt Address) int {
	for i := range t.rcpts {
		r := &t.rcpts[i]
		if r.first < 0 && r.address.Local == to.Local && strings.EqualFold(r.address.Domain, to.Domain) && r.orcpt == orcpt {
			return i
		}
	}
	return -1
}

// startMessage opens the spool, and waits until there is room for what MAIL announced. The headers that
// delivery adds come first in it: they are the same for all recipients. Errors: errNoSpace.
func (s *session) startMessage(ctx context.Context) error {
	s.tx.spool = newSpool(s.h, ctx.Done())
	var header [512]byte // a usual one
	s.tx.spool.begin(s.h.appendHeader(header[:0], s.tx))
	if s.h.MaxSize > 0 {
		s.tx.spool.max = s.tx.spool.size + s.h.MaxSize
	}
	return s.tx.spool.reserve(s.tx.announced)
}

// stopMessage gives the spool back.
func (s *session) stopMessage() {
	s.tx.spool.release()
	s.tx.spool = nil
}

// endTransaction forgets the transaction and what XFORWARD said of it, and gives back what it held.
func (s *session) endTransaction() {
	s.forward = forward{}
	if s.tx == nil {
		return
	}
	if s.tx.spool != nil {
		s.tx.spool.release()
	}
	for i := range s.tx.rcpts {
		s.h.leave(s.tx.rcpts[i].mailbox.User)
	}
	s.tx = nil
}

// deliver hands the message to the deliverer, for all recipients at once, and answers
// for each of them in their order. The client may be gone by now; a message that was
// taken whole is delivered all the same. RFC 2033 4.2.
func (s *session) deliver(ctx context.Context) {
	tx := s.tx
	if err := tx.spool.finish(); err != nil {
		status := s.spoolStatus(err)
		for i := range tx.rcpts {
			tx.rcpts[i].reply = s.fail(&tx.rcpts[i], status)
			s.h.observe(resultOf(status), 0)
		}
	} else {
		s.store(ctx)
	}
	for i := range tx.rcpts {
		s.accept(tx.rcpts[i].reply)
	}
	s.endTransaction()
	s.ended = true
}

// store delivers the message, which is whole, and words the replies.
func (s *session) store(ctx context.Context) {
	tx := s.tx
	to := make([]*lmtp.Mailbox, 0, len(tx.rcpts))
	for i := range tx.rcpts {
		if tx.rcpts[i].first < 0 {
			to = append(to, tx.rcpts[i].mailbox)
		}
	}
	id, dated := topReceived(tx.spool.head(maxHead))
	tx.env.Queue, tx.env.Dated = cmp.Or(tx.env.Queue, id), dated
	start := time.Now()
	errs := s.handOver(ctx, to)
	took := time.Since(start)
	for i := range tx.rcpts {
		r := &tx.rcpts[i]
		if r.first >= 0 {
			r.reply = tx.rcpts[r.first].reply
			continue
		}
		r.reply = s.outcome(r, errs[0], took)
		errs = errs[1:]
	}
}

// handOver calls the deliverer; a panic there is an error for every recipient.
func (s *session) handOver(ctx context.Context, to []*lmtp.Mailbox) (errs []error) {
	threads := min(len(to), lmtp.MaxParallel)
	if !s.h.enterDisk(threads, ctx.Done()) {
		for range to {
			errs = append(errs, errBusy)
		}
		return errs
	}
	defer s.h.leaveDisk(threads)
	defer func() {
		if p := recover(); p != nil {
			err := panicked(p)
			errs = make([]error, len(to))
			for i := range errs {
				errs[i] = err
			}
		}
	}()
	return s.h.Deliverer.Deliver(ctx, s.tx.env, to, s.tx.spool)
}

// outcome logs what became of the message for one recipient, and returns the reply.
func (s *session) outcome(r *recipient, err error, took time.Duration) string {
	level, result, reply := slog.LevelInfo, "delivered", ""
	status := statusOf(err)
	switch {
	case err == nil:
		reply = "250 2.0.0 <" + r.text + "> " + r.id + " Saved"
	case status != nil:
		level, result = slog.LevelWarn, resultOf(status)
		reply = s.fail(r, status)
	default:
		level, result = slog.LevelError, "temp"
		reply = s.fail(r, internalError(s.h.now()))
	}
	attrs := []slog.Attr{
		slog.String("session", r.id), slog.String("from", s.tx.env.Sender), slog.String("to", r.text),
		slog.String("user", r.mailbox.User), slog.Int64("size", s.tx.spool.size),
		slog.String("queue", s.tx.env.Queue), slog.String("detail", r.mailbox.Detail), slog.String("result", result), slog.Duration("took", took),
	}
	if s.forward.addr != "" {
		attrs = append(attrs, slog.String("client", s.forward.addr))
	}
	if err != nil {
		attrs = append(attrs, slog.Any("err", err))
	}
	s.logDelivery(level, attrs)
	s.h.observe(result, took)
	return reply
}

// logDelivery writes the line of a delivery. Unlike Logger.LogAttrs it does not look for the place in the
// source that it is called from.
func (s *session) logDelivery(level slog.Level, attrs []slog.Attr) {
	ctx, h := context.Background(), s.log.Handler()
	if !h.Enabled(ctx, level) {
		return
	}
	r := slog.NewRecord(time.Now(), level, "delivery", 0)
	r.AddAttrs(attrs...)
	_ = h.Handle(ctx, r)
}

// statusOf returns the refusal that err is, or nil for an error that the client is not told.
func statusOf(err error) *lmtp.Status {
	if err == nil {
		return nil
	}
	var status *lmtp.Status
	if errors.As(err, &status) && status.Code >= 400 && status.Code < 600 {
		return status
	}
	return nil
}

// resultOf is the label of a refusal in the log and the metrics.
func resultOf(status *lmtp.Status) string {
	if status.Temporary() {
		return "temp"
	}
	return "refused"
}

// fail words a status for one recipient.
func (s *session) fail(r *recipient, status *lmtp.Status) string {
	return oneLine(fmt.Sprintf("%d %s <%s> %s", status.Code, status.Enhanced, r.text, status.Text))
}

// spoolStatus tells the client what became of a message that was not taken.
func (s *session) spoolStatus(err error) *lmtp.Status {
	switch {
	case errors.Is(err, errTooLarge):
		s.log.Warn("message refused", "session", s.tx.id, "from", s.tx.env.Sender, "err", err)
		return &lmtp.Status{Code: 552, Enhanced: "5.3.4", Text: "Message size exceeds administrative limit"}
	case errors.Is(err, errNoSpace):
		s.log.Warn("message deferred", "session", s.tx.id, "from", s.tx.env.Sender, "err", err)
	default:
		s.log.Error("message deferred", "session", s.tx.id, "from", s.tx.env.Sender, "err", err)
	}
	return &lmtp.Status{Code: 452, Enhanced: "4.3.1", Text: "Insufficient system storage"}
}

// internalError is all that the outside learns of an error: when it was.
func internalError(now time.Time) *lmtp.Status {
	return &lmtp.Status{Code: 451, Enhanced: "4.2.0", Text: "Internal error occurred. " +
		"Refer to server log for more information. [" + now.Format(time.DateTime) + "]"}
}

// panicked turns a panic into an error for the log.
func panicked(p any) error {
	return fmt.Errorf("panic: %v\n%s", p, debug.Stack())
}

// oneLine keeps a reply from becoming two.
func oneLine(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, s)
}
