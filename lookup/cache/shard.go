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

	mu             sync.Mutex // guards what follows
	entries        map[id]*entry
	newest, oldest *entry // the ends of the list of all entries by last use
	bytes          uint64
	flights        map[id]*flight
	hits, misses   uint64
}

// flight is a question on its way. values and err are set before done is closed.
type flight struct {
	asked  time.Duration
	done   chan struct{}
	values []string
	err    error
}

// entry is an answer.
type entry struct {
	id           id
	values       []string // nil: not found
	asked        time.Duration
	size         uint64
	newer, older *entry
}

// overhead is what an entry costs beside its strings: itself, and its place in the
// table (measured, see BenchmarkMemory).
const overhead = 160

// fresh returns the answer of e if it was asked for after the given time. It counts a hit.
func (s *shard) fresh(e *entry, after time.Duration) (values []string, ok bool, err error) {
	if e == nil || e.asked <= after {
		return nil, false, nil
	}
	s.hits++
	s.use(e)
	if e.values == nil {
		return nil, true, lookup.ErrNotFound
	}
	return e.values, true, nil
}

// keep stores the answer of f if it is one, unless a younger one is there, and makes room.
func (s *shard) keep(k id, f *flight) {
	found := f.err == nil && len(f.values) > 0
	if !found && !errors.Is(f.err, lookup.ErrNotFound) {
		return
	}
	e := s.entries[k]
	if e != nil && e.asked > f.asked {
		return
	}
	size := uint64(overhead + len(k.key))
	for _, v := range f.values {
		size += uint64(16 + len(v))
	}
	if e != nil {
		s.remove(e)
	}
	if size > s.limit {
		return
	}
	for s.bytes+size > s.limit {
		s.remove(s.oldest)
	}
	e = &entry{id: k, asked: f.asked, size: size}
	if found {
		e.values = f.values
	}
	s.entries[k] = e
	s.bytes += size
	s.push(e)
}

// remove forgets e.
func (s *shard) remove(e *entry) {
	delete(s.entries, e.id)
	s.bytes -= e.size
	s.unlink(e)
}

// use makes e the newest.
func (s *shard) use(e *entry) {
	if s.newest != e {
		s.unlink(e)
		s.push(e)
	}
}

func (s *shard) push(e *entry) {
	e.older, e.newer = s.newest, nil
	if s.newest != nil {
		s.newest.newer = e
	} else {
		s.oldest = e
	}
	s.newest = e
}

func (s *shard) unlink(e *entry) {
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		s.newest = e.older
	}
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		s.oldest = e.newer
	}
}
