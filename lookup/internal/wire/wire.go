// Package wire is what socketmap and tcp_table have in common: a connection with one
// request after the other, a question with a time limit, and a log that an outage
// does not flood.
package wire

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"dovepost/lookup"
)

const (
	// Patience is how long a peer may take over the rest of a request, or over taking a reply.
	Patience = 30 * time.Second

	defaultTimeout = 5 * time.Second
)

// Stream is a connection that is patient between requests and not within one.
type Stream struct {
	net.Conn
	within bool      // a request has begun
	armed  bool      // a read deadline is set
	wrote  time.Time // when the write deadline was set
}

// Read is called by the buffer when it has not enough of what is being read.
func (s *Stream) Read(p []byte) (int, error) {
	if s.within && !s.armed {
		if err := s.SetReadDeadline(time.Now().Add(Patience)); err != nil {
			return 0, err
		}
		s.armed = true
	}
	return s.Conn.Read(p)
}

// Write writes a reply, for which the peer has Patience, or up to a tenth less: to set
// a deadline for each reply costs more than to look at the clock.
func (s *Stream) Write(p []byte) (int, error) {
	if now := time.Now(); now.Sub(s.wrote) > Patience/10 {
		if err := s.SetWriteDeadline(now.Add(Patience)); err != nil {
			return 0, err
		}
		s.wrote = now
	}
	return s.Conn.Write(p)
}

// idler is a connection that is told when nothing is half done on it. While the
// server drains SetIdle(true) fails, and a Read of an idle connection is woken.
type idler interface{ SetIdle(idle bool) error }

// errDrain ends a connection because the server does.
var errDrain = errors.New("draining")

// Await waits for the first octet of the next request in r, which reads from s.
func (s *Stream) Await(r *bufio.Reader) error {
	s.within = false
	if s.armed {
		if err := s.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
		s.armed = false
	}
	idle, drains := s.Conn.(idler)
	if drains && idle.SetIdle(true) != nil {
		return errDrain
	}
	_, err := r.Peek(1)
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) && drains && idle.SetIdle(true) != nil {
		return errDrain
	}
	if drains {
		idle.SetIdle(false)
	}
	s.within = true
	return err
}

// End tells a good end of a connection, as Await reports it, from a bad one.
func End(err error) error {
	if err == io.EOF || err == errDrain {
		return nil
	}
	return err
}

// fresher is a map that has some answers ready. It reports whether it has one
// for key; if so the other two results are as those of Lookup. Asking it
// costs no memory, which is why it takes octets.
type fresher interface {
	Fresh(key []byte) (values []string, ok bool, err error)
}

// Ask asks m for key within timeout, 5 s if that is 0. It does not allocate when m
// has a fresh answer.
func Ask(ctx context.Context, m lookup.Map, key []byte, timeout time.Duration) ([]string, error) {
	if f, ok := m.(fresher); ok {
		if values, ok, err := f.Fresh(key); ok {
			return values, err
		}
	}
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return m.Lookup(ctx, string(key))
}

// Quiet lets a burst of log lines through and counts the rest, so that an
// outage of the database does not become one of the log.
type Quiet struct {
	mu     sync.Mutex // guards what follows
	second int64
	said   int
	unsaid int
}

// Allow reports whether a line may be logged now, and how many could not since the last one.
func (q *Quiet) Allow(now time.Time) (unsaid int, ok bool) {
	const burst = 10
	q.mu.Lock()
	defer q.mu.Unlock()
	if s := now.Unix(); s != q.second {
		q.second, q.said = s, 0
	}
	if q.said == burst {
		q.unsaid++
		return 0, false
	}
	q.said++
	unsaid, q.unsaid = q.unsaid, 0
	return unsaid, true
}
