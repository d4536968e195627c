package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"dovepost/lookup"
)

// many callers at the same time get what each would get alone: also next to a key
// that the server has an error for, and for queries that cannot be shared.
func TestShared(t *testing.T) {
	show := func(values []string, err error) string {
		if err != nil && !errors.Is(err, lookup.ErrNotFound) {
			return "error"
		}
		return fmt.Sprintf("%q %v", values, err == nil)
	}
	before := executed(t)
	lookups := 0
	for _, query := range batchQueries {
		m, _ := table(t, cfFile(t, "query = "+query+account(socket())), 4)
		want := map[string]string{}
		for _, key := range batchKeys {
			want[key] = show(m.Lookup(context.Background(), key))
		}
		var all sync.WaitGroup
		for i := range 16 {
			all.Go(func() {
				for j := range 60 {
					key := batchKeys[(i*7+j*(1+i%3))%len(batchKeys)]
					if got := show(m.Lookup(context.Background(), key)); got != want[key] {
						t.Errorf("%s: %q: got %s, want %s", query, key, got, want[key])
					}
				}
			})
		}
		all.Wait()
		lookups += 16 * 60
	}
	if n := executed(t) - before; n > lookups*3/4 {
		t.Errorf("%d statements for %d lookups", n, lookups)
	}
}

// executed is how many prepared statements the server has executed.
func executed(t *testing.T) (n int) {
	t.Helper()
	lines, err := db.Query("SHOW GLOBAL STATUS LIKE 'Com_stmt_execute'")
	if err != nil || len(lines) != 1 {
		t.Fatal(lines, err)
	}
	fmt.Sscanf(lines[0], "Com_stmt_execute %d", &n)
	return n
}

// while the table is locked each caller keeps to its own time, and nobody is told
// that a key is not there.
func TestSharedSlow(t *testing.T) {
	m, _ := table(t, cfFile(t, "query = SELECT v FROM many WHERE k = '%s'"+account(socket())), 4)
	if _, err := m.Lookup(context.Background(), "one@many.example"); err != nil {
		t.Fatal(err)
	}
	unlock := lock(t, "mail.many")
	var patient, impatient sync.WaitGroup
	for i := range 8 {
		ask := func(limit time.Duration) ([]string, error) {
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			return m.Lookup(ctx, "one@many.example")
		}
		patient.Go(func() {
			if values, err := ask(time.Minute); err != nil || len(values) != 1 {
				t.Errorf("%d: %q, %v; want one value", i, values, err)
			}
		})
		impatient.Go(func() {
			if values, err := ask(100 * time.Millisecond); err == nil || errors.Is(err, lookup.ErrNotFound) {
				t.Errorf("%d: %q, %v; want no answer in time", i, values, err)
			}
		})
	}
	impatient.Wait()
	unlock()
	patient.Wait()
}

// lock locks a table of db for writing, and returns when it is locked.
func lock(t *testing.T, table string) (unlock func()) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- db.Exec("LOCK TABLES " + table + " WRITE; SELECT SLEEP(1000) AS holding_the_lock") }()
	for {
		ids, err := db.Query("SELECT id FROM information_schema.processlist WHERE info LIKE '%holding_the_lock' AND info LIKE 'SELECT SLEEP%'")
		if err != nil {
			t.Fatal(err)
		}
		if len(ids) == 1 {
			return func() {
				if err := db.Exec("KILL " + ids[0]); err != nil {
					t.Error(err)
				}
				<-ended // an error, since it was killed
			}
		}
		select {
		case err := <-ended:
			t.Fatalf("%s was not locked: %v", table, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
