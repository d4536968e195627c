package cache

import (
	"context"

	"dovepost/lookup"
)

// Origin says where an answer comes from.
type Origin int

const (
	Asked Origin = iota // the caller's own question
	Fresh               // an answer to a question that began before, still fresh
	Old                 // an answer that is not fresh, because the map does not answer
)

// With returns m over another map. The answers are shared, so next must give those
// that m's own would; it may know more of what the key stands for.
func (m *Map) With(next lookup.Map) *Map { return &Map{cache: m.cache, space: m.space, next: next} }

// Positive keeps no "not found": whoever is told so has the map's present word. It
// returns m.
func (m *Map) Positive() *Map {
	m.space.positive.Store(true)
	return m
}

// Anew asks the map, whatever the cache has, and keeps the answer. The errors are
// those of the map.
func (m *Map) Anew(ctx context.Context, key string) ([]string, error) {
	c := m.cache
	s := c.shard(key)
	s.mu.Lock()
	f := s.start(id{m.space, key}, c.now())
	s.mu.Unlock()
	m.ask(ctx, s, f)
	return f.values, f.err
}

// Forget drops the answers to the keys for which drop says so, those on their way
// included, of all maps, and returns how many it had.
func (c *Cache) Forget(drop func(key string) bool) (n int) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for k, e := range s.entries {
			if drop(k.key) {
				s.remove(e)
				n++
			}
		}
		for k, f := range s.flights {
			if drop(k.key) {
				f.lost = true
				delete(s.flights, k)
			}
		}
		s.mu.Unlock()
	}
	return n
}
