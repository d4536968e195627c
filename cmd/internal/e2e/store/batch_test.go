package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"dovepost/lookup"
	"dovepost/lookup/mysql"
)

// batchQueries are what a Set is made of: such as can be asked for several keys at
// once, and such as cannot, or not for every key, or not with these types.
var batchQueries = []string{
	"SELECT v FROM many WHERE k = '%s'",
	"SELECT 'x', v, k FROM many WHERE k = '%u@%d' AND 1 = 1",
	"SELECT v FROM many WHERE k = '%s' ORDER BY v",
	"SELECT k, k FROM many WHERE k = '%s'",
	"SELECT v, v FROM many WHERE k = '%s'", // no derived table has the same name twice
	"SELECT n FROM numbers WHERE k = '%s'",
	"SELECT y, u FROM numbers WHERE k = '%s'",
	"SELECT v FROM many WHERE k = '@%d' LIMIT 1",
	"SELECT (SELECT v FROM many WHERE k = '%s')", // an error for two@
	"SELECT goto FROM alias WHERE address = '%s'",
	"SELECT 'REJECT for %s' FROM many WHERE k = '%s'", // as long as the key
	"SELECT (SELECT v FROM many WHERE k = '%s' LIMIT 1), '%s'",
	"SELECT 1 FROM domains WHERE domain = '%d'",
	"SELECT nonsense FROM many WHERE k = '%s'",
	"SELECT v FROM many WHERE k = '%s'\nexpansion_limit = 1",
	"SELECT v FROM many WHERE k = '%s'\nresult_format = <%s|%D>\ndomain = many.example",
	"SELECT v FROM many WHERE k = '%s' UNION SELECT goto FROM alias WHERE address = '%s'",
	"(SELECT v FROM many WHERE k = '%s')",
	"CALL one('%s')",
}

var batchKeys = []string{"nobody@many.example", "two@many.example", "null@many.example", "empty@many.example", "one@many.example",
	"@many.example", "@two.example", "team@example.com", "ONE@many.example", "@", "", "plain", "many.example", "o'brien@many.example", "one@many.example ", "two@many.example  ", "\xff"}

// oneByOne is what Set.First has to be equal to.
func oneByOne(s mysql.Set, keys []string) (int, []string, error) {
	for i, key := range keys {
		for _, t := range s {
			values, err := t.Lookup(context.Background(), key)
			if err == nil || !errors.Is(err, lookup.ErrNotFound) {
				return i, values, err
			}
		}
	}
	return len(keys), nil, lookup.ErrNotFound
}

// First gives what one lookup after the other gives, for all pairs of tables and for
// many lists of keys; the second time also with what was learned the first time.
func TestFirst(t *testing.T) {
	var tables []*mysql.Table
	for _, query := range batchQueries {
		m, _ := table(t, cfFile(t, "query = "+query+account(socket())), 2)
		tables = append(tables, m)
	}
	show := func(i int, values []string, err error) string {
		switch {
		case err == nil:
			return fmt.Sprintf("%d %q", i, values)
		case errors.Is(err, lookup.ErrNotFound):
			return fmt.Sprintf("%d not found %q", i, values)
		}
		return fmt.Sprintf("%d error %q", i, values)
	}
	hits := 0
	for a := range tables {
		for b := range tables {
			s := mysql.Set{tables[a], tables[b]}
			for n := range 24 {
				var keys []string
				for j := range 1 + n%7 {
					keys = append(keys, batchKeys[(n*5+j*(n%4+1)+a)%len(batchKeys)])
				}
				got := show(s.First(context.Background(), keys))
				want := show(oneByOne(s, keys))
				if got != want {
					t.Errorf("%s\n%s\n%q\n got %s\nwant %s", batchQueries[a], batchQueries[b], keys, got, want)
				}
				if !strings.Contains(want, "not found") {
					hits++
				}
			}
		}
	}
	if hits < 1000 {
		t.Errorf("only %d hits and errors: the test shows too little", hits)
	}
}

// a ladder of four keys over two tables takes two statements and not seven, or four
// where the first key was found the last time.
func TestFirstRoundTrips(t *testing.T) {
	server := ownServer(t)
	path := cfFile(t, usersQuery+account("unix:"+server.Socket()))
	m, _ := table(t, path, 1)
	other, _ := table(t, path, 1)
	s := mysql.Set{m, other}
	ask := func(want string, keys ...string) {
		t.Helper()
		if _, values, err := s.First(context.Background(), keys); err != nil || len(values) != 1 || values[0] != want {
			t.Fatal(values, err)
		}
	}
	last := []string{"a@x", "b@x", "c@x", "bob@example.com"}
	ask("bob@example.com", last...) // prepares
	executed := func() string {
		lines, err := server.Query("SHOW GLOBAL STATUS LIKE 'Com_stmt_execute'")
		if err != nil || len(lines) != 1 {
			t.Fatal(lines, err)
		}
		return lines[0]
	}
	count := func(want int, what string) {
		t.Helper()
		var before, after int
		fmt.Sscan(strings.TrimPrefix(executed(), "Com_stmt_execute"), &before)
		if what == "last" {
			ask("bob@example.com", last...)
		} else {
			ask("alice@example.com", "alice@example.com", "bob@example.com")
		}
		fmt.Sscan(strings.TrimPrefix(executed(), "Com_stmt_execute"), &after)
		if after-before != want {
			t.Errorf("%s: %d statements, want %d", what, after-before, want)
		}
	}
	count(2, "last")  // all keys in each table
	count(1, "first") // both keys, the first of which is there
	count(4, "last")  // the first key in both tables, then all others in each
}

// an error while several keys are asked is the answer, even if a later key is there.
func TestFirstAway(t *testing.T) {
	p := newProxy(t, db.Addr())
	m, _ := table(t, cfFile(t, "query = SELECT email FROM users WHERE email = '%s'\n"+account(p.Addr().String())), 2)
	s := mysql.Set{m}
	keys := []string{"a@x", "b@x", "alice@example.com"}
	if i, values, err := s.First(context.Background(), keys); err != nil || i != 2 || values[0] != keys[2] {
		t.Fatal(i, values, err)
	}
	for keep := int64(0); keep < 200; keep += 3 {
		p.keep.Store(keep)
		p.mode.Store("cut")
		i, values, err := s.First(context.Background(), keys)
		if errors.Is(err, lookup.ErrNotFound) || err == nil && (i != 2 || values[0] != keys[2]) {
			t.Errorf("answers that end after %d octets: got %d %q, %v", keep, i, values, err)
		}
	}
	p.mode.Store("pass")
	if i, _, err := s.First(context.Background(), keys); i != 2 || err != nil {
		t.Errorf("got %d, %v", i, err)
	}
}
