package tcptable

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// stream is a connection that is patient between requests and not within one.
type stream struct {
	net.Conn
	within bool // a request has begun
	armed  bool // a read deadline is set
}

// Read is called by the buffer when it has not enough of what is being read.
func (s *stream) Read(p []byte) (int, error) {
	if s.within && !s.armed {
		if err := s.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return 0, err
		}
		s.armed = true
	}
	return s.Conn.Read(p)
}

// idler is a connection that is told when nothing is half done on it. While the
// server drains SetIdle(true) fails, and a Read of an idle connection is woken.
type idler interface{ SetIdle(idle bool) error }

// errDrain ends a connection because the server does.
var errDrain = errors.New("draining")

// await waits for the first octet of the next request.
func (s *stream) await(r *bufio.Reader) error {
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

// end tells a good end of a connection from a bad one.
func end(err error) error {
	if err == io.EOF || err == errDrain {
		return nil
	}
	return err
}
