package guard

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dovepost/auth"
)

// TestWorkers: a storm of logins computes no more hashes at a time than there are
// workers and memory, and whoever waits too long is told to come again.
func TestWorkers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		memory int64 // of one hash
		want   int32
	}{
		{"hashes that take none", 0, 3},
		{"hashes that take half of it", 50, 2},
		{"hashes that take more than half", 51, 1},
		{"hashes that take more than there is", 500, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := NewWorkers(3, 100, nil)
			var running, most atomic.Int32
			var all sync.WaitGroup
			for i := range 50 {
				all.Go(func() {
					err := w.do(t.Context(), sourceKey{network: id(i % 5)}, tt.memory, func() {
						most.Store(max(most.Load(), running.Add(1)))
						time.Sleep(time.Second)
						running.Add(-1)
					})
					if err != nil {
						t.Error(err)
					}
				})
			}
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			synctest.Wait()
			if err := w.do(ctx, sourceKey{}, 0, func() {}); err == nil || auth.Refused(err) {
				t.Errorf("it handles %s: no free worker: %v, want a temporary error", tt.name, err)
			}
			all.Wait()
			if most.Load() != tt.want {
				t.Errorf("it handles %s: %d at a time, want %d", tt.name, most.Load(), tt.want)
			}
			if w.running != 0 || w.used != 0 || w.queued != 0 || len(w.sources) != 0 || w.turns[0].Len()+w.turns[1].Len() != 0 {
				t.Errorf("it handles %s: left %+v", tt.name, w)
			}
		})
	}
}

// TestFairness: a thousand hashes of 100 ms that one network, or a thousand
// networks, want to have computed delay a good user by less than a second.
func TestFairness(t *testing.T) {
	for _, tt := range []struct {
		name    string
		sources int
		known   bool
		refused int32
	}{
		{"one attacker", 1, false, 1000 - 2 - maxQueuedPerSource},
		{"five attackers", 5, false, 0},
		{"a thousand attackers, and a user who is known", 1000, true, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := NewWorkers(2, 100, nil)
			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			var refused atomic.Int32
			hash := func() { time.Sleep(100 * time.Millisecond) }
			for i := range 1000 {
				all.Go(func() {
					if w.do(ctx, sourceKey{network: id(1 + i%tt.sources)}, 1, hash) == errBusy {
						refused.Add(1)
					}
				})
			}
			synctest.Wait()
			for i := range 20 {
				start := time.Now()
				if err := w.do(ctx, sourceKey{id(5000), tt.known}, 1, hash); err != nil {
					t.Errorf("it handles %s: %v", tt.name, err)
				}
				if took := time.Since(start); took >= time.Second {
					t.Errorf("it handles %s: login %d took %v", tt.name, i, took)
				}
			}
			cancel()
			all.Wait()
			if refused.Load() != tt.refused {
				t.Errorf("it handles %s: %d refused, want %d", tt.name, refused.Load(), tt.refused)
			}
			if w.queued != 0 || len(w.sources) != 0 {
				t.Errorf("it handles %s: %d of %d sources stay queued", tt.name, w.queued, len(w.sources))
			}
		})
	}
}

// TestKnownDoNotStarve: those who are known have most turns, and not all.
func TestKnownDoNotStarve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWorkers(1, 100, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				w.do(ctx, sourceKey{id(1 + i%3), true}, 0, func() { time.Sleep(100 * time.Millisecond) })
			})
		}
		synctest.Wait()
		start := time.Now()
		if err := w.do(ctx, sourceKey{network: 9}, 0, func() {}); err != nil || time.Since(start) > time.Second {
			t.Errorf("a user who is not known: %v after %v", err, time.Since(start))
		}
		cancel()
		all.Wait()
	})
}

// BenchmarkWorkers is what the queue costs beside a hash of about a millisecond.
func BenchmarkWorkers(b *testing.B) {
	w := NewWorkers(runtime.GOMAXPROCS(0), 1<<20, nil)
	b.ReportAllocs()
	for b.Loop() {
		w.do(b.Context(), sourceKey{network: 1}, 0, func() {})
	}
}
