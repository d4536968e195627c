// Package breaker keeps those who must not wait from asking a server that does not
// answer.
//
// The first question that fails takes the server away from all others: they are told
// so at once, until a probe in the background has seen it answer. So a database that
// hangs costs a few messages a moment, and those after them nothing.
package breaker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"dovepost/policy"
)

// ErrAway is wrapped by the error of a question that was not asked, because the server
// does not answer. The log has it already.
var ErrAway = policy.ErrAway

const (
	defaultLimit = time.Second
	// A server that is away is probed after firstPause. One that fails again soon after a
	// good probe answers probes only, and is left alone for longer and longer.
	firstPause = time.Second
	lastPause  = 30 * time.Second
)

// Breaker stands before one server. Its fields are set before the first question.
type Breaker struct {
	Name  string                          // of the server, for log and errors
	Limit time.Duration                   // for one question; 0 is 1 s
	Probe func(ctx context.Context) error // asks the server something easy
	Away  func(err error) bool            // whether an error means that the server did not answer; nil: it does. One of time always does
	Log   *slog.Logger                    // nil: slog.Default()

	away atomic.Pointer[away] // nil: the server answers

	mu     sync.Mutex // guards what follows
	pause  time.Duration
	back   time.Time     // when a probe was last answered
	stop   chan struct{} // nil: nobody probes
	done   chan struct{}
	closed bool
}

// away is why nobody is let through.
type away struct{ why error }

// Do has ask ask the server, which it must do within the time of its context: Limit at
// most. Errors: ErrAway at once while the server is away; else those of ask.
func (b *Breaker) Do(ctx context.Context, ask func(context.Context) error) error {
	start := time.Now()
	err := b.Try(ctx, ask)
	if err != nil && !errors.Is(err, ErrAway) && b.away.Load() == nil && b.failed(ctx, err, time.Since(start)) {
		b.trip(err)
	}
	return err
}

// Try is Do for what nobody waits for: its failure takes the server away from nobody. A
// statement that waits for a lock, as while a backup holds the tables, says nothing about the others.
func (b *Breaker) Try(ctx context.Context, ask func(context.Context) error) error {
	if a := b.away.Load(); a != nil {
		return fmt.Errorf("%s: %w: %w", b.Name, ErrAway, a.why)
	}
	limited, cancel := context.WithTimeout(ctx, b.limit())
	defer cancel()
	return ask(limited)
}

func (b *Breaker) limit() time.Duration {
	if b.Limit > 0 {
		return b.Limit
	}
	return defaultLimit
}

// failed reports whether err is the server's failure to answer. It had its chance if it
// was waited for long enough: the caller may have come late.
func (b *Breaker) failed(ctx context.Context, err error, took time.Duration) bool {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return took >= b.limit()/2
	case ctx.Err() != nil, errors.Is(err, context.Canceled):
		return false
	case b.Away == nil:
		return true
	}
	return b.Away(err)
}

// trip takes the server away and begins to probe.
func (b *Breaker) trip(why error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stop != nil || b.closed {
		return
	}
	if time.Since(b.back) > lastPause {
		b.pause = firstPause
	} else {
		b.pause = min(2*b.pause, lastPause)
	}
	b.away.Store(&away{why})
	b.stop, b.done = make(chan struct{}), make(chan struct{})
	b.log().Warn("a server does not answer, and is not asked until it does", "server", b.Name, "err", why)
	go b.probe(b.stop, b.done, b.pause)
}

// probe asks until there is an answer.
func (b *Breaker) probe(stop, done chan struct{}, pause time.Duration) {
	defer close(done)
	start := time.Now()
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-stop:
			return
		case <-timer.C:
		}
		ctx, cancel := context.WithTimeout(context.Background(), b.limit())
		err := b.Probe(ctx)
		cancel()
		if err == nil {
			b.mu.Lock()
			b.stop, b.back = nil, time.Now()
			b.away.Store(nil)
			b.mu.Unlock()
			b.log().Info("a server answers again", "server", b.Name, "after", time.Since(start))
			return
		}
		timer.Reset(firstPause)
	}
}

// Close ends the probing. Nobody may ask any more.
func (b *Breaker) Close() {
	b.mu.Lock()
	stop, done := b.stop, b.done
	b.closed, b.stop = true, nil
	b.mu.Unlock()
	if stop != nil {
		close(stop)
		<-done
	}
}

func (b *Breaker) log() *slog.Logger {
	if b.Log != nil {
		return b.Log
	}
	return slog.Default()
}
