package serve

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

// Conn is the connection that a Handler gets.
type Conn struct {
	net.Conn

	mu       sync.Mutex // guards the fields below and the order of read deadlines
	idle     bool
	draining bool
	deadline time.Time // the handler's own read deadline
}

// longAgo is a deadline that wakes a waiting Read.
var longAgo = time.Unix(1, 0)

// SetIdle tells whether the handler is between two requests with nothing half
// done. A drain wakes the Read of an idle connection with os.ErrDeadlineExceeded
// and leaves all others alone. While the server drains, SetIdle(true) returns
// ErrDraining. It may be called from any goroutine.
func (c *Conn) SetIdle(idle bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = idle
	if !c.draining {
		return nil
	}
	if idle {
		c.Conn.SetReadDeadline(longAgo)
		return ErrDraining
	}
	return c.Conn.SetReadDeadline(c.deadline)
}

func (c *Conn) startDrain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	if c.idle {
		c.Conn.SetReadDeadline(longAgo)
	}
}

// SetReadDeadline is net.Conn's; a drain comes before it.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	if c.draining && c.idle {
		return nil
	}
	return c.Conn.SetReadDeadline(t)
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.Conn.SetWriteDeadline(t))
}

// MayWait says that the handler is about to wait for something other than this
// connection. A connection of a Loop that does not say so keeps the others waiting.
func (c *Conn) MayWait() {
	if w, ok := c.Conn.(interface{ MayWait() }); ok {
		w.MayWait()
	}
}

// SyscallConn gives access to the socket, for its peer's credentials.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return sc.SyscallConn()
}

// NetConn returns the connection below.
func (c *Conn) NetConn() net.Conn { return c.Conn }
