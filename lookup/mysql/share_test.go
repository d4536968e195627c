package mysql

import (
	"testing"
	"testing/synctest"
	"time"
)

func one() []*parts { return make([]*parts, 1) }

// turn reports whether one of the callers of g is to lead.
func turn(g *group) bool { return len(g.turn) == 1 }

// fly puts statements on their way until what comes has to wait, and returns the groups
// of them: the first has none.
func fly(t *testing.T, s *share) (groups []*group) {
	t.Helper()
	if g, _, _, _ := s.join(one()); g != nil {
		t.Fatal("the first waits")
	}
	for range maxFlying - 1 {
		g, _, lead, _ := s.join(one())
		if g == nil || !lead {
			t.Fatal("one that has as many callers as the last waits")
		}
		groups = append(groups, g)
	}
	return groups
}

// who is alone never waits; who comes while statements are on their way waits for the end of one.
func TestShareGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(share)
		beside := fly(t, s)
		a, first, lead, _ := s.join(one())
		b, second, _, _ := s.join(one())
		if a == nil || a != b || lead || first != 0 || second != 1 || turn(a) {
			t.Fatal("the others do not gather", a, b, first, second, lead)
		}
		s.landed(0)
		if !turn(a) || len(a.replies) != 2 {
			t.Fatal("nobody is to lead")
		}
		<-a.turn
		c, _, _, _ := s.join(one())
		if c == nil || c == a {
			t.Fatal("it joined what is on its way")
		}
		s.finish(beside[0], nil)
		if turn(c) {
			t.Error("one goes beside two")
		}
		s.finish(a, nil)
		if !turn(c) {
			t.Error("the next ones are not to go")
		}
		<-a.done
		<-c.turn
		s.finish(c, errGone)
		if <-c.done; c.err != errGone || s.flying != 0 {
			t.Error(c.err, s.flying)
		}
	})
}

// as many callers as the last statement had go beside it, and fewer do not.
func TestShareBeside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(share)
		beside := fly(t, s)
		four := make([]*group, 4)
		for i := range four {
			four[i], _, _, _ = s.join(one())
		}
		s.landed(0)
		s.finish(beside[0], nil)
		if g := four[0]; four[3] != g || !turn(g) || s.flying != 1 {
			t.Fatal("they are not on their way", s.flying)
		}
		for i := range 4 {
			// A caller counts, and not how many keys he has.
			g, _, lead, _ := s.join(make([]*parts, 2))
			if g == four[0] || lead != (i == 3) {
				t.Fatal(i, lead)
			}
			if lead {
				s.finish(g, nil)
			}
		}
		s.finish(four[0], nil)
		if s.flying != 0 || s.next != nil {
			t.Error(s.flying, s.next)
		}
	})
}

// it handles as many keys as fit without waiting for anything.
func TestShareFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(share)
		fly(t, s)
		for i := range maxShared {
			g, first, lead, _ := s.join(one())
			if lead != (i == maxShared-1) || first != i {
				t.Fatal(i, first, lead)
			}
			if lead {
				s.finish(g, nil)
			}
		}
		a, _, _, _ := s.join(make([]*parts, maxShared-1))
		b, first, lead, _ := s.join(make([]*parts, 2))
		if a == b || !turn(a) || turn(b) || first != 0 || lead {
			t.Error("what does not fit any more is not the next group's")
		}
		s.finish(a, nil)
		s.finish(b, nil)
	})
}

// nobody waits for long: neither for a statement on its way, nor for one that is shared.
func TestShareLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(share)
		slow := fly(t, s)
		g, _, _, _ := s.join(one())
		s.join(one())
		time.Sleep(maxHold)
		synctest.Wait()
		if !turn(g) {
			t.Fatal("it still waits for the first")
		}
		<-g.turn
		next, _, _, _ := s.join(one())
		time.Sleep(maxHold)
		synctest.Wait()
		if <-g.done; g.err != errSlow || !turn(next) {
			t.Error("it still waits for the second", g.err)
		}
		s.landed(0) // counts no more
		s.finish(slow[0], nil)
		if s.flying != 1 {
			t.Error(s.flying)
		}
		s.finish(g, nil)
		s.finish(next, nil)
		if s.flying != 0 || g.err != errSlow || next.err != nil {
			t.Error(s.flying, g.err, next.err)
		}
	})
}

// a caller that goes takes nobody's turn with it.
func TestShareLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(share)
		beside := fly(t, s)
		g, _, _, _ := s.join(one())
		s.join(one())
		s.leave(g)
		s.landed(0)
		if !turn(g) {
			t.Fatal("the other one is not to lead")
		}
		next, _, _, _ := s.join(one())
		s.leave(g)
		if turn(g) || !turn(next) {
			t.Fatal("the next ones wait for a group that has gone")
		}
		<-next.turn
		last, _, _, _ := s.join(one())
		s.leave(last)
		s.finish(next, nil)
		s.finish(beside[0], nil)
		if g, _, _, _ := s.join(one()); g != nil || s.flying != 1 {
			t.Error("nothing is on its way, and it waits", s.flying)
		}
	})
}

// statements that take long are not waited for.
func TestShareUsual(t *testing.T) {
	s := new(share)
	for range 50 {
		s.took(2 * maxUsual)
	}
	for range 2 * maxFlying {
		if g, _, _, _ := s.join(one()); g != nil {
			t.Error("it waits")
		}
	}
	for range 50 {
		s.took(time.Millisecond)
	}
	if g, _, _, _ := s.join(one()); g == nil {
		t.Error("it does not wait")
	} else {
		s.leave(g)
	}
}
