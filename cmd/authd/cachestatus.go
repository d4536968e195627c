package main

import (
	"sync"

	"dovepost/auth/dovecot"
)

// cacheStatus answers CACHE-STATUS, which has counters that can be set back.
type cacheStatus struct {
	mu           sync.Mutex // guards what follows
	hits, misses uint64     // when they were set back
}

// status is the state of the cache of rows. It does not tell known users from unknown ones.
func (a *authd) status(reset bool) dovecot.CacheStatus {
	hits, _, misses, entries, bytes := a.cache.Stats()
	s := &a.cacheStatus
	s.mu.Lock()
	defer s.mu.Unlock()
	told := dovecot.CacheStatus{Hits: hits - s.hits, Misses: misses - s.misses, PosEntries: entries, PosSize: bytes}
	if reset {
		s.hits, s.misses = hits, misses
	}
	return told
}
