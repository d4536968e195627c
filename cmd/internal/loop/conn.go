package loop

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reads is how often a handler reads without waiting before the others have a turn.
const reads = 32

// quietly is what a connection is told of. Each time that a peer takes what was written would be an event, too.
const quietly = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET

// wish is why a handler goes back to who has resumed it.
type wish int

const (
	none wish = iota
	readable
	writable
	turn // of the others
)

// Conn is a connection whose handler is a coroutine. Read and Write are for the handler
// only, the other methods for any goroutine.
type Conn struct {
	loop          *Loop
	fd            int
	local, remote net.Addr
	next          func() (wish, bool) // resumes the handler
	number        atomic.Uint64       // of this resumption, see Loop; 0: not by the loop

	// Of the handler.
	yield   func(wish) bool
	drained bool // the last read took all that there was
	reads   int  // since it waited last

	mu              sync.Mutex // guards what follows
	in, out         bool       // there was an event since the last read, or write
	over            bool       // there is an end or an error to be read
	waiting         wish
	closed          bool
	readBy, writeBy time.Time
	timer           *time.Timer // ends the waiting; nil until one was needed
}

// Adopt takes a connection over, and closes nc, which would be waited for by others, too. After an error nc is as it was.
func (l *Loop) Adopt(nc net.Conn) (*Conn, error) {
	fd, err := descriptor(nc)
	if err != nil {
		return nil, err
	}
	c := &Conn{loop: l, fd: fd, local: nc.LocalAddr(), remote: nc.RemoteAddr()}
	l.know(fd, c)
	if err := l.control(unix.EPOLL_CTL_ADD, fd, quietly); err != nil {
		c.end()
		return nil, err
	}
	nc.Close()
	return c, nil
}

// Serve has f handle the connection, which ends with it. It does not wait for f, and is called once.
func (c *Conn) Serve(f func()) {
	next, _ := iter.Pull(func(yield func(wish) bool) {
		c.yield = yield
		f()
	})
	c.mu.Lock()
	c.next = next
	c.mu.Unlock()
	go c.run()
}

// descriptor returns a descriptor of its own for nc's socket.
func descriptor(nc net.Conn) (fd int, err error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var dup error
	err = raw.Control(func(old uintptr) { fd, dup = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(err, dup)
}

// run resumes the handler until it waits for the socket or has ended.
func (c *Conn) run() {
	c.number.Store(0)
	for c.resume() {
	}
}

// resume resumes the handler once. true: it is to be resumed again. If it is not, the handler has ended or
// another goroutine resumes it, perhaps by now.
func (c *Conn) resume() bool {
	w, ok := c.next()
	if !ok {
		c.end()
		return false
	}
	return w == turn || !c.park(w)
}

// end gives the socket back.
func (c *Conn) end() {
	c.mu.Lock()
	fd := c.fd
	c.closed, c.fd = true, -1
	c.mu.Unlock()
	if fd >= 0 {
		c.loop.forget(fd)
		unix.Close(fd)
	}
}

// park leaves the handler to the next event, or to its deadline. false: there is nothing to wait for.
func (c *Conn) park(w wish) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.ready(w) {
		return false
	}
	if by := c.deadline(w); !by.IsZero() {
		left := time.Until(by)
		if left <= 0 {
			return false
		}
		c.alarm(left)
	}
	c.waiting = w
	return true
}

// alarm has expire called. c.mu is held.
func (c *Conn) alarm(after time.Duration) {
	if c.timer == nil {
		c.timer = time.AfterFunc(after, c.expire)
	} else {
		c.timer.Reset(after)
	}
}

func (c *Conn) deadline(w wish) time.Time {
	if w == writable {
		return c.writeBy
	}
	return c.readBy
}

// tell is told of events, and reports whether the handler has waited for them.
func (c *Conn) tell(events uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = c.over || events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0
	c.in = c.in || events&unix.EPOLLIN != 0
	c.out = c.out || events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0
	return c.ready(c.waiting) && c.wake()
}

func (c *Conn) ready(w wish) bool { return w == readable && (c.in || c.over) || w == writable && c.out }

// wake ends the waiting; who gets true resumes the handler. c.mu is held.
func (c *Conn) wake() bool {
	waited := c.waiting != none
	if waited && !c.deadline(c.waiting).IsZero() && c.timer != nil {
		c.timer.Stop()
	}
	c.waiting = none
	return waited
}

// expire ends the waiting if its time is over.
func (c *Conn) expire() {
	c.mu.Lock()
	w := c.waiting != none && past(c.deadline(c.waiting)) && c.wake()
	c.mu.Unlock()
	if w {
		c.run()
	}
}

func past(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

// may reports why there is nothing to be read or written any more.
func (c *Conn) may(w wish) error {
	switch {
	case c.closed:
		return net.ErrClosed
	case past(c.deadline(w)):
		return os.ErrDeadlineExceeded
	}
	return nil
}

// MayWait says that the handler is about to wait for something other than its socket. It may be
// called from any goroutine.
func (c *Conn) MayWait() { c.loop.lose(c.number.Load()) }

// Read is net.Conn's.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		c.mu.Lock()
		err := c.may(readable)
		try := !c.drained || c.in || c.over
		c.in = false
		c.mu.Unlock()
		switch {
		case err != nil:
			return 0, err
		case !try:
			c.wait(readable)
			continue
		case c.reads == reads:
			c.wait(turn)
		}
		c.reads++
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(c.fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		c.drained = errno == unix.EAGAIN || errno == 0 && int(n) < len(p)
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			c.mu.Lock()
			c.over = false
			c.mu.Unlock()
			c.wait(readable)
		case errno != 0:
			return 0, fmt.Errorf("read: %w", errno)
		case n == 0:
			return 0, io.EOF
		default:
			return int(n), nil
		}
	}
}

func (c *Conn) wait(w wish) {
	c.reads = 0
	c.yield(w)
}

// Write is net.Conn's.
func (c *Conn) Write(p []byte) (n int, err error) {
	full := false
	for n < len(p) {
		c.mu.Lock()
		err := c.may(writable)
		c.out = false
		c.mu.Unlock()
		if err != nil {
			return n, err
		}
		wrote, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(c.fd), uintptr(unsafe.Pointer(&p[n])), uintptr(len(p)-n))
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			if !full { // from now on
				full = true
				if err := c.loop.control(unix.EPOLL_CTL_MOD, c.fd, quietly|unix.EPOLLOUT); err != nil {
					return n, err
				}
			}
			c.wait(writable)
		case errno != 0:
			return n, fmt.Errorf("write: %w", errno)
		default:
			n += int(wrote)
		}
	}
	if full {
		err = c.loop.control(unix.EPOLL_CTL_MOD, c.fd, quietly)
	}
	return n, err
}

// Close ends the connection; a Read or Write of the handler fails. The socket is given back when the handler has ended.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return net.ErrClosed
	}
	if c.next == nil { // nobody serves it
		c.mu.Unlock()
		c.end()
		return nil
	}
	c.closed = true
	unix.Shutdown(c.fd, unix.SHUT_RDWR)
	w := c.wake()
	c.mu.Unlock()
	if w {
		go c.run()
	}
	return nil
}

// LocalAddr is net.Conn's.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is net.Conn's.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline is net.Conn's.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline is net.Conn's.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(readable, &c.readBy, t) }

// SetWriteDeadline is net.Conn's.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(writable, &c.writeBy, t) }

func (c *Conn) setDeadline(w wish, by *time.Time, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	waits := c.waiting == w
	if waits && !by.IsZero() {
		c.timer.Stop()
	}
	*by = t
	switch {
	case !waits || t.IsZero():
	case past(t):
		if c.wake() {
			go c.run()
		}
	default:
		c.alarm(time.Until(t))
	}
	return nil
}
