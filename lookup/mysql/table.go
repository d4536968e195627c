package mysql

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"dovepost/lookup"
	"dovepost/lookup/fold"
)

// Table is one mysql_table(5) file in use. It is a lookup.Map.
type Table struct {
	file  *File
	pool  *Pool
	query *Template[byte]
	needs needs // of query and result format together, as in Postfix
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
// rights. See Unreachable for its errors.
func (t *Table) Prepare(ctx context.Context) error {
	sample := splitAddress("user@label.label.label.label.label.label.label.example.com")
	sample.labels = strings.Split(sample.domain, ".")
	if err := t.query.Prepare(ctx, t.pool, sample.variable); err != nil {
		return t.wrap(err)
	}
	return nil
}

// Lookup returns every formatted column of every row, in order. The key is folded
// first. Not found without asking: the empty key, one that is not UTF-8, one
// outside the domain parameter, one that lacks a part which the templates need.
//
// An error that is not lookup.ErrNotFound is temporary: the database did not
// answer or refused, expansion_limit was exceeded, the result is not UTF-8.
func (t *Table) Lookup(ctx context.Context, key string) ([]string, error) {
	if key == "" || !utf8.ValidString(key) {
		return nil, lookup.ErrNotFound
	}
	k, ok := t.split(fold.String(key))
	if !ok {
		return nil, lookup.ErrNotFound
	}
	rows, err := t.query.Query(ctx, t.pool, k.variable)
	switch {
	case errors.Is(err, ErrNoResultSet) && !t.file.requireResultSet:
		return nil, lookup.ErrNotFound
	case err != nil:
		return nil, t.wrap(err)
	}
	var values []string
	for _, row := range rows.Values {
		for _, column := range row {
			value, _, _ := strings.Cut(column.String, "\x00") // Postfix has C strings
			if value == "" {
				continue // NULL, or empty
			}
			value, ok := t.format(value, k)
			if !ok {
				continue
			}
			if values = append(values, value); t.file.expansionLimit > 0 && len(values) > t.file.expansionLimit {
				return nil, t.wrap(fmt.Errorf("expansion limit of %d exceeded for key %q", t.file.expansionLimit, key))
			}
		}
	}
	if len(values) == 0 {
		return nil, lookup.ErrNotFound
	}
	for _, value := range values {
		if !utf8.ValidString(value) {
			return nil, t.wrap(fmt.Errorf("the result for key %q is not UTF-8", key))
		}
	}
	return values, nil
}

func (t *Table) wrap(err error) error { return fmt.Errorf("mysql:%s: %w", t.file.Path, err) }
