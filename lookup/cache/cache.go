// Package cache keeps the answers of maps, and gives old ones while the database is away.
//
// Postfix asks the same things many times while it handles one message. An
// answer that is younger than the cache's fresh time is given again, be it "found"
// or "not found", so a change in the database is live after that time. An answer
// is as old as the question that led to it. Errors are never kept. Equal keys that
// are asked at the same time are asked once.
//
// With Stale set, a map that answers with an error is covered by its last known
// answer. That never hides a change for longer than it must: an answer that is not
// fresh is given only when the map was asked and failed, or is being asked and does
// not answer. A key that was never answered gets the error.
//
// The cache is bounded in octets. Answers that were asked for once go before those
// that were asked for again and again, and of each kind those not used for the
// longest time, so that a stranger who tries many names does not push out the users.
package cache

import (
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"dovepost/lookup"
)

// Cache holds the answers of any number of maps within one bound. Stale, Patience,
// Timeout, Log and Alive may be set before its first use.
type Cache struct {
	// Stale is the age up to which an answer stands in for one that the map cannot
	// give. 0: the map's errors are passed on.
	Stale time.Duration
	// Patience is how long a map may be silent before it counts as away and an old
	// answer is given. 0 means 1 s.
	Patience time.Duration
	// Timeout bounds a question whose answer nobody waits for any more. 0 means 5 s.
	Timeout time.Duration
	// Log is told when a map begins to be covered by old answers and when that ends.
	// nil means slog.Default().
	Log *slog.Logger
	// Alive reports whether an error comes from a map that does answer, such as one about a
	// key that the database cannot compare: it says nothing about other keys. nil: none does.
	Alive func(error) bool

	fresh  time.Duration
	epoch  time.Time // ages are measured from here, on the monotonic clock
	seed   maphash.Seed
	shards [shardCount]shard
	behind sync.WaitGroup // questions that run on their own

	mu   sync.Mutex // guards maps
	maps map[string]*space
}

// shardCount is how many goroutines can have an answer at a time. A power of two.
const shardCount = 16

const (
	// patience is the default of Patience.
	patience = time.Second
	// glance is the same while the map is in trouble.
	glance = 100 * time.Millisecond
	// probeTimeout bounds a question that is asked to learn whether the trouble is over.
	// It must be short: a database that has come back is not seen before it ends.
	probeTimeout = 1500 * time.Millisecond
	// memory is how long the trouble is believed in while nobody asks. With the time of
	// a probe it is how long an old answer is given after the map has come back.
	memory = 500 * time.Millisecond

	defaultTimeout = 5 * time.Second
)

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

// id is what an answer belongs to.
type id struct {
	space *space
	key   string
}

// Map returns m with the cache before it. Two maps of one name share their
// answers, so a name must say all that an answer depends on: then the answers
// outlive a reload that does not change it. Its first word stands in the log.
func (c *Cache) Map(name string, m lookup.Map) *Map {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.maps[name]
	if s == nil {
		s = &space{name: name}
		c.maps[name] = s
	}
	return &Map{cache: c, space: s, next: m}
}

// Stats returns how many questions were answered by what is fresh or by a question
// already on its way, how many by an answer that is not fresh because the map did
// not answer, how many had to be asked, and how much is held.
func (c *Cache) Stats() (hits, stale, misses, entries, bytes uint64) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		hits += s.hits
		stale += s.stale
		misses += s.misses
		entries += uint64(len(s.entries))
		bytes += s.bytes()
		s.mu.Unlock()
	}
	return hits, stale, misses, entries, bytes
}

// Close waits for the questions that still run on their own. Nobody may ask any more.
func (c *Cache) Close() { c.behind.Wait() }

func (c *Cache) shard(key string) *shard { return &c.shards[maphash.String(c.seed, key)%shardCount] }

// now is the time since the cache was made.
func (c *Cache) now() time.Duration { return time.Since(c.epoch) }

func (c *Cache) log() *slog.Logger {
	if c.Log == nil {
		return slog.Default()
	}
	return c.Log
}

// Map is a lookup.Map with a cache before it. The values it returns belong to the
// cache: nobody may change them.
type Map struct {
	cache *Cache
	space *space
	next  lookup.Map
}

// Private keeps the answers of m out of files: they are secrets. It returns m.
func (m *Map) Private() *Map {
	m.space.private.Store(true)
	return m
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
// its way, or asks; or gives an old answer where the map has none to give.
// Its errors are those of the map.
func (m *Map) Lookup(ctx context.Context, key string) ([]string, error) {
	values, _, err := m.Find(ctx, key)
	return values, err
}

// Find is Lookup that also says where the answer comes from.
func (m *Map) Find(ctx context.Context, key string) ([]string, Origin, error) {
	c := m.cache
	s := c.shard(key)
	k := id{m.space, key}
	for {
		now := c.now()
		s.mu.Lock()
		e := s.entries[k]
		if values, ok, err := s.fresh(e, now-c.fresh); ok {
			s.mu.Unlock()
			return values, Fresh, err
		}
		if e != nil && c.Stale > 0 && e.asked > now-c.Stale {
			s.mu.Unlock()
			return m.cover(ctx, s, e)
		}
		f, mine := s.join(k, now, c.fresh)
		s.mu.Unlock()
		if mine {
			m.ask(ctx, s, f)
			return f.values, Asked, f.err
		}
		select {
		case <-ctx.Done():
			return nil, Asked, context.Cause(ctx)
		case <-f.done:
		}
		// Whoever asked may have run out of time; that does not concern this caller.
		if !errors.Is(f.err, context.Canceled) && !errors.Is(f.err, context.DeadlineExceeded) || ctx.Err() != nil {
			return f.values, Fresh, f.err
		}
	}
}

// cover asks for a key whose last answer e is not fresh, and gives e when the map
// fails or lets wait for too long.
func (m *Map) cover(ctx context.Context, s *shard, e *entry) ([]string, Origin, error) {
	c := m.cache
	start := c.now()
	for {
		f, limit := m.question(ctx, s, e.id)
		done := wait(ctx, f, f.asked+limit-c.now())
		switch {
		case !done:
			if limit > glance && ctx.Err() == nil {
				m.space.overdue(f.asked, c.now())
			}
			return m.old(s, e, errSlow)
		case f.id == e.id && f.proved():
			if f.asked >= start {
				return f.values, Asked, f.err
			}
			return f.values, Fresh, f.err
		case f.id == e.id, c.now()-start >= glance:
			return m.old(s, e, f.err)
		}
		// Another key was asked for. Whatever came of it, it says little about this
		// one, whose turn it may be now.
	}
}

// question returns the question to wait for before an old answer to k is given, and
// for how long: the one for k, or, while the map is in trouble, the only one that
// is asked then. It runs on its own, since its answer is worth having even when
// nobody waits any more.
func (m *Map) question(ctx context.Context, s *shard, k id) (f *flight, limit time.Duration) {
	c := m.cache
	now := c.now()
	timeout := c.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	m.space.mu.Lock()
	defer m.space.mu.Unlock()
	trouble := m.space.troubled(now)
	if trouble {
		if m.space.probe != nil {
			return m.space.probe, glance
		}
		timeout = min(timeout, probeTimeout)
	}
	s.mu.Lock()
	f, mine := s.join(k, now, c.fresh)
	if !mine && trouble {
		// It was asked before the trouble was known, and may hang for long.
		f, mine = s.start(k, now), true
	}
	s.mu.Unlock()
	if limit = c.Patience; limit <= 0 {
		limit = patience
	}
	if trouble {
		m.space.probe, limit = f, glance
	}
	if mine {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		c.behind.Go(func() {
			defer cancel()
			defer m.survive()
			m.ask(ctx, s, f)
		})
	}
	return f, limit
}

// survive keeps a panic of a map in its own goroutine from ending the process.
func (m *Map) survive() {
	if p := recover(); p != nil {
		m.cache.log().Error("panic in a lookup", "map", m.space.label(), "panic", p, "stack", string(debug.Stack()))
	}
}

// old gives an answer that is not fresh any more, because of err.
func (m *Map) old(s *shard, e *entry, err error) ([]string, Origin, error) {
	m.space.covered(m.cache, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stale++
	if s.entries[e.id] == e {
		s.use(e)
	}
	values, err := e.answer()
	return values, Old, err
}

var (
	// errGone is what the others get when the one who asks panics.
	errGone = errors.New("lookup ended without an answer")
	errSlow = errors.New("no answer in time")
)

// ask asks the map, keeps what it proved, and tells all who wait on f.
func (m *Map) ask(ctx context.Context, s *shard, f *flight) {
	f.err = errGone
	defer func() {
		s.mu.Lock()
		if s.flights[f.id] == f {
			delete(s.flights, f.id)
		}
		s.keep(f)
		s.mu.Unlock()
		m.space.ended(m.cache, f)
		close(f.done)
	}()
	values, err := m.next.Lookup(ctx, f.id.key)
	f.values, f.err = values, err
}

// wait waits for f, but no longer than limit or than ctx allows.
func wait(ctx context.Context, f *flight, limit time.Duration) (done bool) {
	select {
	case <-f.done:
		return true
	default:
	}
	if limit <= 0 {
		return false
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-f.done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// label is what the log calls the space.
func (s *space) label() string {
	first, _, _ := strings.Cut(s.name, " ")
	return first
}
