package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"dovepost/cmd/internal/daemon"
	"dovepost/cmd/internal/database"
	"dovepost/lookup/cache"
	"dovepost/lookup/mysql"
	"dovepost/policy"
	"dovepost/policy/breaker"
	"dovepost/policy/notify"
	"dovepost/policy/sqldb"
)

// state is what the files say: the chain, and the servers that it asks.
type state struct {
	chain    policy.Chain
	pools    *database.Pools
	breakers map[*mysql.Pool]*breaker.Breaker
	others   []*breaker.Breaker // before what is no pool: of this state alone

	mu     sync.RWMutex // held for reading while a request is decided
	closed bool         // guarded by mu
}

// decide asks the chain; ok is false if another state has taken the place of this one.
func (s *state) decide(ctx context.Context, r *policy.Request) (action policy.Action, ok bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return policy.Dunno, false, nil
	}
	action, err = s.chain.Decide(ctx, r)
	return action, true, err
}

// retire waits for the requests that are being decided, and ends what the rules have to.
// next has what is still needed; nil: nothing is.
func (s *state) retire(next *state) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	err := discard(s.chain)
	for pool, b := range s.breakers {
		if next == nil || next.breakers[pool] != b {
			b.Close()
		}
	}
	for _, b := range s.others {
		b.Close()
	}
	return err
}

// builder builds a state. Rules find in it what they share.
type builder struct {
	*daemon.Env
	*settings
	cache      *cache.Cache
	notifier   *notify.Notifier // nil-safe: tells the administrator what a rule has done
	state      *state
	old        *state // the present one; nil at start
	statements []database.Statement
	files      map[string]*mysql.File
	known      *addresses // nil before a rule wants them
}

// build makes a state of the files, with the connections of the old one where it can.
func (p *policyd) build(ctx context.Context, old *state) (*state, error) {
	var pools *database.Pools
	if old != nil {
		pools = old.pools
	}
	s := &state{pools: database.NewPools(p.env, p.mysqlConns, pools), breakers: map[*mysql.Pool]*breaker.Breaker{}}
	b := &builder{Env: p.env, settings: &p.settings, cache: p.cache, notifier: p.notifier, state: s, old: old, files: map[string]*mysql.File{}}
	err := daemon.ConfigError(b.all(ctx, p.on))
	if err == nil {
		err = s.pools.Prepare(ctx, b.statements...)
	}
	if err != nil {
		_ = discard(s.chain)
		s.pools.Discard()
		return nil, err
	}
	return s, nil
}

// all makes the chain.
func (b *builder) all(ctx context.Context, on []rule) (err error) {
	if b.settings, err = b.withMainCf(); err != nil {
		return err
	}
	for _, r := range on {
		failing, err := b.failing(r)
		if err != nil {
			return err
		}
		decider, err := r.build(ctx, b)
		if err != nil {
			return fmt.Errorf("rule %s: %w", r.name(), err)
		}
		b.state.chain = append(b.state.chain, policy.Rule{
			Name: r.name(), Decider: counted{decider, b.Metrics.Decisions(r.name())}, OnError: failing,
		})
	}
	return nil
}

// file reads a mysql_table(5) file, once for all rules.
func (b *builder) file(path string) (*mysql.File, error) {
	if f := b.files[path]; f != nil {
		return f, nil
	}
	f, err := mysql.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for _, w := range f.Warnings {
		b.Log.Warn("file", "warning", w)
	}
	b.files[path] = f
	return f, nil
}

// readFile reads a file of a setting. Errors name it.
func readFile[T any](path string, read func(io.Reader) (T, error)) (content T, err error) {
	f, err := os.Open(path)
	if err != nil {
		return content, err
	}
	defer f.Close()
	if content, err = read(f); err != nil {
		return content, fmt.Errorf("%s: %w", path, err)
	}
	return content, nil
}

// server returns the pool of a server, and the breaker that stands before all questions to it.
func (b *builder) server(c mysql.Config) (*mysql.Pool, *breaker.Breaker) {
	pool := b.state.pools.Open(c)
	return pool, b.breaker(pool)
}

// breaker returns what stands before a pool: that of the old state, if it has the pool.
func (b *builder) breaker(pool *mysql.Pool) *breaker.Breaker {
	br := b.state.breakers[pool]
	if br == nil && b.old != nil {
		br = b.old.breakers[pool]
	}
	if br == nil {
		br = sqldb.NewBreaker(pool, b.lookupTimeout, b.Log)
	}
	b.state.breakers[pool] = br
	return br
}

// database returns the database of the rules' own tables, --mysql, and has it look at the
// statements before policyd is ready.
func (b *builder) database(statements ...string) (*sqldb.DB, error) {
	if b.mysql == "" {
		return nil, errors.New("there is no mysql = FILE for its tables")
	}
	f, err := b.file(b.mysql)
	if err != nil {
		return nil, err
	}
	pool, br := b.server(f.Config())
	db := sqldb.New(pool, br)
	b.wants(db, statements...)
	return db, nil
}

// wants has the database look at statements before policyd is ready.
func (b *builder) wants(db *sqldb.DB, statements ...string) {
	b.prepare(db.Pool(), func(ctx context.Context) error { return db.Prepare(ctx, statements...) })
}

// prepare has f ask pool's server about statements before policyd is ready.
func (b *builder) prepare(pool *mysql.Pool, f func(context.Context) error) {
	b.statements = append(b.statements, database.Statement{Pool: pool, Prepare: f})
}
