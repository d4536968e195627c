package mysql

import (
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// pollTime is how long an answer is looked for before the thread goes to sleep. A
	// processor that sleeps takes as long as that to wake, and a query on a primary
	// key hardly longer.
	pollTime = 100 * time.Microsecond
	// After pollMisses answers that took longer, only one in pollAgain is looked for.
	pollMisses, pollAgain = 4, 16
	// pollAlone is for how many answers in a row nobody else may have asked: who looks
	// for an answer keeps the processor from those who would ask with him.
	pollAlone = 8
)

// asking is how many callers wait for an answer, and alone for how many answers in a row
// it was one; no more than pollAlone are counted.
var asking, alone atomic.Int32

// polling says that a thread looks for an answer: one of them is enough.
var polling atomic.Bool

// pollConn is a connection whose Read looks for octets for a moment, and lets others
// have the processor meanwhile, before it waits. Its line is told when something has come.
type pollConn struct {
	net.Conn
	raw    syscall.RawConn
	line   *line
	polls  bool // if there is another processor, for the server
	misses int  // answers in a row that did not come within pollTime
}

// poll returns c, polled if it can be.
func poll(c net.Conn, l *line) net.Conn {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return c
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return c
	}
	return &pollConn{Conn: c, raw: raw, line: l, polls: runtime.NumCPU() > 1}
}

// SyscallConn gives access to the socket.
func (c *pollConn) SyscallConn() (syscall.RawConn, error) { return c.raw, nil }

// Read is net.Conn's.
func (c *pollConn) Read(p []byte) (n int, err error) {
	if c.line.patience > 0 {
		c.Conn.SetReadDeadline(time.Now().Add(c.line.patience))
	}
	if n, err = c.read(p); n > 0 {
		c.line.heard.Add(1)
	}
	return n, err
}

func (c *pollConn) read(p []byte) (n int, err error) {
	if !c.polls || !lonely() {
		return c.Conn.Read(p)
	}
	if c.misses >= pollMisses && c.misses%pollAgain != 0 {
		c.misses++
		return c.Conn.Read(p)
	}
	if len(p) == 0 || !polling.CompareAndSwap(false, true) {
		return c.Conn.Read(p)
	}
	found := false
	start := time.Now()
	failed := c.raw.Read(func(fd uintptr) bool {
		for {
			n, err = syscall.Read(int(fd), p)
			switch {
			case err == syscall.EINTR:
			case err != syscall.EAGAIN:
				found = true
				return true
			case time.Since(start) > pollTime:
				return true
			default:
				syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0)
			}
		}
	})
	polling.Store(false)
	switch {
	case failed != nil:
		return 0, failed
	case !found:
		c.misses++
		return c.Conn.Read(p)
	}
	c.misses = 0
	switch {
	case err != nil:
		return 0, &net.OpError{Op: "read", Net: c.LocalAddr().Network(), Err: err}
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// lonely reports whether nobody else asks, and did lately.
func lonely() bool {
	switch {
	case asking.Load() > 1:
		alone.Store(0)
		return false
	case alone.Load() < pollAlone:
		alone.Add(1)
		return false
	}
	return true
}
