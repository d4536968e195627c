package mysql

import (
	"context"
	"errors"
	"time"
)

const (
	silence       = 500 * time.Millisecond // a query without an answer for so long is looked after
	watchInterval = silence / 4
	lookTimeout   = 700 * time.Millisecond // for asking the server about it; twice that after the first time
	lookInterval  = time.Second            // how often it is asked about queries that it works on
)

// watch looks after queries that have no answer yet, for as long as there are queries.
//
// A network that drops packets, or a server that has started anew behind a proxy, tells
// nobody that an answer will never come, and a slow server looks the same. But the server
// knows, so it is asked on another connection: if it is not working for a connection
// that waits, the query or its answer has been lost, and the query is sent again at
// once instead of waiting for its time to end. A query that the server works on is left alone.
func (p *Pool) watch() {
	for host, silent := range p.silent() {
		p.look(host, silent)
	}
	if p.inUse() {
		time.AfterFunc(watchInterval, p.watch)
		return
	}
	p.watching.Store(false)
	if p.inUse() { // since a moment ago
		p.watchOver()
	}
}

// watchOver has queries watched from now on.
func (p *Pool) watchOver() {
	if !p.watching.Load() && p.watching.CompareAndSwap(false, true) {
		time.AfterFunc(watchInterval, p.watch)
	}
}

func (p *Pool) inUse() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if c.asked.Load() != 0 {
			return true
		}
	}
	return false
}

// silent returns the connections that it is time to look after, by host, with the time
// of their query.
func (p *Pool) silent() map[*host]map[*conn]int64 {
	now := time.Now()
	before := now.Add(-silence).UnixNano()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	var all map[*host]map[*conn]int64
	for c := range p.conns {
		asked := c.asked.Load()
		if asked == 0 || asked > before || now.Before(c.host.looked.Add(lookInterval)) {
			continue
		}
		if all == nil {
			all = map[*host]map[*conn]int64{}
		}
		if all[c.host] == nil {
			all[c.host] = map[*conn]int64{}
		}
		all[c.host][c] = asked
	}
	return all
}

// answering reports whether some connection in use can be expected to be given back soon.
// p.mu is held.
func (p *Pool) answering() bool {
	before := time.Now().Add(-silence).UnixNano()
	for c := range p.conns {
		if asked := c.asked.Load(); asked > before {
			return true
		}
	}
	return false
}

// look asks h about connections that are silent, and ends the queries that it does not
// work on: see do. Where it cannot be asked nothing is known, and it is asked again; the
// third time it counts as one that hangs.
//
// If all connections that the pool may have are silent it takes one more for this.
func (p *Pool) look(h *host, silent map[*conn]int64) {
	p.mu.Lock()
	if p.closed || p.open >= p.max && len(silent) < p.max {
		p.mu.Unlock()
		return
	}
	p.open++
	p.mu.Unlock()
	deadline := time.Now().Add(time.Duration(1+min(h.unseen, 1)) * lookTimeout)
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	c, err := p.connect(context.WithValue(ctx, onlyKey{}, h), deadline)
	if err != nil {
		p.mu.Lock()
		p.open--
		p.wake(nil)
		p.mu.Unlock()
		switch {
		case errors.Is(err, errHanging): // it is tried by somebody
		case ctx.Err() == nil: // it has said something, such as that it has no connection left
			h.looked, h.unseen = time.Now(), 0
		case h.unseen > 1:
			h.unseen = 0
			h.hang(time.Now())
		default:
			h.unseen++
		}
		return
	}
	var busy []uint64
	err = c.SelectContext(ctx, &busy, "SELECT id FROM information_schema.processlist WHERE command <> 'Sleep'")
	h.looked, h.unseen = time.Now(), 0
	if err != nil {
		p.drop(c)
		return
	}
	works := map[uint64]bool{}
	for _, id := range busy {
		works[id] = true
	}
	for s, asked := range silent {
		// Where this connection is not in the list the list is not that of these numbers: a
		// proxy stands between.
		if works[c.id] && !works[s.id] && s.asked.Load() == asked {
			s.net.SetDeadline(time.Unix(1, 0))
		}
	}
	p.put(c)
}
