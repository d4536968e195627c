package breaker

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var errDown = errors.New("down")

// server answers, hangs or fails.
type server struct {
	asked, probed atomic.Int32
	down, hangs   atomic.Bool
	silent        atomic.Bool // to all but probes
}

func (s *server) ask(ctx context.Context) error {
	s.asked.Add(1)
	if s.hangs.Load() || s.silent.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	if s.down.Load() {
		return errDown
	}
	return nil
}

func (s *server) probe(ctx context.Context) error {
	s.probed.Add(1)
	if s.hangs.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	if s.down.Load() {
		return errDown
	}
	return nil
}

func (s *server) breaker() *Breaker {
	return &Breaker{Name: "db", Probe: s.probe, Log: slog.New(slog.DiscardHandler)}
}

func TestAServerThatIsAwayIsNotWaitedForAgain(t *testing.T) {
	for name, fail := range map[string]func(*server) *atomic.Bool{
		"down":    func(s *server) *atomic.Bool { return &s.down },
		"hanging": func(s *server) *atomic.Bool { return &s.hangs },
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &server{}
			b := s.breaker()
			defer b.Close()
			if err := b.Do(t.Context(), s.ask); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			fail(s).Store(true)
			start := time.Now()
			if err := b.Do(t.Context(), s.ask); err == nil || errors.Is(err, ErrAway) {
				t.Errorf("%s: the first question: %v", name, err)
			}
			if took := time.Since(start); took > defaultLimit {
				t.Errorf("%s: the first question took %v", name, took)
			}
			start = time.Now()
			for range 100 {
				if err := b.Do(t.Context(), s.ask); !errors.Is(err, ErrAway) {
					t.Errorf("%s: another question: %v", name, err)
				}
			}
			if took := time.Since(start); took > 0 || s.asked.Load() != 2 {
				t.Errorf("%s: those after it took %v, and %d were asked; want none of both", name, took, s.asked.Load()-2)
			}
			time.Sleep(10 * time.Second)
			if s.probed.Load() < 4 {
				t.Errorf("%s: %d probes in 10 s", name, s.probed.Load())
			}
			fail(s).Store(false)
			time.Sleep(2 * time.Second)
			if err := b.Do(t.Context(), s.ask); err != nil {
				t.Errorf("%s: after it has come back: %v", name, err)
			}
		})
	}
}

func TestOneThatAnswersProbesOnlyIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		b := s.breaker()
		defer b.Close()
		s.silent.Store(true)
		waited := 0
		for range 600 { // ten minutes
			if err := b.Do(t.Context(), s.ask); !errors.Is(err, ErrAway) {
				waited++
			}
			time.Sleep(time.Second)
		}
		if waited > 30 {
			t.Errorf("%d of 600 questions waited", waited)
		}
	})
}

func TestAServerIsNotBlamedForItsClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		b := s.breaker()
		b.Away = func(err error) bool { return errors.Is(err, errDown) }
		defer b.Close()
		s.hangs.Store(true)
		late, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_ = b.Do(late, s.ask)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		_ = b.Do(gone, s.ask)
		_ = b.Do(t.Context(), func(context.Context) error { return errors.New("no such table") })
		s.hangs.Store(false)
		if err := b.Do(t.Context(), s.ask); err != nil {
			t.Errorf("%v", err)
		}
	})
}

func TestCloseEndsTheProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		b := s.breaker()
		s.down.Store(true)
		_ = b.Do(t.Context(), s.ask)
		b.Close()
		n := s.probed.Load()
		time.Sleep(time.Minute)
		if s.probed.Load() != n {
			t.Error("it is still probed")
		}
	})
}

func TestWhatNobodyWaitsForTakesTheServerFromNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		b := s.breaker()
		defer b.Close()
		s.silent.Store(true)
		if err := b.Try(t.Context(), s.ask); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want the end of its time", err)
		}
		s.silent.Store(false)
		if err := b.Do(t.Context(), s.ask); err != nil {
			t.Errorf("the next one: %v", err)
		}
		s.down.Store(true)
		_ = b.Do(t.Context(), s.ask)
		if err := b.Try(t.Context(), s.ask); !errors.Is(err, ErrAway) {
			t.Errorf("while the server is away: %v", err)
		}
	})
}
