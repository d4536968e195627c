package store

import (
	"context"
	"testing"

	"dovepost/auth"
	"dovepost/auth/sqldb"
	"dovepost/lookup/mysql"
)

// A question that a cache asks later, when the one who needed the answer has gone on with an old one and
// perhaps as another user, is still about the user that it is kept for.
func TestSQLAskedLater(t *testing.T) {
	file := &sqldb.File{
		PasswordQuery: "SELECT email AS user, password FROM users WHERE email = '%u' OR email = '%n'",
		UserQuery:     "SELECT email AS user, '/home/%n' AS home, 5000 AS uid, 5000 AS gid FROM users WHERE email = '%u' OR email = '%n'",
	}
	_, pool := openSQL(t, "dovecot-seed.conf.ext", db.Socket())
	d, err := sqldb.Open(file, pool)
	if err != nil {
		t.Fatal(err)
	}
	var later *sqldb.Question
	recall := func(string) sqldb.Recall {
		return func(ctx context.Context, q *sqldb.Question) (*sqldb.Answer, error) {
			later = q
			rows, err := q.Ask(ctx)
			return &sqldb.Answer{Rows: rows, Cached: true, Stale: true}, err
		}
	}
	d.Recall(recall, recall)
	for name, lookup := range map[string]func(*auth.Request) error{
		"password": func(r *auth.Request) error { _, err := d.LookupPass(t.Context(), r); return err },
		"user":     func(r *auth.Request) error { _, err := d.LookupUser(t.Context(), r); return err },
	} {
		r := &auth.Request{User: "alice@example.com", Service: "imap"}
		if err := lookup(r); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		r.User = "bob@example.com" // as where his row has a login_user
		var rows *mysql.Rows
		if rows, err = later.Ask(t.Context()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(rows.Values) != 1 || rows.Values[0][0].String != "alice@example.com" {
			t.Errorf("%s: the answer that is kept for alice@example.com is %v", name, rows.Values)
		}
	}
}
