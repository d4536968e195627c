package mysql

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

const (
	silence      = 500 * time.Millisecond // what has not been heard of for so long is looked after
	watchTick    = silence / 4
	patience     = 700 * time.Millisecond // with a new connection on which nothing comes
	lookInterval = time.Second            // how often a host that answers is looked at
)

// A line is a connection to a server from its first packet to its last, as watch sees it:
//
//	opening --opened--> idle --asked--> asked --answered--> idle
//	   |                                  |
//	   +-------------- silent ------------+----cut----> closed, and asked for again
//
// A line is silent if nothing comes for half a second while something is waited for. A
// network that drops packets, or a server that has started anew behind a proxy, tells nobody
// that nothing will ever come; a slow server looks the same, and is to be left alone. So
// the host is asked, on a new line, as often as it takes. Once it answers
//
//   - a line that is being opened and on which nothing has come meanwhile is cut: the new
//     one was quicker;
//   - a query is cut if the server does not work on it: it was lost, or its answer was.
//
// What is cut is not the end of a lookup: it waits for the next connection, and a query is
// sent again once. Without an answer of the host nothing is cut, and each lookup waits
// until its own time is over. Nothing is kept about a host that does not answer, but that it
// is tried after the others for a while.
type line struct {
	host  atomic.Pointer[host]
	heard atomic.Uint32 // how often something has come
	asked atomic.Int64  // since when something is waited for, Unix nanoseconds; 0: nothing is
	cut   func()        // ends the waiting

	// Of the one who opens it:
	net      net.Conn
	only     *host         // try no other
	patience time.Duration // how long to wait for octets; 0: as long as there is time

	id uint64 // as the server's process list has it; 0: it is being opened

	// Of watch:
	last  progress
	since time.Time
}

// progress is what changes while a line is not silent.
type progress struct {
	asked int64
	heard uint32
}

func (l *line) progress() progress { return progress{l.asked.Load(), l.heard.Load()} }

// watchOver has the lines watched for as long as something is waited for.
func (p *Pool) watchOver() {
	if !p.watching.Load() && p.watching.CompareAndSwap(false, true) {
		time.AfterFunc(watchTick, p.watch)
	}
}

func (p *Pool) watch() {
	silent, waits := p.silent()
	for host, lines := range silent {
		p.look(host, lines)
	}
	if waits {
		time.AfterFunc(watchTick, p.watch)
		return
	}
	p.watching.Store(false)
	if _, waits := p.silent(); waits { // since a moment ago
		p.watchOver()
	}
}

// silent returns the lines that it is time to look after, by host, and whether anything is
// waited for at all.
func (p *Pool) silent() (all map[*host][]*line, waits bool) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, false
	}
	for l := range p.lines {
		now, last := now, l.progress()
		if last.asked == 0 {
			continue
		}
		waits = true
		h := l.host.Load()
		switch {
		case last != l.last:
			l.last, l.since = last, now
		case h == nil || now.Sub(l.since) < silence || now.Before(h.looked.Add(lookInterval)):
		default:
			if all == nil {
				all = map[*host][]*line{}
			}
			all[h] = append(all[h], l)
		}
	}
	return all, waits
}

// look asks h about lines that are silent, and cuts what is lost. It has one connection more
// for this than lookups may take, see Pool.most.
func (p *Pool) look(h *host, silent []*line) {
	p.nowLooking(true)
	defer p.nowLooking(false)
	start := time.Now()
	c, err := p.connect(&line{only: h})
	if err != nil {
		if time.Since(start) < patience {
			h.looked = start // it has said something, such as that it has no connection left
		}
		return
	}
	h.looked = time.Now()
	works, err := c.works()
	p.mu.Lock()
	for _, l := range silent {
		lost := l.id == 0 || err == nil && works[c.id] && !works[l.id]
		if lost && l.progress() == l.last {
			l.cut()
		}
	}
	p.open++ // now it is one of them, as far as they may be more
	p.looking = false
	p.mu.Unlock()
	if err != nil {
		p.drop(c)
	} else {
		p.put(c)
	}
}

func (p *Pool) nowLooking(yes bool) {
	p.mu.Lock()
	p.looking = yes
	p.mu.Unlock()
}

// works returns what the server works on. Where c itself is not among it, it is the list of
// another server than the one that counts connections, such as a proxy's, and says nothing.
func (c *conn) works() (map[uint64]bool, error) {
	c.net.SetDeadline(time.Time{})
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	c.patience = patience
	defer func() { c.patience = 0 }()
	var ids []uint64
	if err := c.SelectContext(ctx, &ids, "SELECT id FROM information_schema.processlist WHERE command <> 'Sleep'"); err != nil {
		return nil, err
	}
	works := map[uint64]bool{}
	for _, id := range ids {
		works[id] = true
	}
	return works, nil
}
