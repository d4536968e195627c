package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dovepost/lookup"
)

const fresh = 2 * time.Second

var errAway = errors.New("connection refused")

// source is a map that counts what it is asked.
type source struct {
	mu    sync.Mutex
	rows  map[string]string
	err   error
	took  time.Duration
	asked int
}

func (s *source) Lookup(ctx context.Context, key string) ([]string, error) {
	s.mu.Lock()
	value, ok := s.rows[key] // a transaction sees what was there when it began
	err, took := s.err, s.took
	s.asked++
	s.mu.Unlock()
	select {
	case <-time.After(took):
	case <-ctx.Done():
		return nil, fmt.Errorf("mysql: %w", ctx.Err())
	}
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, fmt.Errorf("table: %w", lookup.ErrNotFound)
	}
	return []string{value}, nil
}

func (s *source) set(key, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows[key] = value
}

// check asks m for key and compares the value, or "-" for not found.
func check(t *testing.T, m *Map, key, want string) {
	t.Helper()
	values, err := m.Lookup(t.Context(), key)
	got := strings.Join(values, ",")
	if errors.Is(err, lookup.ErrNotFound) {
		got, err = "-", nil
	}
	if got != want || err != nil {
		t.Errorf("%s is %q, %v; want %q", key, got, err, want)
	}
}

func TestFreshness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{rows: map[string]string{"a": "1"}}
		m := New(fresh, 1<<20).Map("m", s)
		check(t, m, "a", "1")
		check(t, m, "b", "-")
		s.set("a", "2")
		s.set("b", "3")
		time.Sleep(fresh - time.Nanosecond)
		check(t, m, "a", "1")
		check(t, m, "b", "-")
		if s.asked != 2 {
			t.Errorf("asked %d times; want 2", s.asked)
		}
		time.Sleep(time.Nanosecond)
		check(t, m, "a", "2")
		check(t, m, "b", "3")
		hits, _, misses, entries, bytes := m.cache.Stats()
		if hits != 2 || misses != 4 || entries != 2 || bytes < 2*overhead || bytes > 3*overhead {
			t.Errorf("Stats = %d, %d, %d, %d; want 2, 4, 2, about %d", hits, misses, entries, bytes, 2*overhead)
		}
	})
}

// An answer is as old as its question: a slow one is not fresh for longer.
func TestSlowAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{rows: map[string]string{"a": "1"}, took: fresh - time.Millisecond}
		m := New(fresh, 1<<20).Map("m", s)
		check(t, m, "a", "1")
		s.set("a", "2")
		time.Sleep(time.Millisecond)
		check(t, m, "a", "2")
	})
}

func TestErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{rows: map[string]string{"a": "1"}, err: errAway}
		m := New(fresh, 1<<20).Map("m", s)
		for range 3 {
			if _, err := m.Lookup(t.Context(), "a"); err != errAway {
				t.Errorf("Lookup = %v; want %v", err, errAway)
			}
		}
		if s.asked != 3 {
			t.Errorf("asked %d times; want 3: an error is never kept", s.asked)
		}
		s.err = nil
		check(t, m, "a", "1")
	})
}

// A map that answers nothing has not said "not found".
func TestNothing(t *testing.T) {
	asked := 0
	m := New(fresh, 1<<20).Map("m", lookup.Func(func(context.Context, string) ([]string, error) {
		asked++
		return nil, nil
	}))
	for range 2 {
		if values, err := m.Lookup(t.Context(), "a"); values != nil || err != nil {
			t.Errorf("Lookup = %q, %v; want what the map said", values, err)
		}
	}
	if asked != 2 {
		t.Errorf("asked %d times; want 2", asked)
	}
}

func TestOneFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{rows: map[string]string{"a": "1"}, took: time.Second}
		m := New(fresh, 1<<20).Map("m", s)
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { check(t, m, "a", "1") })
		}
		all.Wait()
		if s.asked != 1 {
			t.Errorf("asked %d times; want 1", s.asked)
		}
	})
}

// Who joins a question gets no answer that would be too old for the cache.
func TestOldFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{rows: map[string]string{"a": "1"}, took: 4 * time.Second}
		m := New(fresh, 1<<20).Map("m", s)
		var all sync.WaitGroup
		all.Go(func() { check(t, m, "a", "1") })
		time.Sleep(fresh)
		s.set("a", "2")
		all.Go(func() { check(t, m, "a", "2") })
		all.Wait()
		if s.asked != 2 {
			t.Errorf("asked %d times; want 2", s.asked)
		}
	})
}

// The one who asks may give up; those who wait for the same answer do not.
func TestImpatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{rows: map[string]string{"a": "1"}, took: time.Second}
		m := New(fresh, 1<<20).Map("m", s)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := m.Lookup(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the first: %v; want a deadline", err)
			}
		})
		synctest.Wait()
		all.Go(func() { check(t, m, "a", "1") })
		all.Go(func() {
			if _, err := m.Lookup(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("another with the same deadline: %v", err)
			}
		})
		all.Wait()
	})
}

// A panic of the map is its caller's; the others get an error and the key can be asked again.
func TestPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := true
		m := New(fresh, 1<<20).Map("m", lookup.Func(func(context.Context, string) ([]string, error) {
			time.Sleep(time.Second)
			if first {
				first = false
				panic("broken map")
			}
			return []string{"1"}, nil
		}))
		var all sync.WaitGroup
		all.Go(func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic is lost")
				}
			}()
			m.Lookup(t.Context(), "a")
		})
		synctest.Wait()
		all.Go(func() {
			if _, err := m.Lookup(t.Context(), "a"); err != errGone {
				t.Errorf("who waited got %v; want %v", err, errGone)
			}
		})
		all.Wait()
		check(t, m, "a", "1")
	})
}

func TestMapsApart(t *testing.T) { synctest.Test(t, mapsApart) }

func mapsApart(t *testing.T) {
	c := New(fresh, 1<<20)
	one := c.Map("one", &source{rows: map[string]string{"a": "1"}})
	two := c.Map("two", &source{rows: map[string]string{"a": "2"}})
	check(t, one, "a", "1")
	check(t, two, "a", "2")
	// After a reload the same name finds its answers again.
	again := &source{}
	check(t, c.Map("one", again), "a", "1")
	if again.asked != 0 {
		t.Errorf("asked %d times; want 0", again.asked)
	}
}

func TestFresh(t *testing.T) { synctest.Test(t, freshOnly) }

func freshOnly(t *testing.T) {
	m := New(fresh, 1<<20).Map("m", &source{rows: map[string]string{"a": "1"}})
	if values, ok, err := m.Fresh([]byte("a")); values != nil || ok || err != nil {
		t.Errorf("before: %q, %v, %v; want nothing", values, ok, err)
	}
	check(t, m, "a", "1")
	check(t, m, "b", "-")
	if values, ok, err := m.Fresh([]byte("a")); !slices.Equal(values, []string{"1"}) || !ok || err != nil {
		t.Errorf("found: %q, %v, %v", values, ok, err)
	}
	if values, ok, err := m.Fresh([]byte("b")); values != nil || !ok || err != lookup.ErrNotFound {
		t.Errorf("not found: %q, %v, %v", values, ok, err)
	}
}

func TestAllocs(t *testing.T) {
	m := New(time.Hour, 1<<20).Map("m", &source{rows: map[string]string{"alice@example.com": "1"}})
	check(t, m, "alice@example.com", "1")
	check(t, m, "nobody@example.com", "-")
	for _, key := range []string{"alice@example.com", "nobody@example.com"} {
		octets := []byte(key)
		if n := testing.AllocsPerRun(1000, func() { m.Fresh(octets) }); n != 0 {
			t.Errorf("Fresh(%s): %v allocations; want 0", key, n)
		}
		if n := testing.AllocsPerRun(1000, func() { m.Lookup(t.Context(), key) }); n != 0 {
			t.Errorf("Lookup(%s): %v allocations; want 0", key, n)
		}
	}
}

// However many keys are asked, the bound holds, and what is used stays.
func TestBound(t *testing.T) {
	const size = 1 << 20
	s := &source{rows: map[string]string{"hot": "1"}}
	c := New(time.Hour, size)
	m := c.Map("m", s)
	check(t, m, "hot", "1")
	for i := range 20_000 {
		check(t, m, "key"+strconv.Itoa(i), "-")
		if i%100 == 0 {
			check(t, m, "hot", "1")
		}
	}
	asked := s.asked
	check(t, m, "hot", "1")
	if s.asked != asked {
		t.Error("what is in use was forgotten")
	}
	_, _, _, entries, bytes := c.Stats()
	if bytes > size || bytes < size*9/10 || entries < 4000 {
		t.Errorf("%d entries, %d octets; want a bit less than %d", entries, bytes, size)
	}
	s.set("large", strings.Repeat("x", size/shardCount))
	check(t, m, "large", s.rows["large"])
	if _, _, _, after, _ := c.Stats(); after < entries*9/10 {
		t.Errorf("one answer that is too large threw %d out", entries-after)
	}
}

func TestNoCache(t *testing.T) {
	s := &source{rows: map[string]string{"a": "1"}}
	m := New(0, 0).Map("m", s)
	for range 3 {
		check(t, m, "a", "1")
	}
	if _, ok, _ := m.Fresh([]byte("a")); ok || s.asked != 3 {
		t.Errorf("asked %d times, fresh %v; want 3 and no answer ready", s.asked, ok)
	}
}

// Every answer is one that was true at a moment in the two seconds before.
func TestConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rows := map[string]string{}
		for i := range 20 {
			rows[strconv.Itoa(i)] = "0"
		}
		s := &source{rows: rows, took: 50 * time.Millisecond}
		m := New(fresh, 20_000).Map("m", s) // some have to go
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var all sync.WaitGroup
		all.Go(func() {
			for ctx.Err() == nil {
				time.Sleep(100 * time.Millisecond)
				for i := range 20 {
					s.set(strconv.Itoa(i), strconv.Itoa(int(time.Since(start)/time.Millisecond)))
				}
			}
		})
		for range 8 {
			all.Go(func() {
				for ctx.Err() == nil {
					values, err := m.Lookup(t.Context(), strconv.Itoa(rand.IntN(20)))
					if err != nil {
						t.Error(err)
						return
					}
					at, _ := strconv.Atoi(values[0])
					if age := time.Since(start) - time.Duration(at)*time.Millisecond; age > fresh+150*time.Millisecond {
						t.Errorf("an answer is %v old", age)
					}
					time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
				}
			})
		}
		all.Wait()
	})
}

func BenchmarkHit(b *testing.B) {
	m := New(time.Hour, 1<<20).Map("m", &source{rows: map[string]string{"alice@example.com": "1"}})
	m.Lookup(b.Context(), "alice@example.com")
	key := []byte("alice@example.com")
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.Fresh(key)
		}
	})
	b.Run("all", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				m.Fresh(key)
			}
		})
	})
}

func BenchmarkMiss(b *testing.B) {
	m := New(time.Hour, 1<<20).Map("m", lookup.Func(func(context.Context, string) ([]string, error) {
		return nil, lookup.ErrNotFound
	}))
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		m.Lookup(b.Context(), "user"+strconv.Itoa(i)+"@example.com")
		i++
	}
}

// What 100,000 answers cost, beside what Stats says that they do.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		c := New(time.Hour, 1<<30)
		m := c.Map("m", lookup.Func(func(_ context.Context, key string) ([]string, error) {
			return []string{strings.Clone(key)}, nil
		}))
		for i := range 100_000 {
			m.Lookup(b.Context(), "user"+strconv.Itoa(i)+"@example.com")
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		_, _, _, entries, bytes := c.Stats()
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(entries), "octets/entry")
		b.ReportMetric(float64(bytes)/float64(entries), "counted/entry")
	}
}
