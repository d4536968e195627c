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
	locked := make(chan error)
	go func() { locked <- db.Exec("USE mail; LOCK TABLES many WRITE; DO SLEEP(0.7); UNLOCK TABLES") }()
	time.Sleep(200 * time.Millisecond) // until the lock is there
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			limit := 10 * time.Second
			if i%2 == 1 {
				limit = 100 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			start := time.Now()
			values, err := m.Lookup(ctx, "one@many.example")
			switch took := time.Since(start); {
			case i%2 == 1 && (err == nil || errors.Is(err, lookup.ErrNotFound) || took > 400*time.Millisecond):
				t.Errorf("%d: %q, %v after %v; want no answer in time", i, values, err, took)
			case i%2 == 0 && (err != nil || len(values) != 1):
				t.Errorf("%d: %q, %v; want one value", i, values, err)
			}
		})
	}
	all.Wait()
	if err := <-locked; err != nil {
		t.Fatal(err)
	}
}
