package mysql

import (
	"context"
	"database/sql/driver"
	"errors"
)

// errInline is a statement that changes rows and cannot be prepared as a whole.
var errInline = errors.New("a variable where nothing can be bound, in a statement that changes rows")

// Exec executes a statement without a result set for the values of the variables, and
// returns how many rows it has changed. Where the connection is lost before the answer
// it is executed again, so it must be one that may be. Errors: as Query's.
func (t *Template[V]) Exec(ctx context.Context, p *Pool, value func(V) string) (changed int64, err error) {
	err = p.do(ctx, func(c *conn) error {
		t, err := t.under(c.mode &^ typed)
		if err != nil {
			return err
		}
		if t.direct {
			return errInline
		}
		text, args, err := t.expand(nil, value)
		if err != nil {
			return err
		}
		changed, err = c.exec(text, args)
		return err
	})
	return changed, err
}

// Exec executes query, a prepared statement without a result set with one ? for each arg,
// a string or an int64, and returns how many rows it has changed. Like Template.Exec it may
// execute it twice.
func (p *Pool) Exec(ctx context.Context, query string, args ...any) (changed int64, err error) {
	err = p.do(ctx, func(c *conn) error {
		changed, err = c.exec(query, args)
		return err
	})
	return changed, err
}

// exec executes query as a prepared statement that changes rows.
func (c *conn) exec(query string, args []any) (changed int64, err error) {
	s := c.stmts[query]
	if s == nil {
		if s, err = c.prepare(query); err != nil {
			return 0, err
		}
	}
	c.clock++
	s.used = c.clock
	values := make([]driver.NamedValue, len(args))
	for i, arg := range args {
		values[i] = driver.NamedValue{Ordinal: i + 1, Value: arg}
	}
	result, err := s.stmt.(driver.StmtExecContext).ExecContext(context.Background(), values)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}
