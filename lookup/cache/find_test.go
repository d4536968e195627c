package cache

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dovepost/lookup"
)

func TestOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{rows: map[string]string{"a": "1"}}
		c, _ := stale()
		m := c.Map("rows", s)
		find := func(want Origin, value string) {
			t.Helper()
			values, origin, err := m.Find(t.Context(), "a")
			if err != nil || origin != want || strings.Join(values, ",") != value {
				t.Errorf("%q, origin %v, %v; want %q, origin %v", values, origin, err, value, want)
			}
		}
		find(Asked, "1")
		find(Fresh, "1")
		time.Sleep(fresh)
		find(Asked, "1")
		s.fail(errAway, 0)
		find(Fresh, "1")
		time.Sleep(fresh)
		find(Old, "1")
		s.fail(nil, time.Second/2)
		go m.Lookup(t.Context(), "a")
		time.Sleep(time.Second / 4)
		find(Old, "1") // in trouble nobody waits for long
		time.Sleep(time.Second / 2)
		find(Fresh, "1")
	})
}

// A map that is positive says no only when it has just been asked, and forgets
// what is gone.
func TestPositive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{rows: map[string]string{"a": "1"}}
		c, _ := stale()
		m := c.Map("rows", s).Positive()
		check(t, m, "a", "1")
		check(t, m, "b", "-")
		check(t, m, "b", "-")
		if s.count() != 3 {
			t.Errorf("asked %d times, want 3: no is not kept", s.count())
		}
		s.fail(errAway, 0)
		if _, err := m.Lookup(t.Context(), "b"); err != errAway {
			t.Errorf("a key that was unknown before: %v, want %v", err, errAway)
		}
		s.fail(nil, 0)
		time.Sleep(fresh)
		s.mu.Lock()
		delete(s.rows, "a")
		s.mu.Unlock()
		check(t, m, "a", "-")
		s.fail(errAway, 0)
		if _, err := m.Lookup(t.Context(), "a"); err != errAway {
			t.Errorf("a key that is gone: %v, want %v", err, errAway)
		}
	})
}

func TestAnew(t *testing.T) { synctest.Test(t, anew) }

func anew(t *testing.T) {
	s := &source{rows: map[string]string{"a": "1"}}
	m := New(fresh, 1<<20).Map("rows", s)
	check(t, m, "a", "1")
	s.set("a", "2")
	check(t, m, "a", "1")
	if values, err := m.Anew(t.Context(), "a"); err != nil || values[0] != "2" {
		t.Errorf("asked anew: %q, %v", values, err)
	}
	check(t, m, "a", "2")
	s.fail(errAway, 0)
	if _, err := m.Anew(t.Context(), "a"); err != errAway {
		t.Errorf("asked anew of nobody: %v", err)
	}
	check(t, m, "a", "2")
}

func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{rows: map[string]string{"a": "1", "b": "1"}}
		c := New(fresh, 1<<20)
		m := c.Map("rows", s)
		check(t, m, "b", "1")
		s.fail(nil, time.Second)
		go m.Lookup(t.Context(), "a")
		synctest.Wait()
		s.set("a", "2")
		s.set("b", "2")
		if n := c.Forget(func(key string) bool { return key == "a" }); n != 0 {
			t.Errorf("%d answers to a dropped, want 0: it is on its way", n)
		}
		check(t, m, "a", "2")
		time.Sleep(time.Second / 2)
		check(t, m, "a", "2")
		check(t, m, "b", "1")
		if n := c.Forget(func(string) bool { return true }); n != 2 {
			t.Errorf("%d answers dropped, want 2", n)
		}
		check(t, m, "b", "2")
	})
}

// TestModel has a cache and a plain record of what the rows were go through the same
// random changes, outages and questions. An answer must be what a row was at some
// time in the last two seconds. One that is older is marked so, and given only while
// the map does not answer or at most two seconds later; and no is the map's present
// word.
func TestModel(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) { model(t, rand.New(rand.NewPCG(seed, 7))) })
	}
}

// version is what a row was from a time on; an empty value is none.
type version struct {
	value string
	from  time.Time
}

func model(t *testing.T, random *rand.Rand) {
	keys := []string{"a", "b", "c"}
	s := &source{rows: map[string]string{}}
	c, _ := stale()
	c.Patience = 4 * time.Second
	defer c.Close()
	m := c.Map("rows", s).Positive()
	history := map[string][]version{}
	away, back := false, time.Now() // since when it is not
	// since reports whether key had the value within the last age.
	since := func(key, value string, age time.Duration) bool {
		for i := len(history[key]) - 1; i >= 0; i-- {
			v := history[key][i]
			if v.value == value {
				return true
			}
			if time.Since(v.from) > age {
				return false
			}
		}
		return value == ""
	}
	for range 300 {
		key := keys[random.IntN(len(keys))]
		switch n := random.IntN(12); {
		case n < 3:
			value := string(rune('0' + random.IntN(10)))
			s.set(key, value)
			history[key] = append(history[key], version{value, time.Now()})
		case n == 3:
			s.mu.Lock()
			delete(s.rows, key)
			s.mu.Unlock()
			history[key] = append(history[key], version{"", time.Now()})
		case n == 4:
			away = !away
			var err error
			if away {
				err = errAway
			}
			back = time.Now()
			s.fail(err, time.Duration(random.IntN(300))*time.Millisecond)
		case n < 8:
			time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
		case n == 8:
			c.Forget(func(k string) bool { return k == key })
		default:
			began := time.Now()
			values, origin, err := m.Find(t.Context(), key)
			value := strings.Join(values, "")
			age := fresh + time.Since(began)
			switch {
			case errors.Is(err, lookup.ErrNotFound):
				if origin == Old || away || !since(key, "", time.Since(began)) {
					t.Fatalf("%s is not found, origin %v, away %v: %v", key, origin, away, history[key])
				}
			case err != nil:
				if !away {
					t.Fatalf("%s: %v", key, err)
				}
			case origin == Old:
				if !away && began.Sub(back) > probeTimeout+memory {
					t.Fatalf("%s is old while the map answers", key)
				}
			case !since(key, value, age):
				t.Fatalf("%s is %q, origin %v, which it was not for %v: %v", key, value, origin, age, history[key])
			}
		}
	}
}
