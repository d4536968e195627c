package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"dovepost/lookup/mysql"
	"dovepost/policy/ledger"
)

// sharedLedger is what a rule counts. It outlives the reloads, and has its store in the database
// of the present state.
type sharedLedger struct {
	mu         sync.Mutex // guards what follows
	l          *ledger.Ledger
	users      int // states that are in use: the present one, and those that retire
	pool, soon *mysql.Pool
	store      ledger.Store // of soon; nil: none
}

// next says which store the state that is being built has.
func (s *sharedLedger) next(pool *mysql.Pool, store ledger.Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.soon, s.store = pool, store
}

// ledger returns the ledger.
func (s *sharedLedger) ledger(interval time.Duration) *ledger.Ledger {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.l == nil {
		s.l = ledger.New(nil)
		s.l.Interval = interval
	}
	return s.l
}

// start takes the store of the state that comes into use.
func (s *sharedLedger) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.soon != s.pool {
		s.l.SetStore(s.store)
		s.pool = s.soon
	}
	if s.users++; s.users == 1 {
		s.l.Start()
	}
}

// stop writes what is left when the last state goes.
func (s *sharedLedger) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users--; s.users > 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := s.l.Close(ctx); err != nil {
		return fmt.Errorf("what was counted last is not written: %w", err)
	}
	return nil
}
