package database

import (
	"context"
	"database/sql"
	"errors"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"dovepost/auth/sqldb"
	"dovepost/lookup/mysql"
)

// server is a database of one table, and counts what it is asked.
type server struct {
	rows  map[string]string
	err   error
	asked int
}

func (s *server) question(user string) *sqldb.Question {
	return &sqldb.Question{User: user, Values: "v", Ask: func(context.Context) (*mysql.Rows, error) {
		s.asked++
		rows := &mysql.Rows{Columns: []string{"password", "note"}}
		if value, ok := s.rows[user]; ok {
			rows.Values = [][]sql.NullString{{{String: value, Valid: true}, {}}}
		}
		return rows, s.err
	}}
}

func TestRecall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{rows: map[string]string{"alice": "1", "al": "1"}}
		settings := CacheSettings{Fresh: 2 * time.Second, Stale: time.Hour, Size: 1 << 20}
		c := settings.New(5*time.Second, env(false).Log)
		recall := Recall(c, "rows")("SELECT")
		check := func(user string, fresh bool, want string, cached, stale bool) {
			t.Helper()
			q := s.question(user)
			q.NoCache = fresh
			answer, err := recall(t.Context(), q)
			if err != nil {
				t.Errorf("%s: %v", user, err)
				return
			}
			got := ""
			if len(answer.Values) > 0 {
				got = answer.Values[0][0].String
				if answer.Values[0][1].Valid {
					t.Errorf("%s: NULL has become %q", user, answer.Values[0][1].String)
				}
			}
			if got != want || answer.Cached != cached || answer.Stale != stale {
				t.Errorf("%s: %q, cached %v, stale %v; want %q, %v, %v", user, got, answer.Cached, answer.Stale, want, cached, stale)
			}
		}
		check("alice", false, "1", false, false)
		s.rows["alice"] = "2"
		check("alice", false, "1", true, false)
		check("alice", true, "2", false, false)
		check("alice", false, "2", true, false)
		check("al", false, "1", false, false)
		if n := Flush(c, []string{"al", "nobody"}); n != 1 {
			t.Errorf("%d rows of al forgotten, want 1", n)
		}
		check("alice", false, "2", true, false)
		if n := Flush(c, nil); n != 1 {
			t.Errorf("%d rows forgotten, want 1", n)
		}
		check("alice", false, "2", false, false)
		check("nobody", false, "", false, false)
		check("nobody", false, "", false, false)
		time.Sleep(2 * time.Second)
		s.err = errors.New("away")
		check("alice", false, "2", true, true)
		for _, user := range []string{"nobody", "al"} {
			if answer, err := recall(t.Context(), s.question(user)); err == nil {
				t.Errorf("%s while the database is away: %v, want an error", user, answer)
			}
		}
		q := s.question("alice")
		q.NoCache = true
		if answer, err := recall(t.Context(), q); err == nil {
			t.Errorf("the present word while the database is away: %v", answer)
		}
		time.Sleep(time.Hour)
		if answer, err := recall(t.Context(), s.question("alice")); err == nil {
			t.Errorf("after cache_stale: %v, want an error", answer)
		}
	})
}

func TestPack(t *testing.T) {
	value := func(s string) sql.NullString { return sql.NullString{String: s, Valid: true} }
	for name, rows := range map[string]*mysql.Rows{
		"one row":        {Columns: []string{"a", "b"}, Values: [][]sql.NullString{{value("x"), value("")}}},
		"NULL":           {Columns: []string{"a", "b"}, Values: [][]sql.NullString{{{}, value("=")}}},
		"several rows":   {Columns: []string{"a"}, Values: [][]sql.NullString{{value("=x")}, {{}}, {value("z")}}},
		"a column twice": {Columns: []string{"a", "a"}, Values: [][]sql.NullString{{value("1"), value("2")}}},
	} {
		if got, err := unpack(pack(rows)); err != nil || !reflect.DeepEqual(got, rows) {
			t.Errorf("it handles %s: %v, %v; want %v", name, got, err, rows)
		}
	}
	for _, values := range [][]string{nil, {"x"}, {"0"}, {"2", "a"}, {"2", "a", "b", "=1"}, {"-1"}} {
		if rows, err := unpack(values); err == nil {
			t.Errorf("unpack(%q) = %v, want an error", values, rows)
		}
	}
}
