package mysql

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	mysqldriver "github.com/go-sql-driver/mysql"
)

const (
	// maxShared is how many keys one statement asks for.
	maxShared = 16
	// maxFlying is how many statements with keys of one table are on their way before all
	// further keys wait.
	maxFlying = 2
	// maxUsual is how long the statements of a table may usually take if its keys are
	// to wait for each other: where they take longer, a round trip saved is nothing.
	maxUsual = 5 * time.Millisecond
	// maxHold is how long a key waits for the statement on its way, and then for the
	// one that it shares with others.
	maxHold = 25 * time.Millisecond
)

// share makes one statement of what several callers ask one table at the same time.
// While a statement is on its way further keys gather. They go together when it is back,
// or beside it when they have as many callers as it had, so that the server works on
// one half of the keys while the callers see to the other; and at the latest when they are
// maxShared, or after maxHold. A caller that is alone never waits, and nobody waits for
// a shared statement that takes longer than maxHold, or that the server says anything
// against: then each asks for its own key.
type share struct {
	mu     sync.Mutex // guards what follows
	flying int        // statements on their way that the next ones wait for
	aloft  int        // callers of the last one that left
	epoch  int        // statements of earlier epochs take long, and nobody waits for them
	next   *group     // what gathers; nil if nothing is on its way
	usual  time.Duration
}

// group is keys of several callers for one statement.
type group struct {
	replies []reply       // complete when it starts; the answers are the leader's until done
	turn    chan struct{} // one of the callers takes from it and leads
	done    chan struct{} // closed when there are answers, or err

	// Guarded by share.mu:
	epoch   int // in which it started
	callers int
	over    bool        // done is closed
	err     error       // may be read when done is closed
	timer   *time.Timer // nil if nobody waits
}

// reply is the answer to one key.
type reply struct {
	key *parts
	answer
	alone bool // values and err are what the statement for this key alone came to
	err   error
}

var (
	errSlow = errors.New("the shared statement takes long")
	errGone = errors.New("the shared statement has no end")
	// errAlone says that each key is to be asked for alone.
	errAlone = errors.New("the statement is not to be shared")
)

// repeats reports whether the query can be asked for several keys at once.
func (t *Table) repeats() bool { return t.query.repeat && !t.alone.Load() }

// answers asks for keys together, and with those of other callers. An error is one
// for each of the keys, or errAlone.
func (t *Table) answers(ctx context.Context, keys ...*parts) ([]reply, error) {
	s := &t.share
	g, first, lead, epoch := s.join(keys)
	if g == nil {
		defer s.landed(epoch)
		replies := make([]reply, len(keys))
		for i, k := range keys {
			replies[i].key = k
		}
		return replies, t.askAll(ctx, replies)
	}
	if !lead {
		asking.Add(1)
		defer asking.Add(-1)
		select {
		case <-g.turn:
		case <-g.done:
			if g.err != nil {
				return nil, errAlone
			}
			return g.replies[first : first+len(keys)], nil
		case <-ctx.Done():
			s.leave(g)
			return nil, ctx.Err()
		}
	}
	err := errGone // unless there is an end
	defer func() { s.finish(g, err) }()
	err = t.askAll(ctx, g.replies)
	return g.replies[first : first+len(keys)], err
}

// join adds keys to what gathers. No group means that the caller does not wait, and
// calls landed with the epoch. Else it waits until it is to lead, or does so at once.
func (s *share) join(keys []*parts) (g *group, first int, lead bool, epoch int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flying == 0 || s.usual > maxUsual || len(keys) > maxShared {
		s.flying++
		s.aloft = 1
		return nil, 0, false, s.epoch
	}
	if s.next != nil && len(s.next.replies)+len(keys) > maxShared {
		s.start().turn <- struct{}{}
	}
	if s.next == nil {
		s.next = &group{turn: make(chan struct{}, 1), done: make(chan struct{})}
	}
	g = s.next
	first = len(g.replies)
	for _, k := range keys {
		g.replies = append(g.replies, reply{key: k})
	}
	g.callers++
	if lead = s.ready(); lead {
		s.start()
	} else if g.timer == nil {
		g.timer = time.AfterFunc(maxHold, func() { s.late(g) })
	}
	return g, first, lead, 0
}

// ready reports whether what gathers waits for nothing more. s.mu is held.
func (s *share) ready() bool {
	g := s.next
	return g != nil && (s.flying == 0 || s.flying < maxFlying && g.callers >= s.aloft || len(g.replies) == maxShared)
}

// start ends the gathering. s.mu is held.
func (s *share) start() *group {
	g := s.next
	s.next = nil
	s.flying++
	s.aloft = g.callers
	g.epoch = s.epoch
	if g.timer != nil {
		g.timer.Reset(maxHold)
	}
	return g
}

// land takes note of a statement that is over. s.mu is held.
func (s *share) land(epoch int) {
	if epoch != s.epoch {
		return
	}
	if s.flying--; s.ready() {
		s.start().turn <- struct{}{}
	}
}

// landed is land for one without a group.
func (s *share) landed(epoch int) {
	s.mu.Lock()
	s.land(epoch)
	s.mu.Unlock()
}

// finish ends the statement of g.
func (s *share) finish(g *group, err error) {
	s.mu.Lock()
	s.land(g.epoch)
	g.finish(err)
	s.mu.Unlock()
}

// finish tells the callers what came of g. share.mu is held.
func (g *group) finish(err error) {
	if g.timer != nil {
		g.timer.Stop()
	}
	if !g.over {
		g.over, g.err = true, err
		close(g.done)
	}
}

// leave is for a caller that cannot wait for g any more.
func (s *share) leave(g *group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.callers--; g.callers > 0 {
		return
	}
	if s.next == g {
		s.next = nil
		g.finish(errGone)
	}
	select {
	case <-g.turn: // it was this one's turn
		s.land(g.epoch)
		g.finish(errGone)
	default:
	}
}

// late is called when g has waited for too long: for what is on its way, or, if it
// has started, for the server.
func (s *share) late(g *group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != g {
		g.finish(errSlow)
		return
	}
	s.epoch++
	s.flying = 0
	s.start().turn <- struct{}{}
}

// took takes note of how long a statement took.
func (s *share) took(d time.Duration) {
	s.mu.Lock()
	s.usual += (d - s.usual) / 8
	s.mu.Unlock()
}

// askAll fills in replies, all of which have a key, with one statement. An error is
// one for every key, unless it is errAlone.
func (t *Table) askAll(ctx context.Context, replies []reply) error {
	if len(replies) == 1 {
		r := &replies[0]
		r.alone = true
		r.values, r.err = t.askAlone(ctx, r.key)
		return nil
	}
	err := t.pool.do(ctx, func(c *conn) error {
		start := time.Now()
		defer func() { t.share.took(time.Since(start)) }()
		return t.askTogether(c, replies)
	})
	var said *mysqldriver.MySQLError
	switch {
	case errors.Is(err, errUnlike), errors.As(err, &said) && strings.HasPrefix(string(said.SQLState[:]), "42"):
		t.alone.Store(true) // and will be so the next time
		return errAlone
	case errors.As(err, &said), errors.Is(err, errTooLarge):
		return errAlone
	}
	return err
}
