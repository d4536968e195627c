package dovecot

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	handshakeTimeout = time.Minute // for the client's part of the handshake
	lineTimeout      = time.Minute // from the first octet of a line to its end
	writeTimeout     = 30 * time.Second

	// lastLook is how long a drained connection is still read, in all: a request
	// that is sent meanwhile deserves an answer, because a 2.3 login process takes
	// the end of the connection for a wrong password. Most clients of a busy server
	// log in so soon after they have come.
	lastLook = 300 * time.Millisecond
)

// idleBuffer is what a connection that says nothing costs, besides its goroutine.
const idleBuffer = 1024

// longAgo is a deadline that wakes a waiting Read.
var longAgo = time.Unix(1, 0)

// errDrained ends a connection that had nothing left to do while the server drains.
var errDrained = errors.New("drained")

// idler is what the accept loop's connections offer beyond net.Conn.
type idler interface{ SetIdle(idle bool) error }

// conn is what both protocols share: bounded lines in, whole lines out, and the
// knowledge whether anything is half done.
type conn struct {
	net.Conn
	r     *bufio.Reader
	idler idler // nil: never drained

	mu      sync.Mutex    // guards reading and open
	reading bool          // a line is being read or handled
	open    int           // what else keeps the connection from being idle
	quiet   chan struct{} // gets a value when open becomes 0

	// The reader's own:
	leave time.Time // when a drained connection is looked at for the last time
	shut  bool      // the peer can send no more

	wmu  sync.Mutex // one write at a time; guards werr
	werr error      // of the first write that failed
}

func newConn(c net.Conn) *conn {
	w := &conn{Conn: c, r: bufio.NewReaderSize(c, idleBuffer), quiet: make(chan struct{}, 1)}
	w.idler, _ = c.(idler)
	return w
}

// hold keeps the connection from being idle until release.
func (c *conn) hold() { c.count(+1) }

func (c *conn) release() { c.count(-1) }

func (c *conn) count(delta int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open += delta
	c.setIdle()
	if c.open == 0 {
		select {
		case c.quiet <- struct{}{}:
		default:
		}
	}
}

func (c *conn) setReading(reading bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = reading
	return c.setIdle()
}

// setIdle tells the accept loop; c.mu is held. An error means that there is
// nothing left to do and the server drains.
func (c *conn) setIdle() error {
	if c.idler == nil {
		return nil
	}
	return c.idler.SetIdle(!c.reading && c.open == 0)
}

// next returns the next line, cleaned. Errors: io.EOF at a good end
// between two lines, errDrained, errLineTooLong, the cause of ctx's end, or what
// the connection says. Whoever ends ctx has to wake the reader: see watch.
func (c *conn) next(ctx context.Context) (string, error) {
	if c.r.Buffered() == 0 {
		if err := c.await(ctx); err != nil {
			return "", err
		}
	}
	c.setReading(true)
	if err := c.readBy(ctx, time.Now().Add(lineTimeout)); err != nil {
		return "", err
	}
	line, err := readLine(c.r)
	if ctxErr := c.readBy(ctx, time.Time{}); ctxErr != nil {
		return "", ctxErr
	}
	return clean(line), err
}

// await waits for the first octet of a line.
func (c *conn) await(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if c.shut {
		return c.finished(ctx)
	}
	err := c.setReading(false)
	for err == nil {
		if _, err = c.r.Peek(1); err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		err = c.setReading(false) // nil: something has begun since the drain's wake
	}
	c.setReading(true)
	if c.leave.IsZero() {
		c.leave = time.Now().Add(lastLook)
	}
	if err := c.readBy(ctx, c.leave); err != nil {
		return err
	}
	if _, err := c.r.Peek(1); err == nil {
		return nil
	}
	c.shutRead()
	if err := c.readBy(ctx, time.Now().Add(lastLook)); err != nil {
		return err
	}
	if _, err := c.r.Peek(1); err != nil {
		return errDrained
	}
	return nil
}

// shutRead lets the peer send no more. What it has sent until then can still be
// read, and answered: nothing is lost between a last look and the close.
func (c *conn) shutRead() {
	nc := c.Conn
	if w, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc = w.NetConn()
	}
	if half, ok := nc.(interface{ CloseRead() error }); ok {
		c.shut = half.CloseRead() == nil
	}
}

// finished waits until all requests of a connection that brings no more have their answers.
func (c *conn) finished(ctx context.Context) error {
	for {
		if c.setReading(false) != nil {
			return errDrained
		}
		select {
		case <-c.quiet:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// readBy sets the read deadline, unless ctx has ended.
func (c *conn) readBy(ctx context.Context, t time.Time) error {
	c.SetReadDeadline(t)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// watch wakes the reader when ctx ends. It returns a function that stops watching.
func (c *conn) watch(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { c.SetReadDeadline(longAgo) })
}

// write sends whole lines.
func (c *conn) write(lines []byte) error {
	return c.writeWithin(lines, writeTimeout)
}

func (c *conn) writeWithin(lines []byte, timeout time.Duration) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.werr != nil {
		// Half a line may have gone out, and a peer that read nothing for so long
		// must not keep each of the other writers waiting as well.
		return c.werr
	}
	if timeout > 0 {
		c.SetWriteDeadline(time.Now().Add(timeout))
		defer c.SetWriteDeadline(time.Time{})
	}
	_, c.werr = c.Write(lines)
	return c.werr
}

// goodEnd turns the errors that end a connection well into nil.
func goodEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, errDrained) {
		return nil
	}
	return err
}
