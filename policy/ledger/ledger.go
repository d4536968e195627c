// Package ledger counts what accounts do in sliding windows, on one machine or on several
// that share a store.
//
// Time is cut into buckets, see StepOf, and a window is the sum of those that have a part
// in it: nothing is forgotten too early, and all of it by one bucket too late at most.
//
// Each process writes what it alone has counted, as totals under a number of its own, so
// that a statement that is executed twice changes nothing, no two machines write to one
// row, and nothing is counted twice after a connection was lost. It writes what is new
// once in Interval, for all accounts together, and at once where an account has used up an eighth
// of what was left. The answer to what is written is what the others have counted for those accounts.
//
// So a message costs a statement at most, or a share of one, that it does not wait for. A decision
// waits for the store, which it asks what the others have counted, only
//
//   - about an account that this process does not know: the first time in a week;
//   - if it has let something pass since the store was last heard of the account, and that
//     is longer ago than Interval, as in the first moment of a burst, or while nothing can be written;
//   - before it refuses what does not fit by something older than Interval.
//
// A message that is refused is not written, so one question is all that it costs, too.
//
// One process alone is exact. Of n, all together let pass as much beyond a limit as n-1 of
// them let pass in twice Interval and the time of a statement, at most; that is a message each where
// they come one by one, and a message or two each for an even burst at all of them.
//
// While the store does not answer, decisions go by what is known: own counts exactly, those
// of the others as they were. When it is back, what it missed is written, and read again.
//
// Buckets go by the store's clock, in UTC, once it has answered for the first time.
package ledger

import (
	"cmp"
	"container/list"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Key names the buckets of one account and length.
type Key struct {
	Name string
	Step int64 // seconds
}

// Row is what one process has counted in a bucket, or what several have.
type Row struct {
	Key
	Start  int64 // Unix seconds
	Own    bool  // of the process that asks
	Counts Counts
}

// Want asks for the buckets of a Key that begin at From or later.
type Want struct {
	Key
	From int64
}

// Store is shared by several processes, each known by a number of its own.
type Store interface {
	// Read returns what is stored for the wants, own rows apart from the sum of all others', and the
	// store's clock. An error says nothing about the counts.
	Read(ctx context.Context, node int64, wants []Want) (rows []Row, now time.Time, err error)
	// Write stores totals of the process, in the order of the primary key, and then returns for their
	// keys what Read does, own rows or none. Written twice, or after a larger one, a total changes nothing.
	Write(ctx context.Context, node int64, rows []Row) (found []Row, now time.Time, err error)
}

// DefaultInterval is how old the counts of other processes may be.
const DefaultInterval = time.Second

const (
	defaultAccounts = 1 << 15
	maxWrite        = 256                // rows of one Write
	readTimeout     = time.Second        // of a decision; the store's own may be shorter
	writeTimeout    = 5 * time.Second    // of what nobody waits for
	idleTime        = 7 * 24 * time.Hour // then an account that the store has is forgotten here
	clockError      = 250 * time.Millisecond
)

// Ledger is safe for concurrent use. Its fields are set before that.
type Ledger struct {
	Interval time.Duration    // 0 is DefaultInterval
	Accounts int              // bound of those in memory; 0 is 32,768. The one used least recently goes
	Now      func() time.Time // nil is time.Now

	node int64

	mu       sync.Mutex // guards what follows
	store    Store      // nil: alone
	accounts map[string]*list.Element
	order    list.List // of *account, the latest first
	dirty    map[*account]struct{}
	clock    struct{ server, local time.Time } // zero: the store was not asked yet

	kick chan struct{} // the writer has something to do at once
	stop chan struct{}
	done chan struct{}
}

// account is one name. Its series' own rows in the store are known before any is written.
type account struct {
	name   string
	series []*series // by step
	used   time.Time
	total  Counts        // that was ever counted here
	read   time.Time     // when the store was asked what is known of it; zero: never
	heard  Counts        // of total, by then
	asking chan struct{} // closed when the question under way is answered; nil: there is none
}

// since is what was counted here since the store was asked.
func (a *account) since() (n Counts) {
	for i := range n {
		n[i] = a.total[i] - a.heard[i]
	}
	return n
}

// New makes a Ledger over a store, which may be nil.
func New(store Store) *Ledger {
	return &Ledger{
		node: rand.Int64N(1<<62) + 1, store: store,
		accounts: map[string]*list.Element{}, dirty: map[*account]struct{}{},
		kick: make(chan struct{}, 1),
	}
}

func (l *Ledger) local() time.Time {
	if l.Now != nil {
		return l.Now()
	}
	return time.Now()
}

// now is the store's clock. l.mu is held.
func (l *Ledger) now() time.Time {
	local := l.local()
	if l.clock.server.IsZero() {
		return local
	}
	return l.clock.server.Add(local.Sub(l.clock.local))
}

// setClock takes the clock of an answer to a question of the time from asked to local. l.mu is held.
func (l *Ledger) setClock(server, asked, local time.Time) {
	took := local.Sub(asked)
	first := l.clock.server.IsZero()
	if !first && took >= clockError {
		return
	}
	before := l.now()
	l.clock.server, l.clock.local = server, local.Add(-took/2)
	if ahead := l.now().Sub(before); first && ahead.Abs() > time.Second {
		l.move(int64(ahead / time.Second))
	}
}

// move moves what was counted by another clock. l.mu is held.
func (l *Ledger) move(seconds int64) {
	for e := l.order.Front(); e != nil; e = e.Next() {
		for _, s := range e.Value.(*account).series {
			for i := range s.buckets {
				start := s.buckets[i].start + seconds
				s.buckets[i].start = start + (s.step-start%s.step)%s.step // not forgotten too early
			}
		}
	}
}

// SetStore replaces the store. What is in memory is written to the new one.
func (l *Ledger) SetStore(store Store) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.store = store
	for e := l.order.Front(); e != nil; e = e.Next() {
		a := e.Value.(*account)
		a.read = time.Time{}
		for _, s := range a.series {
			for i := range s.buckets {
				s.buckets[i].saved = Counts{}
			}
		}
		l.dirty[a] = struct{}{}
	}
}

// account returns the account of a name with a series for each window. l.mu is held.
func (l *Ledger) account(name string, windows []time.Duration) *account {
	e := l.accounts[name]
	if e == nil {
		if l.order.Len() >= cmp.Or(l.Accounts, defaultAccounts) {
			l.forget(l.order.Back())
		}
		e = l.order.PushFront(&account{name: name})
		l.accounts[name] = e
	}
	l.order.MoveToFront(e)
	a := e.Value.(*account)
	a.used = l.local()
	for _, w := range windows {
		if step := stepOf(w); a.of(step) == nil {
			a.series = append(a.series, &series{step: step})
			a.read = time.Time{} // the store may have something of that step
		}
	}
	return a
}

// of returns the series of a step, or nil.
func (a *account) of(step int64) *series {
	i := slices.IndexFunc(a.series, func(s *series) bool { return s.step == step })
	if i < 0 {
		return nil
	}
	return a.series[i]
}

// sum counts a window of the account. l.mu is held.
func (a *account) sum(now time.Time, window time.Duration) Counts {
	return a.of(stepOf(window)).sum(now, window)
}

// add counts n. l.mu is held.
func (l *Ledger) add(a *account, n Counts) {
	now := l.now().Unix()
	for _, s := range a.series {
		s.prune(now)
		b := s.at(now - now%s.step)
		b.own = b.own.Plus(n)
	}
	a.total = a.total.Plus(n)
	if l.store != nil {
		l.dirty[a] = struct{}{}
	}
}

// forget drops an account from memory. l.mu is held.
func (l *Ledger) forget(e *list.Element) {
	a := l.order.Remove(e).(*account)
	delete(l.accounts, a.name)
	delete(l.dirty, a)
}

// Len returns how many accounts are in memory.
func (l *Ledger) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.order.Len()
}
