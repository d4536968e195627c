package cache

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dovepost/lookup"
)

// stale makes a cache that covers for its maps, and the log of it.
func stale() (*Cache, *strings.Builder) {
	var log strings.Builder
	c := New(fresh, 1<<20)
	c.Stale = 24 * time.Hour
	c.Log = slog.New(slog.NewTextHandler(&log, nil))
	return c, &log
}

func (s *source) fail(err error, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.took = err, took
}

func (s *source) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// A database that refuses is asked by each lookup and covered at once; what was
// never asked is an error; the answer after its return is the new one.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{rows: map[string]string{"a": "1"}}
		c, log := stale()
		m := c.Map("maps digest", s)
		check(t, m, "a", "1")
		check(t, m, "b", "-")
		s.fail(errAway, 0)
		s.set("a", "2")
		time.Sleep(23 * time.Hour)
		for range 3 {
			check(t, m, "a", "1")
			check(t, m, "b", "-")
		}
		if _, err := m.Lookup(t.Context(), "c"); err != errAway {
			t.Errorf("a key never asked: %v; want %v", err, errAway)
		}
		s.fail(nil, 0)
		check(t, m, "a", "2")
		check(t, m, "b", "-")
		_, stale, _, _, _ := c.Stats()
		if stale != 6 {
			t.Errorf("%d stale answers; want 6", stale)
		}
		if text := log.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, "map=maps err=\"connection refused\"") || !strings.Contains(text, "answers again\" map=maps stale=6") {
			t.Errorf("log is %s", text)
		}
		c.Close()
	})
}

// An answer has an end, however often it is given.
func TestTooOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{rows: map[string]string{"a": "1"}}
		c, _ := stale()
		m := c.Map("m", s)
		check(t, m, "a", "1")
		s.fail(errAway, 0)
		for range 23 {
			time.Sleep(time.Hour)
			check(t, m, "a", "1")
		}
		time.Sleep(time.Hour)
		if _, err := m.Lookup(t.Context(), "a"); err != errAway {
			t.Errorf("after a day: %v; want %v", err, errAway)
		}
		c.Close()
	})
}

// took tells how long a lookup of key takes, which must give want.
func took(t *testing.T, m *Map, key, want string) time.Duration {
	t.Helper()
	start := time.Now()
	check(t, m, key, want)
	return time.Since(start)
}

// A database that hangs delays one lookup by the patience, later ones hardly, and
// its return is seen within two seconds.
func TestHanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{rows: map[string]string{"a": "1", "b": "1", "c": "1"}}
		c, _ := stale()
		m := c.Map("m", s)
		keys := []string{"a", "b", "c"}
		for _, key := range keys {
			check(t, m, key, "1")
		}
		time.Sleep(time.Hour)
		s.fail(errAway, time.Hour)
		if d := took(t, m, "a", "1"); d != patience {
			t.Errorf("the first took %v; want %v", d, patience)
		}
		start, asked := time.Now(), s.count()
		for i := range 1000 {
			took(t, m, keys[i%3], "1")
			time.Sleep(10 * time.Millisecond)
		}
		if d := time.Since(start) - 10*time.Second; d > time.Second {
			t.Errorf("1000 lookups waited for %v", d)
		}
		if n := s.count() - asked; n < 5 || n > 9 {
			t.Errorf("it was asked %d times in 10 s; want one after the other, each for %v", n, probeTimeout)
		}
		s.fail(nil, 0)
		for _, key := range keys {
			s.set(key, "2")
		}
		back := time.Now()
		for range keys { // the keys in turn: each may be the one that is asked
			for {
				values, _ := m.Lookup(t.Context(), "a")
				if len(values) == 1 && values[0] == "2" {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
		if d := time.Since(back); d > 2*time.Second {
			t.Errorf("its return was seen after %v", d)
		}
		c.Close()
	})
}

// The question that nobody waits for any more is not lost.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{rows: map[string]string{"a": "1"}}
		c, _ := stale()
		m := c.Map("m", s)
		check(t, m, "a", "1")
		time.Sleep(time.Hour)
		s.set("a", "2")
		s.fail(nil, 1200*time.Millisecond)
		if d := took(t, m, "a", "1"); d != patience {
			t.Errorf("took %v; want %v", d, patience)
		}
		time.Sleep(300 * time.Millisecond)
		if d := took(t, m, "a", "2"); d != 0 {
			t.Errorf("took %v; want none", d)
		}
		c.Close()
	})
}

// One key that always fails does not make others old: who comes while it fails
// waits for what that proves.
func TestOneBadKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rows := &source{rows: map[string]string{"a": "0", "bad": "0"}}
		bad := false
		c, _ := stale()
		m := c.Map("m", lookup.Func(func(ctx context.Context, key string) ([]string, error) {
			time.Sleep(time.Millisecond)
			if key == "bad" && bad {
				return nil, errors.New("expansion limit exceeded")
			}
			return rows.Lookup(ctx, key)
		}))
		check(t, m, "bad", "0")
		check(t, m, "a", "0")
		bad = true
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for ctx.Err() == nil {
					check(t, m, "bad", "0")
					time.Sleep(time.Millisecond)
				}
			})
		}
		for i := range 20 {
			rows.set("a", strconv.Itoa(i))
			time.Sleep(fresh)
			check(t, m, "a", strconv.Itoa(i))
		}
		stop()
		all.Wait()
		c.Close()
	})
}

// A slow question is no sign of trouble while others are answered.
func TestOneSlowKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow time.Duration
		c, _ := stale()
		m := c.Map("m", lookup.Func(func(_ context.Context, key string) ([]string, error) {
			if key == "slow" {
				time.Sleep(slow)
			}
			return []string{time.Now().String()}, nil
		}))
		m.Lookup(t.Context(), "slow")
		m.Lookup(t.Context(), "a")
		slow = 3 * time.Second
		time.Sleep(fresh)
		var all sync.WaitGroup
		all.Go(func() { m.Lookup(t.Context(), "slow") })
		time.Sleep(500 * time.Millisecond)
		m.Lookup(t.Context(), "a")
		all.Wait()
		if troubled(m) {
			t.Error("the map is held to be in trouble")
		}
		c.Close()
	})
}

// However many ask, a database in trouble gets one question at a time for each map.
func TestOneProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{rows: map[string]string{}}
		c, _ := stale()
		m := c.Map("m", s)
		for i := range 200 {
			check(t, m, strconv.Itoa(i), "-")
		}
		time.Sleep(time.Hour)
		s.fail(errAway, time.Hour)
		took(t, m, "0", "-")
		asked := s.count()
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() {
				if d := took(t, m, strconv.Itoa(i), "-"); d > glance {
					t.Errorf("one took %v", d)
				}
			})
		}
		all.Wait()
		if n := s.count() - asked; n != 1 {
			t.Errorf("asked %d times; want once", n)
		}
		c.Close()
	})
}

// The panic of a map in a question of its own ends nothing but the question.
func TestPanicBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := false
		c, log := stale()
		m := c.Map("m", lookup.Func(func(context.Context, string) ([]string, error) {
			if broken {
				panic("broken map")
			}
			return []string{"1"}, nil
		}))
		check(t, m, "a", "1")
		time.Sleep(fresh)
		broken = true
		check(t, m, "a", "1")
		c.Close()
		if !strings.Contains(log.String(), "broken map") {
			t.Errorf("log is %s", log)
		}
	})
}

// A caller that goes away says nothing about the map.
func TestCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{rows: map[string]string{"a": "1"}}
		c, _ := stale()
		m := c.Map("m", s)
		check(t, m, "a", "1")
		time.Sleep(fresh)
		s.fail(nil, 500*time.Millisecond)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, key := range []string{"a", "b"} {
			m.Lookup(ctx, key)
		}
		if troubled(m) {
			t.Error("the map is held to be in trouble")
		}
		c.Close()
	})
}

// Names that strangers try once do not push out what is asked again and again.
func TestStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{rows: map[string]string{}}
		c, _ := stale()
		m := c.Map("m", s)
		for range 2 {
			for i := range 1000 {
				check(t, m, "user"+strconv.Itoa(i), "-")
			}
			time.Sleep(fresh)
		}
		for i := range 50_000 {
			check(t, m, "stranger"+strconv.Itoa(i), "-")
		}
		s.fail(errAway, 0)
		for i := range 1000 {
			check(t, m, "user"+strconv.Itoa(i), "-")
		}
		_, _, _, _, bytes := c.Stats()
		if bytes > 1<<20 {
			t.Errorf("%d octets are more than the bound", bytes)
		}
		c.Close()
	})
}

func BenchmarkStale(b *testing.B) {
	c := New(0, 1<<20)
	c.Stale, c.Log = time.Hour, slog.New(slog.DiscardHandler)
	s := &source{rows: map[string]string{"a": "1"}}
	m := c.Map("m", s)
	m.Lookup(b.Context(), "a")
	away := c.Map("m", lookup.Func(func(context.Context, string) ([]string, error) { return nil, errAway }))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := away.Lookup(b.Context(), "a"); err != nil {
			b.Fatal(err)
		}
	}
}

func troubled(m *Map) bool {
	m.space.mu.Lock()
	defer m.space.mu.Unlock()
	return m.space.trouble
}

// An error about one key, of a map that does answer, has nothing to do with the others: they are waited for
// as ever.
func TestAnErrorAboutAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errKey := errors.New("cannot be compared")
		slow := lookup.Func(func(_ context.Context, key string) ([]string, error) {
			time.Sleep(2 * glance)
			if key == "bad" {
				return nil, errKey
			}
			return []string{time.Now().String()}, nil
		})
		c, log := stale()
		c.Alive = func(err error) bool { return err == errKey }
		m := c.Map("maps digest", slow)
		if _, err := m.Lookup(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * fresh)
		if _, err := m.Lookup(t.Context(), "bad"); err != errKey {
			t.Errorf("%v, want %v", err, errKey)
		}
		if _, origin, err := m.Find(t.Context(), "a"); origin != Asked || err != nil {
			t.Errorf("another key: %v, %v; want it asked", origin, err)
		}
		if log.Len() > 0 {
			t.Errorf("the log: %s", log)
		}
	})
}
