package sqldb

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"dovepost/auth"
	"dovepost/auth/expand"
	"dovepost/lookup/mysql"
)

// Statement is one that a setting gives, beside those of the file: with Dovecot 2.3's
// variables, and with variables of its own, %{name}. All values are bound.
type Statement struct {
	name      string
	db        *DB
	template  *mysql.Template[*ownVariable]
	variables []*ownVariable
	recall    Recall // may be nil
	text      string
}

// ownVariable is a variable of Dovecot's, or one of the statement's own.
type ownVariable struct {
	*expand.Variable        // nil: its own
	own              string // the name
}

// Statement compiles text, to be asked of db's server. Name is the setting's. Errors
// say what cannot be expanded or bound.
func (db *DB) Statement(name, text string, own ...string) (*Statement, error) {
	s := &Statement{name: name, db: db, text: text}
	var err error
	s.template, err = mysql.Compile(text, interned(func(text string) (mysql.Variable[*ownVariable], error) {
		v, n, err := scanOwn(text, own)
		switch {
		case err != nil:
			return mysql.Variable[*ownVariable]{}, err
		case v == nil:
			return mysql.Variable[*ownVariable]{Len: n, Literal: true}, nil
		}
		return mysql.Variable[*ownVariable]{Len: n, Value: v, Trusted: v.Variable != nil && v.Trusted()}, nil
	}, func(v *ownVariable) { s.variables = append(s.variables, v) }))
	if err == nil && s.template.Direct() {
		err = fmt.Errorf("it has a variable where nothing can be bound")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// scanOwn reads the variable at the start of text; nil is the literal '%'.
func scanOwn(text string, own []string) (v *ownVariable, n int, err error) {
	if name, _, ok := strings.Cut(strings.TrimPrefix(text, "%{"), "}"); ok && strings.HasPrefix(text, "%{") && slices.Contains(own, name) {
		return &ownVariable{own: name}, len("%{}") + len(name), nil
	}
	known, n, err := expand.Scan(text)
	switch {
	case err != nil, known == nil:
		return nil, n, err
	case known.Secret():
		return nil, 0, errClear
	}
	return &ownVariable{Variable: known}, n, nil
}

// values returns what the variables stand for.
func (s *Statement) values(r *auth.Request, own map[string]string) (func(*ownVariable) string, error) {
	values := make(map[*ownVariable]string, len(s.variables))
	for _, v := range s.variables {
		if v.Variable == nil {
			values[v] = own[v.own]
			continue
		}
		value, err := v.Value(expand.Values{Request: r})
		if err != nil {
			return nil, err
		}
		values[v] = value
	}
	return func(v *ownVariable) string { return values[v] }, nil
}

// Prepare has the server prepare the statement. One that is put together from
// variables is good if any service makes a good one. See mysql.Unreachable.
func (s *Statement) Prepare(ctx context.Context) error {
	own := map[string]string{}
	for _, v := range s.variables {
		own[v.own] = "1" // a number, too
	}
	err := prepare(ctx, s.db.pool, s.template, func(r *auth.Request) (func(*ownVariable) string, error) { return s.values(r, own) })
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return nil
}

// Exec executes the statement, which gives no rows and may be executed once more than
// it should be, and returns how many rows it has changed.
func (s *Statement) Exec(ctx context.Context, r *auth.Request, own map[string]string) (changed int64, err error) {
	values, err := s.values(r, own)
	if err == nil {
		changed, err = s.template.Exec(ctx, s.db.pool, values)
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", s.name, err)
	}
	return changed, nil
}

// Recall has the rows of the statement answered by recall. See DB.Recall.
func (s *Statement) Recall(recall func(statement string) Recall) {
	s.recall = recall(s.db.pool.Config().String() + " " + s.text)
}

// rows asks for the rows of r, from a cache where there is one.
func (s *Statement) rows(ctx context.Context, r *auth.Request) (*Answer, error) {
	values, err := s.values(r, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	ask := func(ctx context.Context) (*mysql.Rows, error) { return s.template.Query(ctx, s.db.pool, values) }
	answer := new(Answer)
	if s.recall == nil {
		answer.Rows, err = ask(ctx)
	} else {
		var text string
		var args []any
		if text, args, err = s.template.Expand(values); err == nil {
			answer, err = s.recall(ctx, &Question{User: r.User, Values: joined(text, args), NoCache: r.NoCache, Ask: ask})
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return answer, nil
}
