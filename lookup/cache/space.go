package cache

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// space keeps the keys of different maps apart, and knows how its map fares.
type space struct {
	name     string
	private  atomic.Bool
	positive atomic.Bool

	mu       sync.Mutex    // guards what follows; taken before a shard's
	trouble  bool          // the last question to end had no answer, or one is overdue
	seen     time.Duration // when that was last seen to be so
	probe    *flight       // in trouble: the one question that is asked for known keys
	answered time.Duration
	told     bool          // the log knows of the trouble
	toldAt   time.Duration // when it was last told
	stale    uint64        // answers given since then
}

// quiet is how long the log is spared when trouble comes and goes.
const quiet = time.Minute

// ended takes note of how a question ended. Any answer ends the trouble.
func (s *space) ended(c *Cache, f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.probe == f {
		s.probe = nil
	}
	switch {
	case f.proved():
		s.answered = c.now()
		s.trouble, s.probe = false, nil
		if s.told {
			c.log().Info("the map answers again", "map", s.label(), "stale", s.stale)
			s.told, s.stale = false, 0
		}
	case errors.Is(f.err, context.Canceled): // by the one who asked
	case c.Alive != nil && c.Alive(f.err):
	default:
		s.trouble, s.seen = true, c.now()
	}
}

// troubled reports whether the map is known not to answer: trouble of which nothing
// was seen for a while may be over. s.mu is held.
func (s *space) troubled(now time.Duration) bool {
	return s.trouble && (s.probe != nil || now-s.seen <= memory)
}

// overdue takes note that a question has no answer yet. Where the map has answered
// another one meanwhile, it is only that question that takes long.
func (s *space) overdue(asked, now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answered <= asked {
		s.trouble, s.seen = true, now
	}
}

// covered takes note of an old answer that is given because of err.
func (s *space) covered(c *Cache, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stale++
	now := c.now()
	if s.told || s.toldAt > 0 && now-s.toldAt < quiet {
		return
	}
	s.told, s.toldAt = true, max(now, 1)
	c.log().Warn("the map does not answer; known answers are given", "map", s.label(), "err", err)
}
