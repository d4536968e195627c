package mysql

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	mysqldriver "github.com/go-sql-driver/mysql"

	"dovepost/lookup"
)

// Table is one mysql_table(5) file in use. It is a lookup.Map.
type Table struct {
	file  *File
	pool  *Pool
	query *Template[byte]
	needs needs       // of query and result format together, as in Postfix
	alone atomic.Bool // the server does not take the query as a part of another one
	deep  atomic.Bool // the last ladder did not find its first key
	share share
}

var _ lookup.Map = (*Table)(nil)

// NewTable compiles the query of f, to be asked through pool. Errors name the
// file and the line, and what in the template cannot be expanded or bound.
func NewTable(f *File, pool *Pool) (*Table, error) {
	if f.query == "" {
		return nil, fmt.Errorf("%s: neither 'query' nor 'table' parameter defined", f.Path)
	}
	t := &Table{file: f, pool: pool}
	var err error
	if t.query, err = Compile(f.query, scanQuery); err != nil {
		return nil, fmt.Errorf("%s:%d: query: %w", f.Path, f.queryLine, err)
	}
	if err := t.needs.add(f.query, true); err != nil {
		return nil, fmt.Errorf("%s:%d: query: %w", f.Path, f.queryLine, err)
	}
	if err := t.needs.add(f.resultFormat, false); err != nil {
		return nil, fmt.Errorf("%s:%d: result_format: %w", f.Path, f.resultLine, err)
	}
	return t, nil
}

// Direct reports whether the query goes out as text instead of prepared, because
// a variable stands where no placeholder can.
func (t *Table) Direct() bool { return t.query.Direct() }

// Prepare has the server prepare the query, which checks syntax, names and
// rights. See Unreachable for its errors. Names that a key makes cannot be checked: a
// server that does not know those of a key that nobody has asked for says nothing.
func (t *Table) Prepare(ctx context.Context) error {
	var err error
	for _, key := range []string{"user@label.label.label.label.label.label.label.example.com", "1", "1@com"} {
		sample := splitAddress(key)
		sample.labels = strings.Split(cmp.Or(sample.domain, "1"), ".")
		for len(sample.labels) < 9 {
			sample.labels = append(sample.labels, sample.labels[0])
		}
		sample.domain = cmp.Or(sample.domain, sample.whole)
		if err = t.query.Prepare(ctx, t.pool, sample.variable); !errors.Is(err, errUnfit) {
			break // else a number is wanted where a name is not, or the other way round
		}
	}
	switch {
	case err == nil, errors.Is(err, errUnfit), t.query.Names() && nameless(err):
		return nil
	}
	return t.wrap(err)
}

// nameless reports whether a server that can be used has refused a statement because of
// a name in it: it is not there, or, as far as it tells, not for this account.
func nameless(err error) bool {
	var said *mysqldriver.MySQLError
	if !errors.As(err, &said) {
		return false
	}
	switch said.Number {
	case 1146, 1051, 1109, 1054, 1305, // no such table, column, procedure
		1142, 1143, 1370: // or no right to it
		return true
	}
	return false
}

// Lookup returns every formatted column of every row, in order. The key is folded
// first. Not found without asking: the empty key, one that is not UTF-8, one
// outside the domain parameter, one that lacks a part which the templates need.
//
// An error that is not lookup.ErrNotFound is temporary: the database did not
// answer or refused, expansion_limit was exceeded, the result is not UTF-8.
func (t *Table) Lookup(ctx context.Context, key string) ([]string, error) {
	k := t.split(key)
	if k == nil {
		return nil, lookup.ErrNotFound
	}
	return t.ask(ctx, k)
}

// ask asks the database for a key that split let through.
func (t *Table) ask(ctx context.Context, k *parts) ([]string, error) {
	if t.repeats() {
		switch replies, err := t.answers(ctx, k); err {
		case nil:
			return t.say(ctx, &replies[0])
		case errAlone:
		default:
			return nil, t.wrap(err)
		}
	}
	return t.askAlone(ctx, k)
}

// askAlone does so with a statement for that key alone.
func (t *Table) askAlone(ctx context.Context, k *parts) ([]string, error) {
	var a answer
	err := t.pool.do(ctx, func(c *conn) error {
		a = answer{}
		start := time.Now()
		defer func() { t.share.took(time.Since(start)) }()
		return t.query.query(c, k.variable, func(_ []string, row []sql.NullString) error {
			return a.add(t, k, row)
		})
	})
	switch {
	case errors.Is(err, ErrNoResultSet) && !t.file.requireResultSet:
		return nil, lookup.ErrNotFound
	case err != nil:
		return nil, t.wrap(err)
	}
	err = a.outcome(t, k)
	return a.values, err
}

// answer gathers what the rows for one key come to.
type answer struct {
	values []string
	rows   int
	count  int // of values, also those beyond expansion_limit
	octets int
}

// add adds a row.
func (a *answer) add(t *Table, k *parts, row []sql.NullString) error {
	if row == nil {
		return nil
	}
	if a.rows++; a.rows > maxRows {
		return errTooLarge
	}
	for i := range row {
		value, _, _ := strings.Cut(row[i].String, "\x00") // Postfix has C strings
		if value == "" {
			continue // NULL, or empty
		}
		value, ok := t.format(value, k)
		if !ok {
			continue
		}
		if a.octets += len(value); a.octets > maxOctets {
			return errTooLarge
		}
		if a.count++; t.file.expansionLimit == 0 || a.count <= t.file.expansionLimit {
			a.values = append(a.values, value)
		}
	}
	return nil
}

// outcome is the error of Lookup.
func (a *answer) outcome(t *Table, k *parts) error {
	switch {
	case a.count == 0:
		return lookup.ErrNotFound
	case a.count > len(a.values):
		a.values = nil
		return t.wrap(fmt.Errorf("expansion limit of %d exceeded for key %q", t.file.expansionLimit, k.whole))
	}
	for _, value := range a.values {
		if !utf8.ValidString(value) {
			a.values = nil
			return t.wrap(fmt.Errorf("the result for key %q is not UTF-8", k.whole))
		}
	}
	return nil
}

func (t *Table) wrap(err error) error { return fmt.Errorf("mysql:%s: %w", t.file.Path, err) }
