package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
)

const (
	defaultConns = 8
	queryTimeout = 20 * time.Second // for a query whose context has no deadline
	maxRows      = 1 << 17          // of one Query; more is an error, not a memory problem
	maxOctets    = 64 << 20         // in all values of one Query
	connLifetime = 5 * time.Minute  // then a host that was away or busy gets its share again
)

// Pool holds the connections to one server, or to the first of several that works.
// It is safe for concurrent use.
//
// The connections are handed out here and not by database/sql: each has its own
// prepared statements, and the time limit of a query is a deadline of the network
// connection, without a goroutine that watches the context. A query takes half as
// long that way.
type Pool struct {
	config Config
	max    int
	hosts  *connector
	db     *sqlx.DB // opens and counts connections; nil: err says why
	err    error
	health health

	watching atomic.Bool // see watch

	mu      sync.Mutex     // guards what follows
	idle    []*conn        // the one used last comes last
	open    int            // connections for lookups, also those that are being opened
	looking bool           // look has one more
	lines   map[*line]bool // all of them
	waiting []chan given   // who waits for one
	reaper  *time.Timer    // closes idle connections; nil if none is idle
	closed  bool           // nothing stays idle
	waits   int64          // how often there was none, and no more to be opened
	waited  time.Duration  // and how long that took, in all
}

// given is what comes to one who waits: a connection, or an error, or neither, and he
// is to look again.
type given struct {
	conn *conn
	err  error
}

// OpenPool makes a pool of at most maxConns connections; 0 means 8. One of them is only for
// looking after the others, see line, and with a maxConns of 1 that is a second one. It never
// connects: connections are made when a query needs one. A Config that cannot
// work at all, such as one with an unreadable certificate, shows in the error of
// Prepare and of every query.
func OpenPool(c Config, maxConns int) *Pool {
	p := &Pool{config: c, max: maxConns, lines: map[*line]bool{}}
	if p.max <= 0 {
		p.max = defaultConns
	}
	k, err := newConnector(c)
	if err != nil {
		p.err = &configError{err}
		return p
	}
	p.hosts = k
	p.db = sqlx.NewDb(sql.OpenDB(k), "mysql")
	p.db.SetMaxIdleConns(-1) // what the pool gives back is closed
	return p
}

// Config returns what the pool was opened with.
func (p *Pool) Config() Config { return p.config }

// SetLog has the pool tell log when the server begins to be in trouble, such as
// having no connection left, and when that is over; not about every query.
func (p *Pool) SetLog(log *slog.Logger) { p.health.log.Store(log) }

// Stats returns figures about the connections.
func (p *Pool) Stats() sql.DBStats {
	if p.db == nil {
		return sql.DBStats{}
	}
	s := p.db.Stats()
	p.mu.Lock()
	defer p.mu.Unlock()
	s.MaxOpenConnections, s.OpenConnections = p.max, p.open
	if p.looking {
		s.OpenConnections++
	}
	s.Idle, s.InUse = len(p.idle), s.OpenConnections-len(p.idle)
	s.WaitCount, s.WaitDuration = p.waits, p.waited
	return s
}

// Close closes all connections, those in use when their queries have ended.
func (p *Pool) Close() error {
	if p.db == nil {
		return nil
	}
	p.mu.Lock()
	p.closed = true
	idle := p.idle
	p.idle = nil
	for l := range p.lines {
		if l.id == 0 {
			l.cut()
		}
	}
	p.mu.Unlock()
	p.drop(idle...)
	return p.db.Close()
}

// Rows is a whole result set. Values has one slice of len(Columns) for each row;
// a value is as the text protocol renders it, and not Valid if it is NULL.
type Rows struct {
	Columns []string
	Values  [][]sql.NullString
}

// Prepare asks the server to prepare query and so finds out about syntax, names
// and rights. It always asks, also when the statement is already known.
func (p *Pool) Prepare(ctx context.Context, query string) error {
	return p.do(ctx, func(c *conn) error {
		_, err := c.prepare(query)
		return err
	})
}

// Query executes query, a prepared statement with one ? for each arg, a string or
// an int64, and returns its one result set. It is one round trip once the
// statement is prepared. A query on a dead connection is sent again once.
//
// Errors: ErrNoResultSet when there was no result set; the context's; what the
// server said. All are temporary to a client.
func (p *Pool) Query(ctx context.Context, query string, args ...any) (*Rows, error) {
	return p.collect(ctx, func(c *conn, each rowFunc) error { return c.query(query, args, each) })
}

// rowFunc is called once for the result set with a nil row, and then for each row.
// The row is valid until it returns.
type rowFunc func(columns []string, row []sql.NullString) error

// collect runs query and gathers what it yields.
func (p *Pool) collect(ctx context.Context, query func(*conn, rowFunc) error) (*Rows, error) {
	var all *Rows
	err := p.do(ctx, func(c *conn) error {
		all = new(Rows)
		octets := 0
		return query(c, func(columns []string, row []sql.NullString) error {
			if row == nil {
				all.Columns = columns
				return nil
			}
			for i := range row {
				octets += len(row[i].String)
			}
			if len(all.Values) >= maxRows || octets > maxOctets {
				return errTooLarge
			}
			all.Values = append(all.Values, slices.Clone(row))
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

var errTooLarge = fmt.Errorf("result of more than %d rows or %d octets", maxRows, maxOctets)

// do runs f with a connection. If that proves to be dead f is run again with
// another one, on the next host if there are several; so it is when a host cannot
// work or hangs. The other idle connections to that host have most likely died,
// too, and go.
func (p *Pool) do(ctx context.Context, f func(*conn) error) error {
	if p.err != nil {
		return p.err
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(queryTimeout)
	}
	asking.Add(1)
	defer asking.Add(-1)
	hosts := len(p.hosts.hosts)
	var err error
	for remain := max(2, hosts); remain > 0; remain-- {
		var c *conn
		if c, err = p.get(ctx, deadline); err != nil {
			break
		}
		limit := deadline
		if hosts > 1 && remain > 1 {
			limit = time.Now().Add(time.Until(deadline) / time.Duration(remain))
		}
		c.asked.Store(time.Now().UnixNano())
		p.watchOver()
		err = c.run(ctx, limit, f)
		c.asked.Store(0)
		if err == nil {
			p.put(c)
			break
		}
		h, broken := c.host.Load(), c.broken
		if broken {
			p.drop(c)
		} else {
			p.put(c)
		}
		if broken && errors.Is(err, errHanging) {
			p.dropIdle(h)
		}
		elsewhere := hosts > 1 && (broken || busy(err)) && Unreachable(err)
		if !lost(err) && !elsewhere || ctx.Err() != nil || !time.Now().Before(deadline) {
			break
		}
		if hosts > 1 {
			h.fail(p.hosts.retry)
		}
		p.dropIdle(h)
	}
	p.health.note(p.config, err)
	return err
}

// most is how many connections lookups may have.
func (p *Pool) most() int { return max(1, p.max-1) }

// get returns a connection that is idle, or waits for one that is given back or opened. It
// is given back with put or drop.
func (p *Pool) get(ctx context.Context, deadline time.Time) (*conn, error) {
	for {
		p.mu.Lock()
		if n := len(p.idle); n > 0 {
			c := p.idle[n-1]
			p.idle = p.idle[:n-1]
			p.mu.Unlock()
			return c, nil
		}
		if p.open < p.most() {
			p.open++
			go p.opens()
		} else {
			p.waits++
		}
		if g := p.wait(ctx, deadline); g != (given{}) {
			return g.conn, g.err
		}
	}
}

// wait returns the next connection that is given back. p.mu is held, and released.
func (p *Pool) wait(ctx context.Context, deadline time.Time) given {
	mine := make(chan given, 1)
	p.waiting = append(p.waiting, mine)
	p.mu.Unlock()
	start := time.Now()
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	var g given
	select {
	case g = <-mine:
	case <-ctx.Done():
		g.err = fmt.Errorf("waiting for a connection: %w", ctx.Err())
	case <-timer.C:
		g.err = fmt.Errorf("waiting for a connection: %w", context.DeadlineExceeded)
	}
	p.mu.Lock()
	p.waited += time.Since(start)
	i := slices.Index(p.waiting, mine)
	if i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
	}
	p.mu.Unlock()
	if i < 0 {
		select {
		case g = <-mine: // at the last moment
		default:
		}
	}
	return g
}

// wake gives g to the one who has waited for longest. p.mu is held.
func (p *Pool) wake(g given) bool {
	if len(p.waiting) == 0 {
		return false
	}
	p.waiting[0] <- g
	p.waiting = slices.Delete(p.waiting, 0, 1)
	return true
}

// errCut is a connection that was not waited for any more.
var errCut = errors.New("connecting takes long")

// opens opens a connection for whoever waits. It may take longer than one of them has time:
// the next one is glad of it.
func (p *Pool) opens() {
	c, err := p.connect(new(line))
	if err == nil {
		p.put(c)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open--
	switch {
	case limited(err) && p.open > 0: // the server gives no more than there are, so these must do
		p.health.note(p.config, err)
		return
	case err != errCut:
		p.wake(given{err: err})
	}
	p.wake(given{})
}

// connect opens a connection, which is l.
func (p *Pool) connect(l *line) (*conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	l.cut = cancel
	l.asked.Store(time.Now().UnixNano())
	p.mu.Lock()
	p.lines[l] = true
	p.mu.Unlock()
	p.watchOver()
	c, err := openConn(ctx, p.db, l)
	p.mu.Lock()
	defer p.mu.Unlock()
	l.asked.Store(0)
	if err != nil {
		delete(p.lines, l)
		if ctx.Err() != nil {
			err = errCut
		}
		return nil, err
	}
	l.id, l.cut = c.session.ID, func() { c.net.SetDeadline(time.Unix(1, 0)) }
	return c, nil
}

// put gives back a connection that works.
func (p *Pool) put(c *conn) {
	c.used = time.Now()
	if c.used.Sub(c.opened) > connLifetime {
		p.drop(c)
		return
	}
	p.mu.Lock()
	if p.closed || p.open > p.most() {
		p.mu.Unlock()
		p.drop(c)
		return
	}
	if !p.wake(given{conn: c}) {
		p.idle = append(p.idle, c)
		if p.reaper == nil {
			p.reaper = time.AfterFunc(p.idleTime(), p.reap)
		}
	}
	p.mu.Unlock()
}

// drop gives back connections that are not to be used again.
func (p *Pool) drop(conns ...*conn) {
	for _, c := range conns {
		c.close()
	}
	p.mu.Lock()
	p.open -= len(conns)
	for _, c := range conns {
		delete(p.lines, c.line)
		p.wake(given{})
	}
	p.mu.Unlock()
}

// dropIdle closes the idle connections to h.
func (p *Pool) dropIdle(h *host) {
	p.mu.Lock()
	var dead []*conn
	p.idle = slices.DeleteFunc(p.idle, func(c *conn) bool {
		if c.host.Load() == h {
			dead = append(dead, c)
		}
		return c.host.Load() == h
	})
	p.mu.Unlock()
	p.drop(dead...)
}

func (p *Pool) idleTime() time.Duration {
	if p.config.IdleInterval > 0 {
		return p.config.IdleInterval
	}
	return defaultIdle
}

// reap closes what was idle for too long, and comes again for the rest.
func (p *Pool) reap() {
	p.mu.Lock()
	long := time.Now().Add(-p.idleTime())
	n := 0
	for n < len(p.idle) && !p.idle[n].used.After(long) {
		n++
	}
	old := slices.Clone(p.idle[:n])
	p.idle = slices.Delete(p.idle, 0, n)
	p.reaper = nil
	if len(p.idle) > 0 {
		p.reaper = time.AfterFunc(p.idle[0].used.Sub(long), p.reap)
	}
	p.mu.Unlock()
	p.drop(old...)
}
