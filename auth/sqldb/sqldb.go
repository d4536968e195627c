// Package sqldb finds passwords and users in MySQL, as Dovecot's passdb and userdb
// of driver sql do: from a dovecot-sql.conf.ext of Dovecot 2.3 as it stands, or,
// without one, in the built-in layout (see Seed).
//
//	file, err := sqldb.ReadFile("/etc/dovecot/dovecot-sql.conf.ext")
//	db, err := sqldb.Open(file, mysql.OpenPool(file.Config(), 8))
//	user, err := db.LookupUser(ctx, &auth.Request{User: "alice@example.com", Service: "lmtp"})
//
// The inline form of Dovecot 2.4 is understood as well (see ReadFile).
//
// Values of variables are bound to prepared statements. Where a variable is part
// of a column's name ("enable%Ls"), it must be a plain word. Passwords are not
// checked here, hashes are not understood, and nothing is cached but by a Recall.
//
// Two forms that Dovecot 2.3 no longer understands are taken as they were meant:
// mail "Maildir" is "maildir:~/Maildir", and quota_rule "dirsize:storage=N" is
// "*:storage=N".
package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"strings"

	"dovepost/auth"
	"dovepost/auth/expand"
	"dovepost/lookup/mysql"
)

// DB is an auth.Passdb and an auth.Userdb. It is safe for concurrent use.
type DB struct {
	pool     *mysql.Pool
	scheme   string // of passwords without {SCHEME}
	password query
	user     query
	iterate  query

	modern  bool // rows have the field names of Dovecot 2.4
	fields  []staticField
	listing chan struct{}          // has room for one: who lists the users
	finish  func(*auth.User) error // completes a user; may be nil
}

var (
	_ auth.Passdb = (*DB)(nil)
	_ auth.Userdb = (*DB)(nil)
)

// query is one of the three statements.
type query struct {
	name     string // password_query ...
	builtIn  bool   // the file does not set it
	modern   bool   // written for Dovecot 2.4
	text     string
	recall   Recall // may be nil
	template *mysql.Template[*variable]
	made     []*variable // those of its variables that are more than a value as it is
	refused  error       // why it is never asked
}

// Open compiles the queries of f, to be asked through pool. Errors name the file
// and the query, and what in it cannot be expanded or bound.
func Open(f *File, pool *mysql.Pool) (*DB, error) {
	db := &DB{pool: pool, scheme: f.DefaultPassScheme, modern: f.modern, fields: f.fields, listing: make(chan struct{}, 1)}
	iterateQuery := f.IterateQuery
	if iterateQuery == "" {
		iterateQuery = listOf(f.UserQuery)
	}
	for _, q := range []struct {
		to                   *query
		name, text, fallback string
	}{
		{&db.password, "password_query", withName(f.PasswordQuery), defaultPasswordQuery},
		{&db.user, "user_query", withName(f.UserQuery), defaultUserQuery},
		{&db.iterate, "iterate_query", iterateQuery, defaultIterateQuery},
	} {
		*q.to = query{name: f.Path + ": " + q.name, builtIn: q.text == "", modern: f.modern}
		if q.text == "" {
			q.text = q.fallback
		}
		q.to.text = q.text
		var err error
		if q.to.template, err = mysql.Compile(q.text, f.scan(q.to)); err != nil {
			return nil, fmt.Errorf("%s: %w", q.to.name, err)
		}
	}
	db.user.refused, db.iterate.refused = nil, nil // there is no password in these, and %w is empty
	return db, nil
}

// wrap names the query in err.
func (q *query) wrap(err error) error {
	if q.builtIn {
		return fmt.Errorf("%s is not set, and Dovecot's own default fails: %w", q.name, err)
	}
	return fmt.Errorf("%s: %w", q.name, err)
}

// samples are what a statement whose names depend on variables is tried with.
var samples = []auth.Request{
	{User: "user@example.com", Service: "imap"},
	{User: "user@example.com", Service: "imap", Secured: true, TLS: true},
	{User: "user@example.com", Service: "imap", Secured: true},
	{User: "user@example.com", Service: "pop3"},
	{User: "user@example.com", Service: "smtp"},
	{User: "user@example.com", Service: "lmtp"},
	{User: "user@example.com", Service: "doveadm"},
}

// prepare has the server prepare a statement, with the values of a sample. One that is put together from
// variables is good if any of the samples is.
func prepare[V any](ctx context.Context, pool *mysql.Pool, t *mysql.Template[V], valuesOf func(*auth.Request) (func(V) string, error)) error {
	var first error
	for i := range samples {
		values, err := valuesOf(&samples[i])
		if err == nil {
			err = t.Prepare(ctx, pool, values)
		}
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
		if !t.Names() || mysql.Unreachable(err) {
			break
		}
	}
	return first
}

func (q *query) prepare(ctx context.Context, pool *mysql.Pool) error {
	if q.builtIn {
		return nil // the file says nothing; whether it is needed shows when it is asked
	}
	if err := prepare(ctx, pool, q.template, q.values); err != nil {
		return q.wrap(err)
	}
	return nil
}

// Statements are what Prepare has prepared, for those who can do without one of them.
func (db *DB) Statements() (prepare []func(context.Context) error) {
	for _, q := range []*query{&db.password, &db.user, &db.iterate} {
		if !q.builtIn {
			prepare = append(prepare, func(ctx context.Context) error { return q.prepare(ctx, db.pool) })
		}
	}
	return prepare
}

// Prepare has the server prepare all statements that the file sets, which checks
// syntax, names and rights. See mysql.Unreachable for its errors.
func (db *DB) Prepare(ctx context.Context) error {
	for _, prepare := range db.Statements() {
		if err := prepare(ctx); err != nil {
			return err
		}
	}
	return nil
}

// PrepareUserdb is Prepare of the user query alone, for who neither reads passwords nor lists users.
func (db *DB) PrepareUserdb(ctx context.Context) error { return db.user.prepare(ctx, db.pool) }

// rows asks for the rows of r. An answer that is ErrUnknownUser is never from a cache.
func (db *DB) rows(ctx context.Context, q *query, r *auth.Request) (*Answer, error) {
	if r.User == "" || strings.ContainsFunc(r.User, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		// Some collations ignore control characters, so the database would find
		// another user's row.
		return nil, auth.ErrUnknownUser
	}
	if q.recall != nil {
		// A cache may ask when the caller has gone on with an old answer, perhaps as another user.
		of := *r
		r = &of
	}
	values, err := q.values(r)
	if err != nil {
		return nil, q.wrap(err)
	}
	rows, err := q.ask(ctx, db.pool, r, values)
	if err != nil {
		return nil, q.wrap(err)
	}
	if len(rows.Values) == 0 {
		return nil, auth.ErrUnknownUser
	}
	return rows, nil
}

// LookupPass returns the row of r.User. Beside auth.ErrUnknownUser there is
// auth.ErrPasswordMismatch for a row without a password. That the query failed,
// gave no password column or gave several rows is temporary.
func (db *DB) LookupPass(ctx context.Context, r *auth.Request) (*auth.Credentials, error) {
	return proven(ctx, db, &db.password, r, db.credentials)
}

// credentials reads the rows of a password query.
func (db *DB) credentials(r *auth.Request, rows *Answer) (*auth.Credentials, error) {
	if len(rows.Values) > 1 {
		return nil, db.password.wrap(errors.New("multiple matches"))
	}
	if own(rows.Rows, r.User) < 0 {
		return nil, auth.ErrUnknownUser
	}
	p := newPass(r, db.scheme)
	for i, name := range rows.Columns {
		if name != storedName {
			p.column(name, rows.Values[0][i])
		}
	}
	if db.modern {
		p.userdb.fields = inOldTerms(p.userdb.fields)
	}
	c, err := p.credentials()
	if err != nil {
		return nil, db.password.wrap(err)
	}
	c.Cached, c.Stale = rows.Cached, rows.Stale
	return c, nil
}

// LookupUser returns the row of r.User, the first if there are several. Errors:
// auth.ErrUnknownUser; any other is temporary.
func (db *DB) LookupUser(ctx context.Context, r *auth.Request) (*auth.User, error) {
	return proven(ctx, db, &db.user, r, db.account)
}

// account reads the rows of a user query.
func (db *DB) account(r *auth.Request, rows *Answer) (*auth.User, error) {
	i := own(rows.Rows, r.User)
	if i < 0 {
		return nil, auth.ErrUnknownUser
	}
	row := rows.Values[i]
	u := newAccount(r)
	for i, name := range rows.Columns {
		if row[i].Valid && name != storedName {
			u.set(name, text(row[i]))
		}
	}
	if u.static(db.fields); db.modern {
		u.fields = inOldTerms(u.fields)
	}
	user, err := u.user()
	if err == nil && db.finish != nil {
		err = db.finish(user)
	}
	if err != nil {
		return nil, db.user.wrap(err)
	}
	return user, nil
}

// text is a value as Dovecot sees it, a C string.
func text(value sql.NullString) string {
	s, _, _ := strings.Cut(value.String, "\x00")
	return s
}

// maxNames bounds the octets of all names that one list may have.
const maxNames = 64 << 20

// Users yields the names of all users that match mask. They are gathered first:
// doveadm -A takes the next name when it has finished with the one before, for
// hours, and the server would neither wait so long nor spare the connection.
func (db *DB) Users(ctx context.Context, mask string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		names, err := db.list(ctx, mask)
		if err != nil {
			yield("", db.iterate.wrap(err))
			return
		}
		for name := range strings.SplitSeq(strings.TrimSuffix(names, "\x00"), "\x00") {
			if names == "" || !yield(name, nil) {
				return
			}
		}
	}
}

// list returns the names that match mask, a NUL behind each. One list is made at a
// time, so that logins find a connection.
func (db *DB) list(ctx context.Context, mask string) (string, error) {
	select {
	case db.listing <- struct{}{}:
		defer func() { <-db.listing }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	// Variables of an iterate_query have nobody to stand for but the asker.
	value, err := db.iterate.values(&auth.Request{Service: "doveadm"})
	if err != nil {
		return "", err
	}
	var names strings.Builder
	err = db.iterate.template.Each(ctx, db.pool, value, func(columns []string, row []sql.NullString) error {
		name, err := userName(columns, row)
		switch {
		case err != nil:
			return err
		case mask != "" && !expand.Match(mask, name):
			return nil
		case names.Len()+len(name) >= maxNames:
			return fmt.Errorf("names of more than %d octets", maxNames)
		}
		names.WriteString(name)
		names.WriteByte(0) // text has none
		return nil
	})
	return names.String(), err
}

// userName reads a row of iterate_query: user, or username with or without domain.
func userName(columns []string, row []sql.NullString) (string, error) {
	var name, domain string
	found := false
	for i, column := range columns {
		switch {
		case column == "user", column == "username" && !found:
			if !row[i].Valid {
				return "", errors.New("NULL user")
			}
			name, found = text(row[i]), true
			if column == "user" {
				return name, nil
			}
		case column == "domain" && row[i].Valid:
			domain = "@" + text(row[i])
		}
	}
	if !found {
		return "", errors.New("no column user or username")
	}
	return name + domain, nil
}
