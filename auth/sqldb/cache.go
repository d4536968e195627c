package sqldb

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"dovepost/auth"
	"dovepost/lookup/mysql"
)

// Question is a statement with the values of its variables.
type Question struct {
	User    string // who it is about; no control characters
	Values  string // what else the answer depends on: the values, in one text
	NoCache bool   // the database's present word is wanted
	Ask     func(context.Context) (*mysql.Rows, error)
}

// Answer is what a Question led to.
type Answer struct {
	*mysql.Rows
	Cached bool // it may be older than the question
	Stale  bool // it is, and the database does not answer
}

// Recall answers a Question, from a cache or by asking. Questions with equal User
// and Values are the same. An answer without rows must not be from a cache: it is
// what makes a user unknown.
type Recall func(context.Context, *Question) (*Answer, error)

// Recall has what db asks about users answered by the two functions: one for the
// statement with passwords, and one for the other. Each is made for the statement, a
// text that tells it from any other statement to any server. Set it before the first
// lookup.
func (db *DB) Recall(password, user func(statement string) Recall) {
	db.password.recall = password(db.statement(&db.password))
	db.user.recall = user(db.UserStatement())
}

// UserStatement is a text that tells what LookupUser asks, and which server, from any
// other.
func (db *DB) UserStatement() string { return db.statement(&db.user) }

func (db *DB) statement(q *query) string { return db.pool.Config().String() + " " + q.text }

// ask asks for the rows of r.
func (q *query) ask(ctx context.Context, pool *mysql.Pool, r *auth.Request, values func(*variable) string) (*Answer, error) {
	direct := func(ctx context.Context) (*mysql.Rows, error) { return q.template.Query(ctx, pool, values) }
	if q.recall == nil || r.Password != "" { // a clear password has no business in a cache
		rows, err := direct(ctx)
		return &Answer{Rows: rows}, err
	}
	text, args, err := q.template.Expand(values)
	if err != nil {
		return nil, err
	}
	return q.recall(ctx, &Question{User: r.User, Values: joined(text, args), NoCache: r.NoCache, Ask: direct})
}

// joined is a text that no other statement with other args has.
func joined(text string, args []any) string {
	var b strings.Builder
	add := func(kind byte, s string) {
		b.WriteByte(kind)
		b.WriteString(strconv.Itoa(len(s)))
		b.WriteByte(':')
		b.WriteString(s)
	}
	add('q', text)
	for _, arg := range args {
		switch v := arg.(type) {
		case string:
			add('s', v)
		case int64:
			add('n', strconv.FormatInt(v, 10))
		}
	}
	return b.String()
}

// errDoubt is a refusal that an old row seems to give.
var errDoubt = errors.New("the database does not answer, and what it last said is a refusal")

// proven reads the rows of r. A refusal that a cached row gives is asked for again,
// and is no refusal if the database does not answer.
func proven[T any](ctx context.Context, db *DB, q *query, r *auth.Request, read func(*auth.Request, *Answer) (*T, error)) (*T, error) {
	rows, err := db.rows(ctx, q, r)
	if err != nil {
		return nil, err
	}
	row, err := read(r, rows)
	switch {
	case !rows.Cached || !auth.Refused(err):
		return row, err
	case rows.Stale:
		return nil, q.wrap(errDoubt)
	}
	again := *r
	again.NoCache = true
	if rows, err = db.rows(ctx, q, &again); err != nil {
		return nil, err
	}
	return read(&again, rows)
}
