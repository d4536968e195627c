// Package cache keeps the answers of maps for a short while.
//
// Postfix asks the same things many times while it handles one message. An
// answer that is younger than the cache's Fresh is given again, be it "found" or
// "not found", so a change in the database is live after that time. An answer is
// as old as the question that led to it. Errors are never kept. Equal keys that
// are asked at the same time are asked once.
//
// The cache is bounded in octets; the answers not used for the longest time go first.
package cache

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"dovepost/lookup"
)

// Cache holds the answers of any number of maps within one bound.
type Cache struct {
	fresh  time.Duration
	epoch  time.Time // ages are measured from here, on the monotonic clock
	seed   maphash.Seed
	shards [shardCount]shard

	mu   sync.Mutex // guards maps
	maps map[string]*space
}

// shardCount is how many goroutines can have an answer at a time. A power of two.
const shardCount = 16

// New makes a cache that gives answers younger than fresh and holds at most size
// octets, its own bookkeeping included. A fresh of 0 sends every question to the map.
func New(fresh time.Duration, size int64) *Cache {
	c := &Cache{fresh: fresh, epoch: time.Now(), seed: maphash.MakeSeed(), maps: map[string]*space{}}
	for i := range c.shards {
		s := &c.shards[i]
		s.limit = uint64(max(size, 0)) / shardCount
		s.entries = map[id]*entry{}
		s.flights = map[id]*flight{}
	}
	return c
}

// space keeps the keys of different maps apart.
type space struct{ name string }

// id is what an answer belongs to.
type id struct {
	space *space
	key   string
}

// Map returns m with the cache before it. Two maps of one name share their
// answers, so a name must say all that an answer depends on: then the answers
// outlive a reload that does not change it.
func (c *Cache) Map(name string, m lookup.Map) *Map {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.maps[name]
	if s == nil {
		s = &space{name}
		c.maps[name] = s
	}
	return &Map{cache: c, space: s, next: m}
}

// Stats returns how many questions were answered from the cache or by a question
// already on its way, how many had to be asked, and how much is held.
func (c *Cache) Stats() (hits, misses, entries, bytes uint64) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		hits += s.hits
		misses += s.misses
		entries += uint64(len(s.entries))
		bytes += s.bytes
		s.mu.Unlock()
	}
	return hits, misses, entries, bytes
}

// now is the time since the cache was made.
func (c *Cache) now() time.Duration { return time.Since(c.epoch) }

// Map is a lookup.Map with a cache before it. The values it returns belong to the
// cache: nobody may change them.
type Map struct {
	cache *Cache
	space *space
	next  lookup.Map
}

// Fresh reports whether the cache has a fresh answer to key, and returns it as
// Lookup would. It allocates nothing and never asks.
func (m *Map) Fresh(key []byte) (values []string, ok bool, err error) {
	c := m.cache
	s := &c.shards[maphash.Bytes(c.seed, key)%shardCount]
	now := c.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fresh(s.entries[id{m.space, string(key)}], now-c.fresh)
}

// Lookup answers from the cache, or from a question for the same key that is on
// its way, or asks. Its errors are those of the map.
func (m *Map) Lookup(ctx context.Context, key string) ([]string, error) {
	c := m.cache
	s := &c.shards[maphash.String(c.seed, key)%shardCount]
	k := id{m.space, key}
	for {
		now := c.now()
		s.mu.Lock()
		if values, ok, err := s.fresh(s.entries[k], now-c.fresh); ok {
			s.mu.Unlock()
			return values, err
		}
		f := s.flights[k]
		if f == nil || now-f.asked >= c.fresh {
			// Nobody asks, or did so long ago that the answer will be too old.
			f = &flight{asked: now, done: make(chan struct{})}
			s.flights[k] = f
			s.misses++
			s.mu.Unlock()
			m.ask(ctx, s, k, f)
			return f.values, f.err
		}
		s.hits++
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-f.done:
		}
		// Whoever asked may have run out of time; that does not concern this caller.
		if !errors.Is(f.err, context.Canceled) && !errors.Is(f.err, context.DeadlineExceeded) || ctx.Err() != nil {
			return f.values, f.err
		}
	}
}

// errGone is what the others get when the one who asks panics.
var errGone = errors.New("lookup ended without an answer")

// ask asks the map, keeps what it proved, and tells all who wait on f.
func (m *Map) ask(ctx context.Context, s *shard, k id, f *flight) {
	f.err = errGone
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.flights[k] == f {
			delete(s.flights, k)
		}
		s.keep(k, f)
		close(f.done)
	}()
	values, err := m.next.Lookup(ctx, k.key)
	f.values, f.err = values, err
}
