// Package loop serves connections whose requests come now and then, and are mostly answered
// from memory, without waking a thread for each.
//
// A daemon that Postfix asks something twice a message is idle between the questions. In
// Go each of them then wakes the thread of the network poller, which wakes another one to look
// for work, and the runtime's monitor besides; on a virtual machine that takes far longer than
// the answer. Here one goroutine waits for all sockets with epoll(7), and for a moment after
// each request it does so behind the scheduler's back: it keeps its processor, so that nobody is
// woken but it. Handlers are written as ever, one for each connection, with Read and Write.
// They run as coroutines of the loop; a Read that has to wait goes back to it. Where many ask
// all the time, as lookupd is asked, a goroutine for each is faster: their threads do not go to sleep.
//
// A handler that waits for something else (a database, a lock, the disk) says so first, with
// MayWait: another goroutine takes the loop over, and the handler goes on in this one as any
// other would. One that keeps the loop without a word loses it after a moment all the same: the
// others depend on its manners for how soon they are answered, not for whether.
package loop

import (
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// After a request the loop keeps its processor for so many waits of so long. Stopping the
	// world for the garbage collector ends such a wait with a signal.
	eagerWaits = 10
	eagerWait  = 2 // ms

	// stall is for how long a handler may keep the loop, give or take as much.
	stall = 50 * time.Millisecond

	fetched = 64 // events at a time, and handlers that run before the sockets are looked at again
)

// Loop waits for the sockets of any number of connections.
type Loop struct {
	epoll int
	bell  int // wakes it to end

	// The goroutine that has the loop counts each handler that it resumes, and puts the number
	// here for as long as it is in the handler. Who takes the number out has the loop from then on.
	within   atomic.Uint64
	watched  atomic.Uint64 // what within was when the watch looked last
	sleeping atomic.Bool   // waits, with its processor given back
	watch    *time.Timer   // looks after the loop unless it sleeps

	// Of the goroutine that has the loop.
	resumed uint64
	empty   int // eager waits without an event
	events  [fetched]unix.EpollEvent
	room    [fetched]*Conn // what pending begins with

	mu      sync.Mutex // guards what follows
	pending []*Conn    // to be resumed, in this order
	conns   map[int32]*Conn
	closed  bool
}

var reserve sync.Once

// New returns a loop that runs until Close.
func New() (*Loop, error) {
	l := &Loop{conns: map[int32]*Conn{}}
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if l.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(l.epoll)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	if err := l.control(unix.EPOLL_CTL_ADD, l.bell, unix.EPOLLIN); err != nil {
		unix.Close(l.epoll)
		unix.Close(l.bell)
		return nil, err
	}
	// It keeps one of the scheduler's processors also while it waits.
	reserve.Do(func() { runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1) })
	l.watch = time.AfterFunc(time.Hour, l.look)
	l.watch.Reset(stall) // not before look can see the timer
	go l.run()
	return l, nil
}

// Close ends the loop. Its connections must have ended before.
func (l *Loop) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	_, err := unix.Write(l.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	return err
}

// end is what the goroutine does that has the loop when it is closed.
func (l *Loop) end() {
	l.sleeping.Store(true)
	l.watch.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	unix.Close(l.epoll)
	unix.Close(l.bell)
}

// run has the loop until a handler keeps it.
func (l *Loop) run() {
	for {
		c := l.take()
		if c == nil {
			l.end()
			return
		}
		l.resumed++
		number := l.resumed
		c.number.Store(number)
		l.within.Store(number)
		again := c.resume()
		leads := l.within.CompareAndSwap(number, 0)
		switch {
		case again && leads:
			l.push(c)
		case again:
			c.run()
		}
		if !leads {
			return
		}
	}
}

// lose takes the loop from the handler with that number, if it has it.
func (l *Loop) lose(number uint64) {
	if number != 0 && l.within.CompareAndSwap(number, 0) {
		go l.run()
	}
}

// look takes the loop from a handler that has had it since the last look.
func (l *Loop) look() {
	if l.sleeping.Load() {
		return
	}
	number := l.within.Load()
	if l.watched.Swap(number) == number {
		l.lose(number)
	}
	l.watch.Reset(stall)
}

// take returns the next connection to be resumed; nil when the loop is closed.
func (l *Loop) take() *Conn {
	if l.resumed%fetched == 0 { // those who always have something to do are not all
		l.fetch(0)
	}
	for {
		l.mu.Lock()
		if l.closed {
			l.mu.Unlock()
			return nil
		}
		if len(l.pending) > 0 {
			c := l.pending[0]
			l.pending[0] = nil
			l.pending = l.pending[1:]
			l.mu.Unlock()
			return c
		}
		l.pending = l.room[:0]
		l.mu.Unlock()
		l.wait()
	}
}

func (l *Loop) push(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending = append(l.pending, c)
}

// wait waits for events, eagerly at first.
func (l *Loop) wait() {
	if l.empty < eagerWaits {
		if l.fetch(eagerWait) {
			l.empty = 0
		} else {
			l.empty++
		}
		return
	}
	l.sleeping.Store(true)
	n, _ := unix.EpollWait(l.epoll, l.events[:], -1)
	l.sleeping.Store(false)
	l.watch.Reset(stall)
	l.empty = 0
	l.deliver(n)
}

// fetch waits for events for so many milliseconds, and does not tell the scheduler: for it this goroutine runs.
func (l *Loop) fetch(timeout int) bool {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.events[0])),
		fetched, uintptr(timeout), 0, 0)
	if errno != 0 { // a signal
		return false
	}
	l.deliver(int(n))
	return n > 0
}

// deliver tells the connections of the first n events, and notes those who have waited for them.
func (l *Loop) deliver(n int) {
	if n <= 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events[:n] {
		if c := l.conns[e.Fd]; c != nil && c.tell(e.Events) {
			l.pending = append(l.pending, c)
		}
	}
}

// know has c told of the events of its descriptor.
func (l *Loop) know(fd int, c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[int32(fd)] = c
}

func (l *Loop) forget(fd int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, int32(fd))
}

// control changes what is waited for at fd.
func (l *Loop) control(op, fd int, events uint32) error {
	if fd > math.MaxInt32 {
		return fmt.Errorf("epoll_ctl: descriptor %d", fd)
	}
	err := unix.EpollCtl(l.epoll, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
	if err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}
