// Package database is how the daemons come to their MySQL servers: the pools that
// a reload keeps, the statements that are tried before READY=1, and the passdb and
// userdb of --sql and --mysql.
package database

import (
	"context"
	"errors"
	"time"

	"dovepost/cmd/internal/daemon"
	"dovepost/lookup/mysql"
)

// prepareTimeout bounds how long the servers may take, at start, to say whether
// they take the statements.
const prepareTimeout = 5 * time.Second

// Pools are the connections that one state of a daemon asks through, a pool for
// each server. They are filled while the state is made, by one goroutine.
type Pools struct {
	env   *daemon.Env
	conns int
	old   map[mysql.Config]*mysql.Pool // of the state before, to be taken over
	pools map[mysql.Config]*mysql.Pool
}

// NewPools makes room for the pools of a new state, each of at most conns
// connections. Old are those of the state that it will replace, nil at start.
func NewPools(env *daemon.Env, conns int, old *Pools) *Pools {
	p := &Pools{env: env, conns: conns, pools: map[mysql.Config]*mysql.Pool{}}
	if old != nil {
		p.old = old.pools
	}
	return p
}

// Open returns the pool of a server: the old one, if its Config is the same.
func (p *Pools) Open(c mysql.Config) *mysql.Pool {
	pool := p.pools[c]
	if pool == nil {
		if pool = p.old[c]; pool == nil {
			pool = mysql.OpenPool(c, p.conns)
			pool.SetLog(p.env.Log)
		}
		p.pools[c] = pool
	}
	return pool
}

// Use is called when the new state has become the present one: it publishes the
// figures of its pools, and closes those of the state before that it has not taken
// over as soon as grace, the longest time that a lookup may use them for, is over.
func (p *Pools) Use(grace time.Duration) {
	for config, pool := range p.pools {
		if p.old[config] != pool {
			p.env.Metrics.Pool(config.String(), pool.Stats)
		}
	}
	if gone := without(p.old, p.pools); len(gone) > 0 {
		time.AfterFunc(grace, func() { closeAll(gone) })
	}
	p.old = nil
}

// Discard is called when the new state is given up: it closes what is not the old
// one's.
func (p *Pools) Discard() { closeAll(without(p.pools, p.old)) }

// Close closes all pools. A nil Pools has none.
func (p *Pools) Close() error {
	if p == nil {
		return nil
	}
	return closeAll(without(p.pools, nil))
}

// without returns the pools of a that are not in b.
func without(a, b map[mysql.Config]*mysql.Pool) (left []*mysql.Pool) {
	for config, pool := range a {
		if b[config] != pool {
			left = append(left, pool)
		}
	}
	return left
}

func closeAll(pools []*mysql.Pool) error {
	var all error
	for _, pool := range pools {
		all = errors.Join(all, pool.Close())
	}
	return all
}

// A Statement is what a server is to look at before a daemon is ready.
type Statement struct {
	Pool    *mysql.Pool
	Prepare func(context.Context) error
}

// Strict reports whether the state that is made is to be taken only if all of it is right:
// under --check, which tells what is wrong, and at a reload, since the old state goes on.
func (p *Pools) Strict() bool { return p.env.Check || p.old != nil }

// Prepare has the servers look at the statements. A server that cannot be asked is
// no obstacle, except for --check: it will be there later. One that refuses a statement
// is, where p is Strict. Else the daemon goes on if it can use another one: what needs the
// statement has a temporary error, as it would have in Postfix and in Dovecot. The error,
// where nothing can be used, ends it with code 78.
func (p *Pools) Prepare(ctx context.Context, statements ...Statement) error {
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	away := map[*mysql.Pool]bool{}
	usable := false
	var refused []error
	for _, s := range statements {
		if away[s.Pool] {
			continue
		}
		switch err := s.Prepare(ctx); {
		case err == nil:
			usable = true
		case !mysql.Unreachable(err):
			if p.Strict() {
				return daemon.ConfigError(err)
			}
			refused = append(refused, err)
		case p.env.Check:
			return err
		default:
			away[s.Pool], usable = true, true
			p.env.Log.Warn("the database does not answer yet", "err", err)
		}
	}
	if len(refused) > 0 && !usable {
		return daemon.ConfigError(refused[0])
	}
	for _, err := range refused {
		p.env.Log.Error("the database refuses a statement: what needs it is a temporary error", "err", err)
	}
	return nil
}
