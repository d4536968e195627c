package ledger

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"
)

// Start begins to write once in Interval, in the background. Close ends it.
func (l *Ledger) Start() {
	l.stop, l.done = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(l.done)
		tick := time.NewTicker(l.interval())
		defer tick.Stop()
		for {
			select {
			case <-l.stop:
				return
			case <-tick.C:
			case <-l.kick:
			}
			ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
			l.Flush(ctx) // what fails is tried again with the next tick; the store says why
			cancel()
			l.sweep()
		}
	}()
}

// Close ends what Start began and writes what is left.
func (l *Ledger) Close(ctx context.Context) error {
	if l.stop != nil {
		close(l.stop)
		<-l.done
		l.stop = nil
	}
	return l.Flush(ctx)
}

// wake has the writer write at once.
func (l *Ledger) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// Flush writes what the store does not have yet, and learns what the others have counted for the same
// accounts. On an error it stays to be written.
func (l *Ledger) Flush(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.store == nil {
		return nil
	}
	for len(l.dirty) > 0 {
		if err := l.meet(ctx); err != nil {
			return err
		}
		rows := l.unsaved()
		if len(rows) == 0 {
			return nil
		}
		accounts, keys := l.of(rows)
		err := l.ask(accounts, keys, func(store Store) ([]Row, time.Time, error) { return store.Write(ctx, l.node, rows) })
		if err != nil {
			return err
		}
		l.saved(rows)
	}
	return nil
}

// meet reads the accounts of which the store may have rows that this process has
// forgotten: nothing may be written before. l.mu is held, but not while it waits.
func (l *Ledger) meet(ctx context.Context) error {
	for {
		var strangers []*account
		for a := range l.dirty {
			if !a.known() && a.asking == nil && len(strangers) < maxWrite/8 {
				strangers = append(strangers, a)
			}
		}
		if len(strangers) == 0 {
			return nil
		}
		if err := l.readAccounts(ctx, strangers); err != nil {
			return err
		}
	}
}

// unsaved returns rows to be written, in the order of their keys. l.mu is held.
func (l *Ledger) unsaved() (rows []Row) {
	for a := range l.dirty {
		if !a.known() {
			continue // being asked about
		}
		before := len(rows)
		for _, s := range a.series {
			for _, b := range s.buckets {
				if b.own != b.saved {
					rows = append(rows, Row{Key: Key{a.name, s.step}, Start: b.start, Own: true, Counts: b.own})
				}
			}
		}
		if len(rows) == before {
			delete(l.dirty, a)
		}
		if len(rows) >= maxWrite {
			rows = rows[:maxWrite]
			break
		}
	}
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Step, b.Step), cmp.Compare(a.Start, b.Start))
	})
	return rows
}

// of returns the accounts and the keys of rows, which are in the order of their keys. l.mu is held.
func (l *Ledger) of(rows []Row) (accounts []*account, keys []Key) {
	for _, row := range rows {
		keys = append(keys, row.Key)
	}
	keys = slices.Compact(keys)
	for i, key := range keys {
		if i == 0 || key.Name != keys[i-1].Name {
			accounts = append(accounts, l.accounts[key.Name].Value.(*account))
		}
	}
	return accounts, keys
}

// saved notes that rows were written. l.mu is held.
func (l *Ledger) saved(rows []Row) {
	for _, row := range rows {
		e := l.accounts[row.Name]
		if e == nil {
			continue
		}
		a := e.Value.(*account)
		if s := a.of(row.Step); s != nil && s.known {
			s.at(row.Start).saved = row.Counts
		}
	}
}

// sweep drops what is of no use any more: accounts whose counts are all over, and those
// that the store has and nobody asks about. A few at a time.
func (l *Ledger) sweep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now().Unix()
	e := l.order.Back()
	for range 1000 {
		if e == nil {
			return
		}
		a := e.Value.(*account)
		this := e
		e = e.Prev()
		if l.local().Sub(a.used) < idleTime {
			return
		}
		empty := true
		for _, s := range a.series {
			s.prune(now)
			empty = empty && len(s.buckets) == 0
		}
		_, dirty := l.dirty[a]
		if a.asking == nil && (empty || l.store != nil && !dirty) {
			l.forget(this)
		}
	}
}

func (a *account) known() bool {
	return !slices.ContainsFunc(a.series, func(s *series) bool { return !s.known })
}
