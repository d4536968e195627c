package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// clock is one that the test sets.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 3, 29, 0, 59, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

var errAway = errors.New("away")

// memory is a Store as MySQL is one.
type memory struct {
	clock *clock

	mu    sync.Mutex
	rows  map[string]Row // by key, start and node
	away  bool
	reads int
	wrote int // statements
}

func newMemory(c *clock) *memory { return &memory{clock: c, rows: map[string]Row{}} }

func (m *memory) set(away bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = away
}

func (m *memory) Read(_ context.Context, node int64, wants []Want) (rows []Row, now time.Time, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return nil, now, errAway
	}
	m.reads++
	return m.find(node, wants), m.clock.now(), nil
}

// find returns what is stored for wants. m.mu is held.
func (m *memory) find(node int64, wants []Want) (rows []Row) {
	sums := map[Row]Counts{}
	for id, row := range m.rows {
		for _, w := range wants {
			if row.Key == w.Key && row.Start >= w.From {
				own := id[len(id)-20:] == fmt.Sprintf("%020d", node)
				at := Row{Key: row.Key, Start: row.Start, Own: own}
				sums[at] = sums[at].Plus(row.Counts)
			}
		}
	}
	for row, sum := range sums {
		row.Counts = sum
		rows = append(rows, row)
	}
	return rows
}

func (m *memory) Write(_ context.Context, node int64, rows []Row) (found []Row, now time.Time, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return nil, now, errAway
	}
	m.wrote++
	var wants []Want
	for range 2 { // as after a lost connection
		for _, row := range rows {
			id := fmt.Sprintf("%s %d %d %020d", row.Name, row.Step, row.Start, node)
			if old, found := m.rows[id]; found {
				for i := range row.Counts {
					row.Counts[i] = max(row.Counts[i], old.Counts[i])
				}
			}
			m.rows[id] = row
			if want := (Want{Key: row.Key}); !slices.Contains(wants, want) {
				wants = append(wants, want)
			}
		}
	}
	return m.find(node, wants), m.clock.now(), nil
}

// model keeps every event.
type model struct{ events []event }

type event struct {
	at time.Time
	n  Counts
}

// sum counts what happened after begin.
func (m *model) sum(begin time.Time, what int) (sum int64) {
	for _, e := range m.events {
		if e.at.After(begin) {
			sum += e.n[what]
		}
	}
	return sum
}

// What is let pass is never more than the limit in any window, and what is refused would
// have been too much in a window that is longer by StepOf.
func TestWindowsAgreeWithAModelThatKeepsEveryEvent(t *testing.T) {
	lengths := []time.Duration{time.Second, 10 * time.Second, 47 * time.Second, time.Minute, 7 * time.Minute, time.Hour, 3 * time.Hour, 24 * time.Hour, 9 * 24 * time.Hour, MaxWindow}
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		c, m := newClock(), &model{}
		c.pass(time.Duration(r.Int64N(int64(time.Hour))))
		l := New(nil)
		l.Now = c.now
		limits := make([]Limit, 1+r.IntN(3))
		for i := range limits {
			limits[i] = Limit{What: r.IntN(3), Most: 1 + r.Int64N(40), Window: lengths[r.IntN(len(lengths))]}
		}
		for range 600 {
			c.pass(time.Duration(r.ExpFloat64() * float64(limits[r.IntN(len(limits))].Window) / 30))
			n := Counts{1, 1 + r.Int64N(4), r.Int64N(6)}
			now := c.now()
			v := l.Take(t.Context(), []Ask{{Name: "joe", Limits: limits}}, n, Commit)
			least, most := true, true
			for _, limit := range limits {
				what := limit.What
				least = least && (n[what] == 0 || m.sum(now.Add(-limit.Window), what)+n[what] <= limit.Most)
				most = most && (n[what] == 0 || m.sum(now.Add(-limit.Window-StepOf(limit.Window)), what)+n[what] <= limit.Most)
			}
			if v.OK && !least {
				t.Fatalf("seed %d: %v passes at %v beside %+v: too much in the window", seed, n, now, limits)
			}
			if !v.OK && most {
				t.Fatalf("seed %d: %v is refused at %v by %+v, though it would fit", seed, n, now, v)
			}
			if v.OK {
				m.events = append(m.events, event{now, n})
				continue
			}
			if v.Until.IsZero() {
				if v.Limit.Most >= n[v.Limit.What] {
					t.Fatalf("seed %d: never?", seed)
				}
				continue
			}
			if !v.Until.After(now) || v.Until.After(now.Add(v.Limit.Window+StepOf(v.Limit.Window))) {
				t.Fatalf("seed %d: at %v it ends at %v, by %+v", seed, now, v.Until, v.Limit)
			}
			if r.IntN(10) == 0 { // what was said about the end is true
				c.pass(v.Until.Sub(now))
				if v := l.Take(t.Context(), []Ask{{Name: "joe", Limits: limits}}, n, Look); !v.OK {
					t.Fatalf("seed %d: at the end that was announced: %+v", seed, v)
				}
			}
		}
	}
}

func TestStepOf(t *testing.T) {
	for d := time.Second; d <= MaxWindow; d += d/97 + time.Second {
		d = d.Truncate(time.Second)
		step := StepOf(d)
		if step > max(time.Second, d/48) {
			t.Errorf("%v is cut in steps of %v", d, step)
		}
		if kept := time.Duration(keptFor(int64(step/time.Second))) * time.Second; kept < d {
			t.Errorf("%v of %v are kept for %v", step, d, kept)
		}
		if n := d / step; n > 48*6 {
			t.Errorf("%v has %d buckets", d, n)
		}
	}
}

var perHour = []Limit{{What: 0, Most: 100, Window: time.Hour}, {What: 1, Most: 1000, Window: 24 * time.Hour}}

func one(l *Ledger, limits []Limit) bool {
	return l.Take(context.Background(), []Ask{{Name: "joe@example.com", Limits: limits}}, Counts{1, 1, 1000}, Commit).OK
}

// several makes ledgers on one store.
func several(n int, c *clock, m *memory) []*Ledger {
	all := make([]*Ledger, n)
	for i := range all {
		all[i] = New(m)
		all[i].Now = c.now
	}
	return all
}

func TestOneLimitForSeveralProcesses(t *testing.T) {
	const processes = 4
	c := newClock()
	m := newMemory(c)
	all := several(processes, c, m)
	passed, messages := 0, 0
	for second := range 60 {
		for i := range 40 { // 40 messages a second, of whichever process
			messages++
			if one(all[(second+i)%processes], perHour) {
				passed++
			}
			if i%10 == 9 {
				c.pass(250 * time.Millisecond)
			}
		}
		for _, l := range all {
			if err := l.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Each lets pass 10 a second, and may not know of 2 seconds of 3 others.
	if passed < 100 || passed > 100+2*30 {
		t.Errorf("%d passed, want 100 and at most 60 more", passed)
	}
	t.Logf("%d of %d passed with %d reads and %d writes", passed, messages, m.reads, m.wrote)
	if m.reads+m.wrote >= messages {
		t.Errorf("%d statements for %d messages", m.reads+m.wrote, messages)
	}
	c.pass(time.Hour + StepOf(time.Hour))
	for i, l := range all {
		if !one(l, perHour) {
			t.Errorf("process %d refuses when the window has moved", i)
		}
	}
}

func TestTheStoreIsAway(t *testing.T) {
	c := newClock()
	m := newMemory(c)
	l := several(2, c, m)
	for range 40 {
		one(l[0], perHour)
	}
	l[0].Flush(t.Context())
	for range 10 {
		one(l[1], perHour)
	}
	m.set(true)
	c.pass(5 * time.Second)
	passed := 0
	for range 200 {
		if one(l[1], perHour) {
			passed++
		}
	}
	if passed != 100-40-10 {
		t.Errorf("%d pass by what was known, want 50", passed)
	}
	if err := l[1].Flush(t.Context()); err != errAway {
		t.Errorf("Flush: %v", err)
	}
	if !one(l[0], perHour) {
		t.Error("the other process does not go on by itself")
	}
	m.set(false)
	c.pass(5 * time.Second)
	if err := l[1].Flush(t.Context()); err != nil {
		t.Error(err)
	}
	if one(l[0], perHour) {
		t.Error("the other process does not know of what was counted meanwhile")
	}
}

func TestARestartForgetsNothing(t *testing.T) {
	c := newClock()
	m := newMemory(c)
	passed := 0
	for range 30 {
		l := several(1, c, m)[0]
		l.Start()
		for range 9 {
			if one(l, perHour) {
				passed++
			}
		}
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if passed != 100 {
		t.Errorf("%d passed, want 100", passed)
	}
}

func TestAnAccountThatWasForgottenGoesOnWhereItWas(t *testing.T) {
	c := newClock()
	m := newMemory(c)
	l := several(1, c, m)[0]
	l.Accounts = 2
	passed := 0
	for range 150 {
		if one(l, perHour) {
			passed++
		}
		l.Flush(t.Context())
		l.Add("somebody", []time.Duration{time.Minute}, Counts{1})
		l.Add("else", []time.Duration{time.Minute}, Counts{1})
		l.Flush(t.Context())
		if l.Len() > 2 {
			t.Fatalf("%d accounts", l.Len())
		}
	}
	if passed != 100 {
		t.Errorf("%d passed, want 100", passed)
	}
}

func TestASweepDropsWhatTheStoreHas(t *testing.T) {
	c := newClock()
	m := newMemory(c)
	l, alone := several(1, c, m)[0], New(nil)
	alone.Now = c.now
	limits := []Limit{{What: 0, Most: 100, Window: MaxWindow}}
	one(l, limits)
	one(alone, limits)
	c.pass(idleTime + time.Second)
	l.sweep()
	alone.sweep()
	if l.Len() != 1 || alone.Len() != 1 {
		t.Errorf("%d, %d accounts: what is written nowhere is gone", l.Len(), alone.Len())
	}
	l.Flush(t.Context())
	l.sweep()
	if l.Len() != 0 {
		t.Error("an idle account stays")
	}
	c.pass(MaxWindow)
	alone.sweep()
	if alone.Len() != 0 {
		t.Error("an account whose counts are all over stays")
	}
}

func TestMachinesWhoseClocksDiffer(t *testing.T) {
	c := newClock()
	m := newMemory(c)
	l := several(3, c, m)
	l[1].Now = func() time.Time { return c.now().Add(2 * time.Hour) }
	l[2].Now = func() time.Time { return c.now().Add(-5 * time.Hour) }
	m.set(true) // one counts before it knows what the time is
	for range 10 {
		one(l[1], perHour)
	}
	m.set(false)
	for _, l := range l {
		one(l, perHour)
		l.Flush(t.Context())
	}
	c.pass(59 * time.Minute)
	for i, l := range l {
		if got := l.Sum(t.Context(), "joe@example.com", time.Hour)[0]; got != 13 {
			t.Errorf("process %d counts %d, want 13", i, got)
		}
	}
	c.pass(3 * time.Minute)
	for i, l := range l {
		if got := l.Sum(t.Context(), "joe@example.com", time.Hour)[0]; got != 0 {
			t.Errorf("process %d counts %d, want none", i, got)
		}
	}
}

func TestANewWindowIsReadAndNothingIsCountedTwice(t *testing.T) {
	c := newClock()
	m := newMemory(c)
	l := several(2, c, m)
	day := []Limit{{What: 0, Most: 100, Window: 24 * time.Hour}}
	both := append(day, Limit{What: 0, Most: 100, Window: time.Minute})
	for range 20 {
		one(l[0], day)
		one(l[1], both)
	}
	for range 3 {
		c.pass(2 * time.Second)
		for _, l := range l {
			l.Flush(t.Context())
		}
		c.pass(2 * time.Second)
		for i, l := range l {
			if got := l.Sum(t.Context(), "joe@example.com", 24*time.Hour)[0]; got != 40 {
				t.Errorf("process %d: %d in a day, want 40", i, got)
			}
			if got := l.Sum(t.Context(), "joe@example.com", time.Minute)[0]; got != 20 {
				t.Errorf("process %d: %d in a minute, want 20", i, got)
			}
		}
	}
	l[0].SetStore(m)
	l[0].Flush(t.Context())
	c.pass(2 * time.Second)
	if got := l[1].Sum(t.Context(), "joe@example.com", 24*time.Hour)[0]; got != 40 {
		t.Errorf("%d in a day after SetStore, want 40", got)
	}
}

func TestAllOrNone(t *testing.T) {
	l := New(nil)
	asks := []Ask{
		{"joe@example.com", []Limit{{0, 10, time.Hour}}},
		{"@example.com", []Limit{{1, 50, time.Hour}}},
		{"nobody", nil},
	}
	for i := range 20 {
		v := l.Take(t.Context(), asks, Counts{1, 7, 0}, Commit)
		if want := i < 7; v.OK != want {
			t.Errorf("message %d: %+v, want %v", i, v, want)
		}
		if !v.OK && (v.Ask != 1 || v.Used != 49 || v.Until.IsZero()) {
			t.Errorf("message %d: %+v", i, v)
		}
	}
	if got := l.Sum(t.Context(), "joe@example.com", time.Hour); got != (Counts{7, 49, 0}) {
		t.Errorf("%v: refused messages are counted", got)
	}
	if v := l.Take(t.Context(), asks, Counts{1, 51, 0}, Force); v.OK || !v.Until.IsZero() {
		t.Errorf("a message that is beyond the limit by itself: %+v", v)
	}
	if got := l.Sum(t.Context(), "joe@example.com", time.Hour); got != (Counts{8, 100, 0}) {
		t.Errorf("%v: Force does not count", got)
	}
	if v := l.Take(t.Context(), asks, Counts{1, 0, 0}, Look); !v.OK {
		t.Errorf("nothing more of what is used up: %+v", v)
	}
	if l.Len() != 2 {
		t.Errorf("%d accounts: one without limits is counted", l.Len())
	}
}

func TestManyAtOnce(t *testing.T) {
	c := newClock()
	m := newMemory(c)
	var passed [3]int64
	var mu sync.Mutex
	var wait sync.WaitGroup
	all := several(3, c, m)
	for _, l := range all {
		l.Interval = time.Millisecond
		l.Now = nil
		l.Start()
	}
	for i := range 24 {
		wait.Go(func() {
			for range 50 {
				if one(all[i%3], perHour) {
					mu.Lock()
					passed[i%3]++
					mu.Unlock()
				}
			}
		})
	}
	wait.Wait()
	for _, l := range all {
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	sum := passed[0] + passed[1] + passed[2]
	// Each stops at the limit by itself; how far the three go beyond it together is a matter of Interval.
	if sum < 100 || max(passed[0], passed[1], passed[2]) > 100 {
		t.Errorf("%v passed: want 100 in all, and no more than 100 of one", passed)
	}
	last := several(1, c, m)[0]
	last.Now = nil
	if got := last.Sum(t.Context(), "joe@example.com", time.Hour)[0]; got != sum {
		t.Errorf("the store has %d, want %d", got, sum)
	}
	t.Log(passed, m.reads, m.wrote)
}
