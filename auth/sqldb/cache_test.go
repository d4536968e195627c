package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"dovepost/auth"
	"dovepost/lookup/mysql"
)

// replies is a Recall that has its answers in a list.
type replies struct {
	t    *testing.T
	list []reply
	seen []Question
}

type reply struct {
	answer *Answer
	err    error
}

func (f *replies) recall(string) Recall {
	return func(_ context.Context, q *Question) (*Answer, error) {
		f.seen = append(f.seen, *q)
		if len(f.list) == 0 {
			f.t.Fatal("one question too many")
		}
		next := f.list[0]
		f.list = f.list[1:]
		return next.answer, next.err
	}
}

func withReplies(t *testing.T, passwordQuery string, list ...reply) (*DB, *replies) {
	db, err := Open(&File{Path: "f", PasswordQuery: passwordQuery, UserQuery: "SELECT 1", DefaultPassScheme: "PLAIN"},
		mysql.OpenPool(mysql.Config{Hosts: "unix:/nonexistent"}, 1))
	if err != nil {
		t.Fatal(err)
	}
	f := &replies{t: t, list: list}
	db.Recall(f.recall, f.recall)
	return db, f
}

func rowsOf(password string, cached, stale bool) reply {
	value := sql.NullString{String: password, Valid: password != "NULL"}
	return reply{answer: &Answer{Rows: &mysql.Rows{Columns: []string{"password"}, Values: [][]sql.NullString{{value}}}, Cached: cached, Stale: stale}}
}

func TestRefusalsOfCachedRowsAreAskedAgain(t *testing.T) {
	const query = "SELECT password FROM users WHERE email = '%u' AND '%s' <> ''"
	none := reply{answer: &Answer{Rows: &mysql.Rows{Columns: []string{"password"}}}}
	away := errors.New("away")
	for _, tt := range []struct {
		name  string
		list  []reply
		want  string // the password
		err   error
		asked int
	}{
		{"a row", []reply{rowsOf("x", false, false)}, "{PLAIN}x", nil, 1},
		{"a cached row", []reply{rowsOf("x", true, false)}, "{PLAIN}x", nil, 1},
		{"a row that refuses", []reply{rowsOf("NULL", false, false)}, "", auth.ErrPasswordMismatch, 1},
		{"a cached row that refuses, and still does", []reply{rowsOf("NULL", true, false), rowsOf("NULL", false, false)}, "", auth.ErrPasswordMismatch, 2},
		{"a cached row that refuses no more", []reply{rowsOf("NULL", true, false), rowsOf("x", false, false)}, "{PLAIN}x", nil, 2},
		{"a cached row that refuses, of a user who is gone", []reply{rowsOf("NULL", true, false), none}, "", auth.ErrUnknownUser, 2},
		{"a cached row that refuses, and then silence", []reply{rowsOf("NULL", true, false), {nil, away}}, "", away, 2},
		{"an old row that refuses", []reply{rowsOf("NULL", true, true)}, "", errDoubt, 1},
		{"nobody", []reply{none}, "", auth.ErrUnknownUser, 1},
		{"silence", []reply{{nil, away}}, "", away, 1},
	} {
		db, f := withReplies(t, query, tt.list...)
		row, err := db.LookupPass(t.Context(), &auth.Request{User: "u@example.com", Service: "imap"})
		got := ""
		if row != nil {
			got = row.Password
		}
		if got != tt.want || !errors.Is(err, tt.err) || len(f.seen) != tt.asked {
			t.Errorf("it handles %s: %q, %v, asked %d times; want %q, %v, %d", tt.name, got, err, len(f.seen), tt.want, tt.err, tt.asked)
		}
		if tt.asked == 2 && (f.seen[0].NoCache || !f.seen[1].NoCache) {
			t.Errorf("it handles %s: asked anew %v, then %v; want false, true", tt.name, f.seen[0].NoCache, f.seen[1].NoCache)
		}
	}
}

func TestQuestionsAreAlikeWhenTheirValuesAre(t *testing.T) {
	const query = "SELECT password FROM users WHERE email = '%u' AND enable%Ls = 1 AND '%{rip}' <> '%{session}'"
	alice := auth.Request{User: "alice@example.com", Service: "imap", Session: "1"}
	key := func(r auth.Request) string {
		db, f := withReplies(t, query, rowsOf("x", false, false))
		if _, err := db.LookupPass(t.Context(), &r); err != nil {
			t.Fatal(err)
		}
		return f.seen[0].User + "\x00" + f.seen[0].Values
	}
	changed := map[string]auth.Request{}
	for name, change := range map[string]func(*auth.Request){
		"user":    func(r *auth.Request) { r.User = "alic@example.com" },
		"service": func(r *auth.Request) { r.Service = "pop3" },
		"session": func(r *auth.Request) { r.Session = "2" },
	} {
		r := alice
		change(&r)
		changed[name] = r
		if key(r) == key(alice) {
			t.Errorf("another %s is the same question", name)
		}
	}
	same := alice
	same.Mech, same.NoPenalty = "LOGIN", true
	if key(same) != key(alice) {
		t.Error("what the query does not ask about makes another question")
	}
}

// A query that compares the clear password in the database is not recalled: the
// password would be a part of the key.
func TestClearPasswordsAreInNoQuestion(t *testing.T) {
	db, f := withReplies(t, "SELECT password FROM users WHERE email = '%u'")
	_, err := db.LookupPass(t.Context(), &auth.Request{User: "u@example.com", Password: "secret"})
	if err == nil || len(f.seen) != 0 {
		t.Errorf("%v, %d questions; want an error of the server that is not there, and none", err, len(f.seen))
	}
}
