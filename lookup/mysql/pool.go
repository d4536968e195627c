package mysql

import (
	"container/list"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
)

const (
	defaultConns  = 8
	maxStatements = 256              // distinct query texts that a pool keeps prepared
	maxRows       = 1 << 17          // of one Query; more is an error, not a memory problem
	maxOctets     = 64 << 20         // in all values of one Query
	connLifetime  = 30 * time.Minute // then the preferred host is looked for again
)

// Pool holds the connections to one server, or to the first of several that works.
// It is safe for concurrent use.
type Pool struct {
	config Config
	db     *sqlx.DB // nil: err says why
	err    error

	mu    sync.Mutex               // guards what follows
	stmts map[string]*list.Element // of *statement, by query text
	used  *list.List               // most recently used first
}

type statement struct {
	query string
	stmt  *sqlx.Stmt
	users int  // queries that run; guarded by Pool.mu
	out   bool // no longer in the pool: the last user closes it
}

// OpenPool makes a pool of at most maxConns connections; 0 means 8. It never
// connects: connections are made when a query needs one. A Config that cannot
// work at all, such as one with an unreadable certificate, shows in the error of
// Prepare and of every query.
func OpenPool(c Config, maxConns int) *Pool {
	p := &Pool{config: c, stmts: make(map[string]*list.Element), used: list.New()}
	k, err := newConnector(c)
	if err != nil {
		p.err = &configError{err}
		return p
	}
	if maxConns <= 0 {
		maxConns = defaultConns
	}
	idle := c.IdleInterval
	if idle == 0 {
		idle = defaultIdle
	}
	p.db = sqlx.NewDb(sql.OpenDB(k), "mysql")
	p.db.SetMaxOpenConns(maxConns)
	p.db.SetMaxIdleConns(maxConns)
	p.db.SetConnMaxIdleTime(idle)
	p.db.SetConnMaxLifetime(connLifetime)
	return p
}

// Config returns what the pool was opened with.
func (p *Pool) Config() Config { return p.config }

// Stats returns figures about the connections.
func (p *Pool) Stats() sql.DBStats {
	if p.db == nil {
		return sql.DBStats{}
	}
	return p.db.Stats()
}

// Close closes all connections. Queries that run are finished first.
func (p *Pool) Close() error {
	if p.db == nil {
		return nil
	}
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
	if p.err != nil {
		return p.err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	return p.again(ctx, func() error {
		stmt, err := p.db.PreparexContext(ctx, query)
		if err != nil {
			return err
		}
		p.release(p.keep(query, stmt))
		return nil
	})
}

// Query executes query, a prepared statement with one ? for each arg, and
// returns its one result set. It is one round trip once the statement is
// prepared. A query on a dead connection is sent again once.
//
// Errors: ErrNoResultSet when there was no result set; the context's; what the
// server said. All are temporary to a client.
func (p *Pool) Query(ctx context.Context, query string, args ...any) (*Rows, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	return p.collect(ctx, func(each rowFunc) error {
		return p.prepared(ctx, query, args, each)
	})
}

// QueryText is Query for a statement that cannot be prepared with placeholders.
// Whatever stands in text must be quoted already.
func (p *Pool) QueryText(ctx context.Context, text string) (*Rows, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	return p.collect(ctx, func(each rowFunc) error {
		rows, err := p.db.QueryxContext(ctx, text)
		if err != nil {
			return err
		}
		return scan(rows, each)
	})
}

// Each executes query like Query and calls each for every row, without keeping
// the rows. The row is valid until each returns. An error of each ends the query
// and is returned. It takes as long as rows keep coming.
func (p *Pool) Each(ctx context.Context, query string, args []any, each func(columns []string, row []sql.NullString) error) error {
	if p.err != nil {
		return p.err
	}
	seen := false
	var own error
	err := p.again(ctx, func() error {
		err := p.prepared(ctx, query, args, func(columns []string, row []sql.NullString) error {
			if row != nil {
				seen = true
				own = each(columns, row)
			}
			return own
		})
		if err != nil && seen {
			own = err // rows have been given away: never start over
			return nil
		}
		return err
	})
	return errors.Join(err, own)
}

// rowFunc is called once for each result set with a nil row, and then for each row.
type rowFunc func(columns []string, row []sql.NullString) error

// bounded gives ctx a deadline if it has none.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, 2*ioTimeout)
}

// collect runs query, again if need be, and gathers what it yields.
func (p *Pool) collect(ctx context.Context, query func(rowFunc) error) (*Rows, error) {
	if p.err != nil {
		return nil, p.err
	}
	var all *Rows
	err := p.again(ctx, func() error {
		all = new(Rows)
		octets := 0
		return query(func(columns []string, row []sql.NullString) error {
			if row == nil {
				all.Columns = columns
				return nil
			}
			for i := range row {
				octets += len(row[i].String)
			}
			if len(all.Values) >= maxRows || octets > maxOctets {
				return fmt.Errorf("result of more than %d rows or %d octets", maxRows, maxOctets)
			}
			all.Values = append(all.Values, append([]sql.NullString(nil), row...))
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// again runs query, and once more if the connection turned out to be dead. The
// other idle connections have most likely died with it, so they go first.
func (p *Pool) again(ctx context.Context, query func() error) error {
	err := query()
	if err == nil || !lost(err) || ctx.Err() != nil {
		return err
	}
	limit := p.db.Stats().MaxOpenConnections
	p.db.SetMaxIdleConns(-1)
	p.db.SetMaxIdleConns(limit)
	return query()
}

// prepared runs one prepared statement.
func (p *Pool) prepared(ctx context.Context, query string, args []any, each rowFunc) error {
	s, err := p.acquire(ctx, query)
	if err != nil {
		return err
	}
	defer p.release(s)
	rows, err := s.stmt.QueryxContext(ctx, args...)
	if err != nil {
		return err
	}
	return scan(rows, each)
}

// acquire returns the prepared statement of query, preparing it if it is new.
// The caller must release it.
func (p *Pool) acquire(ctx context.Context, query string) (*statement, error) {
	p.mu.Lock()
	if e, ok := p.stmts[query]; ok {
		p.used.MoveToFront(e)
		s := e.Value.(*statement)
		s.users++
		p.mu.Unlock()
		return s, nil
	}
	p.mu.Unlock()
	stmt, err := p.db.PreparexContext(ctx, query)
	if err != nil {
		return nil, err
	}
	return p.keep(query, stmt), nil
}

// keep stores stmt as the statement of query, unless there is one already, and
// acquires the one that is stored. The statement that was not used for longest
// makes room.
func (p *Pool) keep(query string, stmt *sqlx.Stmt) *statement {
	p.mu.Lock()
	if e, ok := p.stmts[query]; ok {
		s := e.Value.(*statement)
		s.users++
		p.mu.Unlock()
		stmt.Close()
		return s
	}
	s := &statement{query: query, stmt: stmt, users: 1}
	p.stmts[query] = p.used.PushFront(s)
	var old *statement
	if p.used.Len() > maxStatements {
		old = p.used.Remove(p.used.Back()).(*statement)
		delete(p.stmts, old.query)
		old.out = true
		old.users++
	}
	p.mu.Unlock()
	if old != nil {
		p.release(old)
	}
	return s
}

func (p *Pool) release(s *statement) {
	p.mu.Lock()
	s.users--
	closing := s.out && s.users == 0
	p.mu.Unlock()
	if closing {
		s.stmt.Close()
	}
}

// scan hands the rows of the one result set to each and closes rows.
func scan(rows *sqlx.Rows, each rowFunc) (err error) {
	defer func() {
		if closed := rows.Close(); err == nil {
			err = closed
		}
	}()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	if len(columns) == 0 {
		if err := rows.Err(); err != nil {
			return err
		}
		return ErrNoResultSet
	}
	if err := each(columns, nil); err != nil {
		return err
	}
	r := newRow(rows, len(columns))
	for rows.Next() {
		if err := rows.Scan(r.dest...); err != nil {
			return err
		}
		if err := each(columns, r.values); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for rows.NextResultSet() {
		if more, _ := rows.Columns(); len(more) > 0 {
			return errManyResultSets
		}
	}
	return rows.Err()
}
