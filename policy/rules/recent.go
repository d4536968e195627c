package rules

import (
	"sync"
	"time"
)

// recent is a bounded set of keys, each for a time. When it is full the older half goes.
// The zero recent is empty.
type recent struct {
	mu   sync.Mutex // guards keys
	keys generations[time.Time]
}

// has reports whether key was added until a time that is after now.
func (r *recent) has(key string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	until, _ := r.keys.get(key)
	return until.After(now)
}

// add keeps key until a time, among at most size keys.
func (r *recent) add(key string, until time.Time, size int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys.put(key, until, size/2)
}
