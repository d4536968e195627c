package session

import (
	"slices"
	"sync"
	"time"
)

// A budget is an amount of octets that all sessions share. Who wants more than is left waits
// in line, behind all who came before, so that no large message is overtaken for ever.
// When all who hold some of it wait for more, the one who holds most gets it nevertheless, or
// nobody would ever end: the limit may be exceeded by what one message has yet to bring.
// The zero budget is ready to use.
type budget struct {
	mu   sync.Mutex // guards the rest
	used int64
	line []*claim
}

// claim is one who waits.
type claim struct {
	n, has, limit int64
	granted       chan struct{} // closed with mu held
}

// take takes n octets out of limit, 0 for none, for one who has some already. It waits for them as long as
// patience lasts and stop is not closed, and reports whether it got them.
func (b *budget) take(n, has, limit int64, patience time.Duration, stop <-chan struct{}) bool {
	b.mu.Lock()
	if limit == 0 || len(b.line) == 0 && b.used+n <= limit {
		b.used += n
		b.mu.Unlock()
		return true
	}
	if has+n > limit {
		b.mu.Unlock()
		return false
	}
	c := &claim{n, has, limit, make(chan struct{})}
	b.line = append(b.line, c)
	b.admit()
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
		b.grant(0)
	}
	held, most := int64(0), 0
	for i, c := range b.line {
		held += c.has
		if c.has > b.line[most].has {
			most = i
		}
	}
	if len(b.line) > 0 && held == b.used {
		b.grant(most)
	}
}

// grant grants the claim at i in the line. The caller holds mu.
func (b *budget) grant(i int) {
	b.used += b.line[i].n
	close(b.line[i].granted)
	b.line = slices.Delete(b.line, i, i+1)
}
