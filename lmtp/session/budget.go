package session

import (
	"slices"
	"sync"
	"time"
)

// A budget is an amount of octets that all sessions share. Who wants more than is left waits
// in line, behind all who came before, so that no large message is overtaken for ever.
// The zero budget is ready to use.
type budget struct {
	mu   sync.Mutex // guards the rest
	used int64
	line []*claim
}

// claim is one who waits.
type claim struct {
	n, limit int64
	granted  chan struct{} // closed with mu held
}

// take takes n octets out of limit, 0 for none. It waits for them as long as patience lasts and stop is not closed,
// and reports whether it got them.
func (b *budget) take(n, limit int64, patience time.Duration, stop <-chan struct{}) bool {
	b.mu.Lock()
	if limit == 0 || len(b.line) == 0 && b.used+n <= limit {
		b.used += n
		b.mu.Unlock()
		return true
	}
	if n > limit {
		b.mu.Unlock()
		return false
	}
	c := &claim{n, limit, make(chan struct{})}
	b.line = append(b.line, c)
	b.mu.Unlock()

	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-c.granted:
		return true
	case <-timer.C:
	case <-stop:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.line, c)
	if i < 0 {
		return true // granted meanwhile
	}
	b.line = slices.Delete(b.line, i, i+1)
	b.admit() // who stood behind may want less
	return false
}

// give gives n octets back.
func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	b.admit()
}

// admit grants what fits, in order. The caller holds mu.
func (b *budget) admit() {
	for len(b.line) > 0 && b.used+b.line[0].n <= b.line[0].limit {
		b.used += b.line[0].n
		close(b.line[0].granted)
		b.line = slices.Delete(b.line, 0, 1)
	}
}
