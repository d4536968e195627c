package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"time"

	mysqldriver "github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
)

const (
	maxStatements = 256 // that a connection keeps prepared
	closeTimeout  = time.Second
)

// conn is one connection with its prepared statements. It is used by one
// goroutine at a time.
type conn struct {
	*sqlx.Conn
	*line
	session      session
	mode         sqlMode // of the session
	opened, used time.Time
	broken       bool // it must not be used again

	raw   driver.Conn // within run
	stmts map[string]*statement
	clock uint64 // counts the uses of statements

	// reused from query to query
	values []any // the caller's
	args   []driver.NamedValue
	dest   []driver.Value
	row    []sql.NullString
}

type statement struct {
	driver.StmtQueryContext
	stmt driver.Stmt
	used uint64
}

// session is what a new connection is asked about itself.
type session struct {
	SQLMode string `db:"sql_mode"`
	Charset string `db:"charset"`
	Version string `db:"version"`
	ID      uint64 `db:"id"`
}

// openConn opens a connection, which is l.
func openConn(ctx context.Context, db *sqlx.DB, l *line) (*conn, error) {
	opened, err := db.Connx(context.WithValue(ctx, lineKey{}, l))
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: opened, line: l, opened: time.Now(), stmts: make(map[string]*statement)}
	if err := c.GetContext(ctx, &c.session, "SELECT @@sql_mode AS sql_mode, @@character_set_client AS charset, VERSION() AS version, CONNECTION_ID() AS id"); err != nil {
		c.close()
		return nil, fmt.Errorf("session on %s: %w", c.name(), err)
	}
	l.patience = 0
	c.mode = c.session.mode()
	return c, nil
}

// errHanging is a query that had no answer in its time.
var errHanging = errors.New("does not answer")

// name is what errors call the host.
func (c *conn) name() string { return c.host.Load().name }

func (c *conn) close() {
	c.net.SetDeadline(time.Now().Add(closeTimeout)) // for the goodbye
	c.Conn.Close()
}

// run runs f, which may ask the server until limit or until ctx is done. After an
// error the connection may be broken.
func (c *conn) run(ctx context.Context, limit time.Time, f func(*conn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.net.SetDeadline(limit)
	stop := func() bool { return true }
	if ctx.Done() != nil {
		stop = context.AfterFunc(ctx, func() { c.net.SetDeadline(time.Unix(1, 0)) })
	}
	err := c.Raw(func(raw any) error {
		c.raw = raw.(driver.Conn)
		return f(c)
	})
	if !stop() {
		c.broken = true // the deadline in the past may be set at any time now
	}
	if err == nil {
		return nil
	}
	valid, ok := c.raw.(driver.Validator)
	if ok && !valid.IsValid() || lost(err) {
		c.broken = true
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !time.Now().Before(limit) {
			return fmt.Errorf("%s %w: %w", c.name(), errHanging, context.DeadlineExceeded)
		}
	}
	return err
}

// extend moves the limit of a query that runs.
func (c *conn) extend(ctx context.Context, limit time.Time) {
	c.net.SetDeadline(limit)
	if ctx.Err() != nil {
		c.net.SetDeadline(time.Unix(1, 0))
	}
}

// prepare prepares query, also if it is already.
func (c *conn) prepare(query string) (*statement, error) {
	if len(c.stmts) >= maxStatements && c.stmts[query] == nil {
		var oldest string
		least := c.clock + 1
		for q, s := range c.stmts {
			if s.used < least {
				oldest, least = q, s.used
			}
		}
		c.stmts[oldest].stmt.Close()
		delete(c.stmts, oldest)
	}
	// The driver would have a goroutine watch a context that can end; the deadline does that here.
	stmt, err := c.raw.(driver.ConnPrepareContext).PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	if old := c.stmts[query]; old != nil {
		old.stmt.Close()
	}
	s := &statement{StmtQueryContext: stmt.(driver.StmtQueryContext), stmt: stmt}
	c.stmts[query] = s
	return s, nil
}

// execute executes query as a prepared statement with args, strings and int64s.
func (c *conn) execute(query string, args []any) (driver.Rows, error) {
	s := c.stmts[query]
	if s == nil {
		var err error
		if s, err = c.prepare(query); err != nil {
			return nil, err
		}
	}
	c.clock++
	s.used = c.clock
	c.args = c.args[:0]
	for i, arg := range args {
		c.args = append(c.args, driver.NamedValue{Ordinal: i + 1, Value: arg})
	}
	return s.QueryContext(context.Background(), c.args)
}

// query hands the rows of a prepared statement to each.
func (c *conn) query(query string, args []any, each rowFunc) error {
	rows, err := c.execute(query, args)
	if err != nil {
		return err
	}
	return c.scan(rows, each)
}

// queryText does the same for a text in which everything is quoted already.
func (c *conn) queryText(text string, each rowFunc) error {
	rows, err := c.raw.(driver.QueryerContext).QueryContext(context.Background(), text, nil)
	if err != nil {
		return err
	}
	return c.scan(rows, each)
}

// scan hands the rows of the one result set to each and closes rows.
func (c *conn) scan(rows driver.Rows, each rowFunc) (err error) {
	defer func() {
		closed := rows.Close() // reads what is left
		var said *mysqldriver.MySQLError
		if closed != nil && !errors.As(closed, &said) {
			c.broken = true
		}
		if err == nil {
			err = closed
		}
	}()
	columns := rows.Columns()
	n := len(columns)
	if n == 0 {
		return ErrNoResultSet
	}
	if err := each(columns, nil); err != nil {
		return err
	}
	if cap(c.dest) < n {
		c.dest, c.row = make([]driver.Value, n), make([]sql.NullString, n)
	}
	dest, row := c.dest[:n], c.row[:n]
	for {
		err := rows.Next(dest)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		for i, value := range dest {
			if row[i], err = render(rows, i, value); err != nil {
				return err
			}
		}
		if err := each(columns, row); err != nil {
			return err
		}
	}
	if more, ok := rows.(driver.RowsNextResultSet); ok && more.HasNextResultSet() {
		switch err := more.NextResultSet(); err {
		case io.EOF:
		case nil:
			return errManyResultSets
		default:
			return err
		}
	}
	return nil
}
