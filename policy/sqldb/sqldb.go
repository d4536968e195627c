// Package sqldb holds what the rules of policyd keep in MySQL: one file for each, with
// the statements for the tables of contrib/mysql/policy.sql.
//
// A statement is a constant text, and its values are bound. All go through DB, which
// does not wait for a server that has failed to answer: see policy/breaker.
package sqldb

import (
	"context"
	"log/slog"
	"time"

	"dovepost/lookup/mysql"
	"dovepost/policy/breaker"
)

// DB is one server and database. It is safe for concurrent use.
type DB struct {
	pool    *mysql.Pool
	breaker *breaker.Breaker
}

// NewBreaker returns what is to stand before all questions to the server of pool. limit
// is what one of them may take.
func NewBreaker(pool *mysql.Pool, limit time.Duration, log *slog.Logger) *breaker.Breaker {
	return &breaker.Breaker{
		Name: pool.Config().String(), Limit: limit, Away: mysql.Away, Log: log,
		Probe: func(ctx context.Context) error {
			_, err := pool.Query(ctx, "SELECT 1")
			return err
		},
	}
}

// New returns the database of pool, which b stands before.
func New(pool *mysql.Pool, b *breaker.Breaker) *DB { return &DB{pool, b} }

// Prepare has the server look at statements, for what policyd does before it is ready.
func (db *DB) Prepare(ctx context.Context, texts ...string) error {
	for _, text := range texts {
		if err := db.pool.Prepare(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

// Pool is whom the statements ask.
func (db *DB) Pool() *mysql.Pool { return db.pool }

// Query asks for rows. Each ? of text is for one of args, a string or an int64. Errors:
// breaker.ErrAway at once while the server is away; any other is of the server, or of
// time. None says anything about the rows.
func (db *DB) Query(ctx context.Context, text string, args ...any) (rows *mysql.Rows, err error) {
	err = db.breaker.Do(ctx, func(ctx context.Context) error {
		rows, err = db.pool.Query(ctx, text, args...)
		return err
	})
	return rows, err
}

// Exec executes a statement without rows, and returns how many it has changed. Where the
// connection is lost before the answer, it is executed again: it must be one that
// may be. Errors as Query's.
func (db *DB) Exec(ctx context.Context, text string, args ...any) (changed int64, err error) {
	err = db.breaker.Do(ctx, func(ctx context.Context) error {
		changed, err = db.pool.Exec(ctx, text, args...)
		return err
	})
	return changed, err
}
