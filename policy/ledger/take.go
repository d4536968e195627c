package ledger

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Limit is the most that a window may hold of one of the Counts.
type Limit struct {
	What   int // index of Counts
	Most   int64
	Window time.Duration
}

// Ask is about one account, which stays within all its limits. One without limits is not
// counted.
type Ask struct {
	Name   string
	Limits []Limit
}

// Mode says what Take does beside looking.
type Mode int

const (
	Look   Mode = iota // nothing
	Commit             // counts what fits
	Force              // counts, whether it fits or not
)

// Verdict is whether something fits.
type Verdict struct {
	OK bool

	// Of the limit that is in the way for longest:
	Ask   int
	Limit Limit
	Used  int64     // in its window
	Until time.Time // when it would fit; zero: never
}

// Take decides whether n fits into all limits of all asks, and counts it for all of them, or for
// none. Where the store has to be asked, see the package, it waits for the answer, but not for longer than
// ctx or a second; then it decides by what it knows.
func (l *Ledger) Take(ctx context.Context, asks []Ask, n Counts, mode Mode) Verdict {
	windows := make([][]time.Duration, len(asks))
	for i, ask := range asks {
		windows[i] = windowsOf(ask.Limits)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refresh(ctx, func() (stale []*account) {
		for i, ask := range asks {
			if len(ask.Limits) == 0 {
				continue
			}
			if a := l.account(ask.Name, windows[i]); l.stale(a, ask.Limits, n) {
				stale = append(stale, a)
			}
		}
		return stale
	})
	now := l.now()
	v := Verdict{OK: true}
	for i, ask := range asks {
		for _, limit := range ask.Limits {
			v = v.worse(l.judge(l.account(ask.Name, windows[i]), now, limit, n), i)
		}
	}
	if mode == Force || mode == Commit && v.OK {
		for i, ask := range asks {
			if len(ask.Limits) == 0 {
				continue
			}
			a := l.account(ask.Name, windows[i])
			if l.add(a, n); l.store != nil && l.urgent(a, ask.Limits) {
				l.wake()
			}
		}
	}
	return v
}

// worse returns the verdict that is in the way for longer.
func (v Verdict) worse(w Verdict, ask int) Verdict {
	w.Ask = ask
	switch {
	case w.OK:
		return v
	case v.OK, !v.Until.IsZero() && (w.Until.IsZero() || w.Until.After(v.Until)):
		return w
	}
	return v
}

// judge looks at one limit. l.mu is held.
func (l *Ledger) judge(a *account, now time.Time, limit Limit, n Counts) Verdict {
	used := a.sum(now, limit.Window)[limit.What]
	more := n[limit.What]
	v := Verdict{Limit: limit, Used: used}
	switch {
	case more <= limit.Most-used, more == 0:
		v.OK = true
	case more <= limit.Most:
		v.Until = a.of(stepOf(limit.Window)).frees(now, limit.Window, limit.What, limit.Most-more)
	}
	return v
}

func windowsOf(limits []Limit) (windows []time.Duration) {
	for _, limit := range limits {
		if !slices.Contains(windows, limit.Window) {
			windows = append(windows, limit.Window)
		}
	}
	return windows
}

// stale reports whether an account has to be read before a decision about n. l.mu is held.
func (l *Ledger) stale(a *account, limits []Limit, n Counts) bool {
	switch {
	case l.store == nil || !l.old(a):
		return false
	case a.read.IsZero() || a.since() != (Counts{}):
		return true
	}
	now := l.now()
	return slices.ContainsFunc(limits, func(limit Limit) bool { return !l.judge(a, now, limit, n).OK })
}

// urgent reports whether an eighth of what was left when the account was last read has been used. l.mu is held.
func (l *Ledger) urgent(a *account, limits []Limit) bool {
	now, since := l.now(), a.since()
	return slices.ContainsFunc(limits, func(limit Limit) bool {
		n := since[limit.What]
		return n > (limit.Most-max(0, a.sum(now, limit.Window)[limit.What]-n))/8
	})
}

// old reports whether an account was not read within Interval. l.mu is held.
func (l *Ledger) old(a *account) bool {
	return a.read.IsZero() || l.local().Sub(a.read) >= l.interval()
}

func (l *Ledger) interval() time.Duration {
	if l.Interval > 0 {
		return l.Interval
	}
	return DefaultInterval
}

// refresh reads the accounts that pick picks, once. Those that somebody else is reading are
// waited for, and picked again. l.mu is held, but not while it waits.
func (l *Ledger) refresh(ctx context.Context, pick func() []*account) {
	stale := pick()
	if len(stale) == 0 {
		return // without the price of a time limit
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	for ; len(stale) > 0 && ctx.Err() == nil; stale = pick() {
		var other chan struct{}
		for _, a := range stale {
			if a.asking != nil {
				other = a.asking
			}
		}
		if other == nil {
			l.readAccounts(ctx, stale)
			return
		}
		l.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
		}
		l.mu.Lock()
	}
}

// readAccounts asks the store about accounts that nobody else asks about. l.mu is held, but not
// while it waits.
func (l *Ledger) readAccounts(ctx context.Context, accounts []*account) (err error) {
	asking := make(chan struct{})
	var keys []Key
	var wants []Want
	now := l.now().Unix()
	for _, a := range accounts {
		a.asking = asking
		for _, s := range a.series {
			want := Want{Key{a.name, s.step}, now - keptFor(s.step) - s.step}
			if l.clock.server.IsZero() {
				want.From = 0 // what time it is there is not known yet
			}
			keys, wants = append(keys, want.Key), append(wants, want)
		}
	}
	err = l.ask(accounts, keys, func(store Store) ([]Row, time.Time, error) { return store.Read(ctx, l.node, wants) })
	for _, a := range accounts {
		a.asking = nil
	}
	close(asking)
	return err
}

// errReplaced is for an answer of a store that is in use no more.
var errReplaced = errors.New("another store has taken its place")

// ask has f ask the store, and learns what it says of the keys of accounts. Of two answers about one
// the one counts that was asked for later. l.mu is held, but not while it waits.
func (l *Ledger) ask(accounts []*account, keys []Key, f func(Store) ([]Row, time.Time, error)) error {
	store, asked := l.store, l.local()
	totals := make([]Counts, len(accounts))
	for i, a := range accounts {
		totals[i] = a.total
	}
	l.mu.Unlock()
	rows, server, err := f(store)
	l.mu.Lock()
	switch {
	case err != nil:
		return err
	case store != l.store:
		return errReplaced
	}
	l.setClock(server, asked, l.local())
	for i, a := range accounts {
		if asked.Before(a.read) {
			continue
		}
		if a.learn(rows, keys) {
			a.read, a.heard = asked, totals[i]
		}
	}
	return nil
}

// learn takes the rows of the account, all that there are of keys, and reports whether all its series were
// among them. Own rows are news only the first time. l.mu is held.
func (a *account) learn(rows []Row, keys []Key) (all bool) {
	all = true
	for _, s := range a.series {
		if !slices.Contains(keys, Key{a.name, s.step}) {
			all = false
			continue
		}
		for i := range s.buckets {
			s.buckets[i].others = Counts{}
		}
		for _, row := range rows {
			if row.Key != (Key{a.name, s.step}) || row.Start%s.step != 0 {
				continue
			}
			switch b := s.at(row.Start); {
			case !row.Own:
				b.others = row.Counts
			case !s.known:
				b.own, b.saved = b.own.Plus(row.Counts), row.Counts
			}
		}
		s.known = true
	}
	return all
}

// Add counts n for an account, in each of the windows, without waiting.
func (l *Ledger) Add(name string, windows []time.Duration, n Counts) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(l.account(name, windows), n)
}

// Sum counts a window of an account. It waits for the store if what is known is older than
// Interval, but not for longer than ctx or a second.
func (l *Ledger) Sum(ctx context.Context, name string, window time.Duration) Counts {
	windows := []time.Duration{window}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refresh(ctx, func() []*account {
		if a := l.account(name, windows); l.store != nil && l.old(a) {
			return []*account{a}
		}
		return nil
	})
	return l.account(name, windows).sum(l.now(), window)
}
