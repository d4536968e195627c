package delegation

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"dovepost/policy"
)

const (
	requestTimeout = 30 * time.Second // for the rest of a request, and for the answer's way out
	decideTimeout  = 8 * time.Second
)

// Handler answers policy requests.
type Handler struct {
	Decider policy.Decider

	// Timeout bounds one decision; 0 is 8 s, below the 10 s after which the
	// recommended main.cf gives up waiting. The Decider sees it as the deadline
	// of its context, and must heed it.
	Timeout time.Duration

	Log     *slog.Logger                            // nil: slog.Default()
	Observe func(result string, took time.Duration) // "dunno", "reject", "4xx" ..., or "error"; may be nil
}

// idler is a connection that can be drained while no request is open.
type idler interface{ SetIdle(idle bool) error }

// ServeConn answers the requests of one connection, one after the other, until the
// client closes it or the server drains; then it returns nil. Errors: what broke
// the protocol or the connection.
func (h *Handler) ServeConn(ctx context.Context, c net.Conn) error {
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	r := bufio.NewReaderSize(c, maxLine)
	var reply []byte
	for {
		if more, err := awaitRequest(ctx, c, r); !more {
			return err
		}
		c.SetReadDeadline(time.Now().Add(requestTimeout))
		if ctx.Err() != nil {
			return nil
		}
		req, err := readRequest(r)
		if err != nil {
			return err
		}
		reply = appendAction(reply[:0], h.decide(ctx, c, req))
		c.SetWriteDeadline(time.Now().Add(requestTimeout))
		if _, err := c.Write(reply); err != nil {
			return err
		}
	}
}

// awaitRequest waits for the first octet of a request. false and nil is a good
// end: the client has gone, or the server drains.
func awaitRequest(ctx context.Context, c net.Conn, r *bufio.Reader) (more bool, err error) {
	idle := func(bool) error { return nil }
	if i, ok := c.(idler); ok {
		idle = i.SetIdle
	}
	c.SetReadDeadline(time.Time{})
	if ctx.Err() != nil || idle(true) != nil {
		return false, nil
	}
	_, err = r.Peek(1)
	switch {
	case err == nil:
		return true, idle(false)
	case errors.Is(err, io.EOF), ctx.Err() != nil:
		return false, nil
	case errors.Is(err, os.ErrDeadlineExceeded) && idle(true) != nil:
		return false, nil
	default:
		return false, err
	}
}

// decide asks the Decider, within its time, and accounts for the answer.
func (h *Handler) decide(ctx context.Context, c net.Conn, r *policy.Request) policy.Action {
	started := time.Now()
	timeout := h.Timeout
	if timeout == 0 {
		timeout = decideTimeout
	}
	w := &waiting{Context: ctx, by: started.Add(timeout)}
	if c, ok := c.(waiter); ok {
		w.before = c.MayWait
	}
	defer w.end()
	action, err := h.safely(w, r)
	h.account(r, action, err, time.Since(started))
	return action
}

// safely keeps a panic in a rule from ending the connection: mail goes on.
func (h *Handler) safely(ctx context.Context, r *policy.Request) (action policy.Action, err error) {
	defer func() {
		if p := recover(); p != nil {
			action, err = policy.Dunno, fmt.Errorf("panic: %v", p)
		}
	}()
	return h.Decider.Decide(ctx, r)
}

// account writes the log's line and counts the answer.
func (h *Handler) account(r *policy.Request, a policy.Action, err error, took time.Duration) {
	log := h.Log
	if log == nil {
		log = slog.Default()
	}
	answer := a.String()
	level, result := slog.LevelInfo, a.Kind()
	switch {
	case err != nil:
		level, result = slog.LevelWarn, "error"
		if told(err) && answer == "DUNNO" {
			level = slog.LevelDebug
		}
	case answer == "DUNNO":
		level = slog.LevelDebug
	}
	if h.Observe != nil {
		h.Observe(result, took)
	}
	if !log.Enabled(context.Background(), level) {
		return
	}
	attrs := []slog.Attr{slog.String("action", answer)}
	if a.Rule != "" {
		attrs = append(attrs, slog.String("rule", a.Rule))
	}
	if err != nil {
		attrs = append(attrs, slog.String("err", err.Error()))
	}
	log.LogAttrs(context.Background(), level, "policy", append(attrs,
		slog.String("state", r.State), slog.String("client", r.ClientAddress.String()), slog.String("login", r.SASLUsername),
		slog.String("sender", r.Sender), slog.String("recipient", r.Recipient), slog.String("queue_id", r.QueueID),
		slog.String("instance", r.Instance), slog.Duration("took", took))...)
}

// told reports whether the log has all that err is made of, so that an outage does not
// fill it with a line for each request.
func told(err error) bool {
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for _, err := range all {
		if !errors.Is(err, policy.ErrAway) {
			return false
		}
	}
	return true
}
