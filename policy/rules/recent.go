package rules

import (
	"sync"
	"time"
)

// recent is a bounded set of keys, each for a time. When it is full the older half goes.
// The zero recent is empty.
type recent struct {
	mu         sync.Mutex // guards young and old
	young, old map[string]time.Time
}

// has reports whether key was added until a time that is after now.
func (r *recent) has(key string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	until, ok := r.young[key]
	if !ok {
		until = r.old[key]
	}
	return until.After(now)
}

// add keeps key until a time, among at most size keys.
func (r *recent) add(key string, until time.Time, size int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.young == nil || len(r.young) >= size/2 {
		r.old, r.young = r.young, make(map[string]time.Time)
	}
	r.young[key] = until
}
