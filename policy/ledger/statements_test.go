package ledger

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// manyLimits are of a login and of its domain, each in several windows.
func manyLimits(most int64) []Ask {
	return []Ask{
		{"joe@example.com", []Limit{{0, most, time.Hour}, {1, 10 * most, 24 * time.Hour}, {2, most << 20, 7 * 24 * time.Hour}}},
		{"@example.com", []Limit{{0, 2 * most, time.Hour}, {2, most << 20, 24 * time.Hour}}},
	}
}

// statements counts what a store was asked.
func (m *memory) statements() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reads + m.wrote
}

// A message costs one statement at most, whether it comes alone, to one process or to several in turn, or is
// refused, or comes in a burst. The first one of an account costs one more.
func TestAMessageCostsOneStatementAtMost(t *testing.T) {
	const messages = 200
	for _, tt := range []struct {
		name      string
		processes int
		most      int64
		pause     time.Duration
		refused   bool
	}{
		{"one by one", 1, 1000, 5 * time.Second, false},
		{"one by one, to three processes in turn", 3, 1000, 5 * time.Second, false},
		{"one by one, over a small limit", 1, 20, 5 * time.Second, true},
		{"one by one, over a small limit of two processes", 2, 20, 5 * time.Second, true},
		{"a user's of a day", 1, 1000, 40 * time.Minute, false},
		{"a user's of a year", 2, 1000, 3 * 24 * time.Hour, false},
		{"a burst", 1, 1000, 0, false},
		{"a burst over the limit", 2, 100, 0, true},
		{"ten in a second", 2, 100, 100 * time.Millisecond, true},
	} {
		c := newClock()
		m := newMemory(c)
		all := several(tt.processes, c, m)
		refused, last := 0, c.now()
		for i := range messages + tt.processes {
			if i == tt.processes { // now all know the account
				m.reads, m.wrote = 0, 0
			}
			if v := all[i%tt.processes].Take(t.Context(), manyLimits(tt.most), Counts{1, 3, 1000}, Commit); !v.OK {
				refused++
			}
			c.pass(tt.pause)
			for _, l := range all {
				select {
				case <-l.kick: // as Start's goroutine does, at once
				default:
					if c.now().Sub(last) < DefaultInterval {
						continue
					}
				}
				if err := l.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				l.sweep()
			}
			if c.now().Sub(last) >= DefaultInterval {
				last = c.now()
			}
		}
		if got := m.statements(); got > messages {
			t.Errorf("%s: %d statements for %d messages", tt.name, got, messages)
		}
		if (refused > 0) != tt.refused {
			t.Errorf("%s: %d messages are refused", tt.name, refused)
		}
	}
}

// crowd are several processes, and what they let pass.
type crowd struct {
	*clock
	all    []*Ledger
	writes []time.Time   // when each does next, unless it is woken
	passed [][]time.Time // by each
}

// run lets time pass, in which the processes write what they have.
func (w *crowd) run(t *testing.T, d time.Duration) {
	t.Helper()
	for end := w.now().Add(d); ; {
		for i, l := range w.all {
			select {
			case <-l.kick:
			default:
				if w.now().Before(w.writes[i]) {
					continue
				}
			}
			if err := l.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.writes[i] = w.now().Add(DefaultInterval)
		}
		next := slices.MinFunc(append(w.writes, end), time.Time.Compare)
		if left := end.Sub(w.now()); left > 2*DefaultInterval { // all is written by then
			next = w.now().Add(min(left, DefaultInterval))
			if !slices.ContainsFunc(w.all, func(l *Ledger) bool { return len(l.dirty) > 0 }) {
				next = end
			}
		}
		if !w.now().Before(end) {
			return
		}
		w.pass(next.Sub(w.now()))
	}
}

// within counts what was let pass later than d ago.
func (w *crowd) within(d time.Duration) (n int64) {
	for i := range w.passed {
		for len(w.passed[i]) > 0 && w.now().Sub(w.passed[i][0]) > 2*d {
			w.passed[i] = w.passed[i][1:]
		}
		for _, at := range w.passed[i] {
			if w.now().Sub(at) < d {
				n++
			}
		}
	}
	return n
}

// stated is the error that the package states: what all but one of them let pass in twice the interval.
func (w *crowd) stated() (sum int64) {
	most := make([]int64, len(w.passed))
	for i, times := range w.passed {
		for j, from := 0, 0; j < len(times); j++ {
			for times[j].Sub(times[from]) > 2*DefaultInterval {
				from++
			}
			most[i] = max(most[i], int64(j-from+1))
		}
		sum += most[i]
	}
	return sum - slices.Min(most)
}

// However messages come to several processes, those together let pass no more beyond a limit than the package
// states, and refuse nothing that fits.
func TestTheStatedErrorOfSeveralProcesses(t *testing.T) {
	const window = 5 * time.Minute
	beyond, refused := int64(0), 0
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 2))
		n, most := 2+r.IntN(3), 1+r.Int64N(60)
		c := newClock()
		w := &crowd{clock: c, all: several(n, c, newMemory(c)), passed: make([][]time.Time, n), writes: make([]time.Time, n)}
		for i := range w.writes {
			w.writes[i] = w.now().Add(time.Duration(r.Int64N(int64(DefaultInterval))))
		}
		limits := []Limit{{0, most, window}}
		for range 60 {
			// A message or many, at one of them or at all, a while after those before.
			w.run(t, time.Duration(r.ExpFloat64()*float64(20*time.Second)))
			at, messages, pause := r.IntN(n+1), 1+r.IntN(2)*r.IntN(30), time.Duration(r.Int64N(int64(300*time.Millisecond)))
			for range messages {
				i := at
				if i == n {
					i = r.IntN(n)
				}
				if one(w.all[i], limits) {
					w.passed[i] = append(w.passed[i], w.now())
				} else if refused++; w.within(window+StepOf(window)) < most {
					t.Fatalf("seed %d: a message is refused that would fit", seed)
				}
				over := w.within(window) - most
				if over > w.stated() {
					t.Fatalf("seed %d: %d processes let %d pass beyond a limit of %d, stated are %d", seed, n, over, most, w.stated())
				}
				beyond = max(beyond, over)
				w.run(t, pause)
			}
		}
	}
	t.Logf("at most %d beyond a limit, and %d refused", beyond, refused)
	if beyond < 1 || refused < 100 {
		t.Error("the limits were hardly tried")
	}
}
