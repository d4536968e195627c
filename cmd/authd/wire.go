package main

import (
	"context"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"dovepost/auth"
	"dovepost/auth/dovecot"
	"dovepost/auth/guard"
	"dovepost/auth/sqldb"
	"dovepost/cmd/internal/daemon"
	"dovepost/cmd/internal/serve"
	"dovepost/lookup/mysql"
)

// prepareTimeout bounds how long the server may take, at start, to say whether it
// takes the statements.
const prepareTimeout = 5 * time.Second

// authd is the program: settings, what never changes, and the state that SIGHUP replaces.
type authd struct {
	settings
	rules
	env      *daemon.Env
	instance *dovecot.Instance
	verifier *guard.Verifier
	lookup   guard.Lookup
	delay    *guard.Delay
	state    atomic.Pointer[state]
}

// state is what the file says. It never changes once it is in use.
type state struct {
	db     *sqldb.DB
	pool   *mysql.Pool
	scheme string // of passwords without {SCHEME}
}

func (a *authd) start(ctx context.Context, env *daemon.Env) (*daemon.Service, error) {
	a.env = env
	var err error
	if a.rules, err = a.check(); err != nil {
		return nil, daemon.ConfigError(err)
	}
	s, err := a.read(ctx, nil)
	if err != nil {
		return nil, err
	}
	a.state.Store(s)
	a.instance = dovecot.NewInstance()
	a.delay = guard.NewDelay(a.failureDelay)
	a.verifier = &guard.Verifier{Passdb: a, Names: a.names, DefaultScheme: s.scheme,
		Workers: a.workers, Verbose: a.verbose, Log: env.Log}
	a.lookup = guard.Lookup{Names: a.names, Passdb: a, Userdb: a}
	return &daemon.Service{Handler: a.handler, Reload: a.reload, Close: a.close,
		// A login that has just succeeded is handed over on a new connection to master.
		Last: []string{"master"}}, nil
}

// handler returns what answers on the listeners of a kind.
func (a *authd) handler(kind string) (serve.Handler, error) {
	observe := a.env.Metrics.Observe(kind)
	switch kind {
	case "login", "client":
		return &dovecot.ClientHandler{
			Instance: a.instance, Login: kind == "login", Mechanisms: a.mechanisms,
			Verifier: a.verifier, Delay: a.delay.Wait, Log: a.env.Log, Observe: observe,
		}, nil
	case "master", "userdb":
		return &dovecot.MasterHandler{
			Instance: a.instance, UserdbOnly: kind == "userdb",
			Passdb: a.lookup, Userdb: a.lookup, Log: a.env.Log, Observe: observe,
		}, nil
	}
	return nil, fmt.Errorf("unknown kind %q", kind)
}

// read makes a state of the file, with the pool of the old one if the server is the same.
func (a *authd) read(ctx context.Context, old *state) (s *state, err error) {
	s = &state{scheme: a.passScheme}
	if err := a.open(s, old); err != nil {
		return nil, daemon.ConfigError(err)
	}
	if err := a.prepare(ctx, s.db); err != nil {
		if old == nil || s.pool != old.pool {
			s.pool.Close()
		}
		return nil, err
	}
	if old == nil || s.pool != old.pool {
		a.env.Metrics.Pool(s.pool.Config().String(), s.pool.Stats)
	}
	return s, nil
}

// open fills in the pool and the database of s.
func (a *authd) open(s, old *state) (err error) {
	if a.sql != "" {
		f, err := sqldb.ReadFile(a.sql)
		if err != nil {
			return err
		}
		s.scheme = f.DefaultPassScheme
		s.pool = a.pool(f.Config(), old)
		s.db, err = sqldb.Open(f, s.pool)
		return err
	}
	f, err := mysql.ReadFile(a.mysql)
	if err != nil {
		return err
	}
	for _, w := range f.Warnings {
		a.env.Log.Warn("file", "warning", w)
	}
	s.pool = a.pool(f.Config(), old)
	s.db, err = sqldb.Seed(s.pool, sqldb.SeedOptions{Home: a.mailHome, Mail: a.mailLocation, UID: a.mailUID, GID: a.mailGID, Scheme: s.scheme})
	return err
}

func (a *authd) pool(c mysql.Config, old *state) *mysql.Pool {
	if old != nil && old.pool.Config() == c {
		return old.pool
	}
	p := mysql.OpenPool(c, a.mysqlConns)
	p.SetLog(a.env.Log)
	return p
}

// prepare has the server look at the statements. A server that cannot be asked is
// no obstacle, except for --check: it will be there later. One that refuses is.
func (a *authd) prepare(ctx context.Context, db *sqldb.DB) error {
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	switch err := db.Prepare(ctx); {
	case err == nil:
	case !mysql.Unreachable(err):
		return daemon.ConfigError(err)
	case a.env.Check:
		return err
	default:
		a.env.Log.Warn("the database does not answer yet", "err", err)
	}
	return nil
}

// reload reads the file again. The old pool is closed when the last lookup that
// may use it is over.
func (a *authd) reload(ctx context.Context) error {
	old := a.state.Load()
	s, err := a.read(ctx, old)
	if err != nil {
		return err
	}
	a.state.Store(s)
	if s.pool != old.pool {
		time.AfterFunc(2*a.lookupTimeout, func() { old.pool.Close() })
	}
	return nil
}

func (a *authd) close() error { return a.state.Load().pool.Close() }

// LookupPass, LookupUser and Users ask the database of the present state.

func (a *authd) LookupPass(ctx context.Context, r *auth.Request) (*auth.Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, a.lookupTimeout)
	defer cancel()
	return a.state.Load().db.LookupPass(ctx, r)
}

func (a *authd) LookupUser(ctx context.Context, r *auth.Request) (*auth.User, error) {
	ctx, cancel := context.WithTimeout(ctx, a.lookupTimeout)
	defer cancel()
	return a.state.Load().db.LookupUser(ctx, r)
}

func (a *authd) Users(ctx context.Context, mask string) iter.Seq2[string, error] {
	return a.state.Load().db.Users(ctx, mask)
}
