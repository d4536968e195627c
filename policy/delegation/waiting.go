package delegation

import (
	"context"
	"sync"
	"time"
)

// waiter is a connection that is told when its handler is about to wait for something else.
type waiter interface{ MayWait() }

// waiting is the context of one decision. Most decisions are made from memory and wait for
// nothing: a timer is set, and the connection is told, only when somebody asks for Done.
type waiting struct {
	context.Context // of the connection
	by              time.Time
	before          func() // called before the first wait; may be nil

	mu    sync.Mutex      // guards what follows
	timed context.Context // nil: nobody has waited
	stop  context.CancelFunc
	ended bool
}

// Deadline is context.Context's.
func (w *waiting) Deadline() (time.Time, bool) { return w.by, true }

// Done is context.Context's.
func (w *waiting) Done() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timed == nil {
		if w.before != nil {
			w.before()
		}
		w.timed, w.stop = context.WithDeadline(w.Context, w.by)
		if w.ended {
			w.stop()
		}
	}
	return w.timed.Done()
}

// Err is context.Context's.
func (w *waiting) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.timed != nil:
		return w.timed.Err()
	case w.ended:
		return context.Canceled
	case !time.Now().Before(w.by):
		return context.DeadlineExceeded
	}
	return w.Context.Err()
}

// end is called when the decision is made. What is left of it has to stop.
func (w *waiting) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	if w.stop != nil {
		w.stop()
	}
}
