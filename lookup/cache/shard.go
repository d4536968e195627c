package cache

import (
	"errors"
	"sync"
	"time"

	"dovepost/lookup"
)

// shard is a part of the cache with a lock of its own.
type shard struct {
	limit uint64 // octets

	mu                  sync.Mutex // guards what follows
	entries             map[id]*entry
	once, again         list // all entries: asked for once, or again when they were not fresh any more
	flights             map[id]*flight
	hits, stale, misses uint64
}

// flight is a question on its way. values and err are set before done is closed.
type flight struct {
	id     id
	asked  time.Duration
	done   chan struct{}
	values []string
	err    error
	lost   bool // the answer is not kept; guarded by the shard's mu
}

// proved reports whether the map has said yes or no. Only after done.
func (f *flight) proved() bool {
	return f.err == nil && len(f.values) > 0 || errors.Is(f.err, lookup.ErrNotFound)
}

// entry is an answer. Only its place in a list changes.
type entry struct {
	id           id
	values       []string // nil: not found
	asked        time.Duration
	size         uint32
	again        bool // which list it is in
	newer, older *entry
}

// overhead is what an entry costs beside its strings: itself, and its place in the
// table (measured, see BenchmarkMemory).
const overhead = 160

func (e *entry) answer() ([]string, error) {
	if e.values == nil {
		return nil, lookup.ErrNotFound
	}
	return e.values, nil
}

// fresh returns the answer of e if it was asked for after the given time. It counts a hit.
func (s *shard) fresh(e *entry, after time.Duration) (values []string, ok bool, err error) {
	if e == nil || e.asked <= after {
		return nil, false, nil
	}
	s.hits++
	s.use(e)
	values, err = e.answer()
	return values, true, err
}

// join returns the question for k that is on its way, or a new one, which is the
// caller's to ask: if nobody asks, or did so long ago that the answer will be too old.
func (s *shard) join(k id, now, fresh time.Duration) (f *flight, mine bool) {
	if f = s.flights[k]; f != nil && now-f.asked < fresh {
		s.hits++
		return f, false
	}
	return s.start(k, now), true
}

// start makes a new question for k.
func (s *shard) start(k id, now time.Duration) *flight {
	f := &flight{id: k, asked: now, done: make(chan struct{})}
	s.flights[k] = f
	s.misses++
	return f
}

// keep stores the answer of f if it is one, unless a younger one is there, and makes room.
func (s *shard) keep(f *flight) {
	if !f.proved() || f.lost {
		return
	}
	if f.err != nil && f.id.space.positive.Load() {
		if old := s.entries[f.id]; old != nil && old.asked <= f.asked {
			s.remove(old)
		}
		return
	}
	e := &entry{id: f.id, asked: f.asked}
	if f.err == nil {
		e.values = f.values
	}
	if old := s.entries[f.id]; old != nil {
		if old.asked > f.asked {
			return
		}
		e.again = true
	}
	s.add(e)
}

// add puts e in the place of what is there for its key, and makes room.
func (s *shard) add(e *entry) {
	size := uint64(overhead + len(e.id.key))
	for _, v := range e.values {
		size += uint64(16 + len(v))
	}
	if old := s.entries[e.id]; old != nil {
		s.remove(old)
	}
	if size > s.limit || size > 1<<31 {
		return
	}
	e.size = uint32(size)
	for s.bytes()+size > s.limit {
		s.remove(s.victim())
	}
	s.entries[e.id] = e
	s.list(e).push(e)
}

// victim is the answer to forget first. A quarter of the room belongs to answers
// that were asked for once, so that they have a chance to be asked for again.
func (s *shard) victim() *entry {
	if s.again.oldest == nil || s.once.oldest != nil && s.once.bytes > s.limit/4 {
		return s.once.oldest
	}
	return s.again.oldest
}

// remove forgets e.
func (s *shard) remove(e *entry) {
	delete(s.entries, e.id)
	s.list(e).unlink(e)
}

// use makes e the newest of its list.
func (s *shard) use(e *entry) {
	if l := s.list(e); l.newest != e {
		l.unlink(e)
		l.push(e)
	}
}

func (s *shard) list(e *entry) *list {
	if e.again {
		return &s.again
	}
	return &s.once
}

func (s *shard) bytes() uint64 { return s.once.bytes + s.again.bytes }

// list holds entries by last use.
type list struct {
	newest, oldest *entry
	bytes          uint64
}

func (l *list) push(e *entry) {
	e.older, e.newer = l.newest, nil
	if l.newest != nil {
		l.newest.newer = e
	} else {
		l.oldest = e
	}
	l.newest = e
	l.bytes += uint64(e.size)
}

func (l *list) unlink(e *entry) {
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		l.newest = e.older
	}
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		l.oldest = e.newer
	}
	l.bytes -= uint64(e.size)
}
