package main

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"dovepost/auth"
	"dovepost/auth/dovecot"
	"dovepost/auth/guard"
	"dovepost/auth/oauth2"
	"dovepost/auth/sqldb"
	"dovepost/cmd/internal/daemon"
	"dovepost/cmd/internal/database"
	"dovepost/cmd/internal/serve"
	"dovepost/lookup/cache"
)

// authd is the program: settings, what never changes, and the state that SIGHUP replaces.
type authd struct {
	settings
	rules
	env      *daemon.Env
	instance *dovecot.Instance
	verifier *guard.Verifier
	everyone auth.Verifier // the verifier, and master users
	lookup   guard.Lookup
	gate     *guard.Gate
	tokens   *dovecot.Tokens
	cache    *cache.Cache
	verified *guard.Verified
	noted    *lastLogins // nil: not wanted
	rehasher *rehasher   // the same
	state    atomic.Pointer[state]
	stop     chan struct{} // closed at the end
	cacheStatus
}

// state is what the file says. It never changes once it is in use.
type state struct {
	database.Users
	all     []*sqldb.DB // those of all files, Users.DB the first
	pools   *database.Pools
	masters auth.Passdb       // of master users
	tokens  *oauth2.Validator // nil: without --oauth2
	extras
}

func (a *authd) start(ctx context.Context, env *daemon.Env) (*daemon.Service, error) {
	a.env = env
	var err error
	if a.rules, err = a.check(); err != nil {
		return nil, daemon.ConfigError(err)
	}
	if a.tokens, err = a.tokenSettings.tokens(!env.Check); err != nil {
		return nil, daemon.ConfigError(err)
	}
	a.newCaches()
	s, err := a.read(ctx, nil)
	if err != nil {
		return nil, err
	}
	a.use(s)
	a.noted, a.rehasher = a.newLastLogins(), a.newRehasher()
	a.instance = dovecot.NewInstance()
	a.gate = a.newGate()
	workers := guard.NewWorkers(a.workerCount, a.hashMemory(), a.gate.Known)
	a.saslOptions.Work = func(ctx context.Context, r *auth.Request, f func()) error { return workers.Do(ctx, r, 0, f) }
	a.verifier = &guard.Verifier{Passdb: numbered{a, 0}, Names: a.names, DefaultScheme: s.Scheme,
		Workers: workers, Verbose: a.verbose, Log: env.Log, Verified: a.verified}
	if a.appPasswordQuery != "" {
		a.verifier.AppPasswords = a.findAppPasswords
	}
	a.everyone = a.logins(a.verifier)
	a.ignoredSettings.warn(env.Log)
	a.stop = make(chan struct{})
	go daemon.CollectGarbage(a.stop)
	a.lookup = guard.Lookup{Names: a.names, Passdb: a, Userdb: a}
	return &daemon.Service{Handler: a.handler, Reload: a.reload, Usr1: a.usr1, Close: a.close,
		// A login that has just succeeded is handed over on a new connection to master.
		Last: []string{"master"}}, nil
}

// handler returns what answers on the listeners of a kind.
func (a *authd) handler(kind string) (serve.Handler, error) {
	kind, list, has := strings.Cut(kind, "=")
	if has && (list == "" || kind != "login" && kind != "client") {
		return nil, fmt.Errorf("kind %q takes no mechanisms", kind)
	}
	observe := a.env.Metrics.Observe(kind)
	switch kind {
	case "login", "client", "token-login":
		own, err := a.mechanismsOf(list)
		if err != nil {
			return nil, err
		}
		mechanisms := a.noted.mechanisms(a.gate.Mechanisms(own))
		if kind == "token-login" {
			mechanisms = []auth.Mechanism{a.tokens.Mechanism()}
		}
		return &dovecot.ClientHandler{
			Instance: a.instance, Login: kind != "client", Mechanisms: mechanisms,
			Verifier: a.everyone, Ahead: a.ahead(), Log: a.env.Log, Observe: observe,
		}, nil
	case "master", "userdb":
		return &dovecot.MasterHandler{
			Instance: a.instance, UserdbOnly: kind == "userdb",
			Passdb: mastersPassdb{guard.Allowed{Passdb: a.lookup}, a}, Userdb: a.lookup, Tokens: a.tokens, Flush: a.flush, Status: a.status, Log: a.env.Log, Observe: observe,
		}, nil
	}
	return nil, fmt.Errorf("unknown kind %q", kind)
}

// read makes a state of the file, with the pool of the old one if the server is the same.
func (a *authd) read(ctx context.Context, old *state) (s *state, err error) {
	s = &state{}
	var before *database.Pools
	if old != nil {
		before = old.pools
	}
	s.pools = database.NewPools(a.env, a.mysqlConns, before)
	if err = a.open(ctx, s); err != nil {
		s.pools.Discard()
		return nil, err
	}
	s.pools.Use(2 * a.lookupTimeout)
	return s, nil
}

// open fills in what the files say, and has the server look at the statements.
func (a *authd) open(ctx context.Context, s *state) (err error) {
	s.Users, err = s.pools.Users(database.Files{SQL: a.firstSQL(), MySQL: a.mysql, ClearPassword: a.clearPassword}, sqldb.SeedOptions{
		Home: a.mailHome, Mail: a.mailLocation, UID: a.mailUID, GID: a.mailGID, Scheme: a.passScheme,
	})
	if err != nil {
		return daemon.ConfigError(err)
	}
	if err = checkScheme(s.Scheme); err != nil {
		if a.env.Check {
			return daemon.ConfigError(err)
		}
		a.env.Log.Error("passwords without {SCHEME} let nobody in", "err", err)
	}
	var statements []database.Statement
	if s.masters, statements, err = a.openMasters(s.pools, s.Scheme); err != nil {
		return daemon.ConfigError(err)
	}
	if s.tokens, err = a.readOAuth2(); err != nil {
		return daemon.ConfigError(err)
	}
	extra, err := a.openExtras(s)
	if err != nil {
		return daemon.ConfigError(err)
	}
	more, err := a.moreUsers(s)
	if err != nil {
		return daemon.ConfigError(err)
	}
	a.recall(s)
	statements = append(append(statements, extra...), more...)
	return s.pools.Prepare(ctx, append(statements, s.Statements()...)...)
}

// reload reads the files again.
func (a *authd) reload(ctx context.Context) error {
	s, err := a.read(ctx, a.state.Load())
	if err == nil {
		a.use(s)
	}
	return err
}

// use makes s the present state.
func (a *authd) use(s *state) {
	a.state.Store(s)
	if a.bearers != nil {
		a.bearers.validator.Store(s.tokens)
	}
}

func (a *authd) close() error {
	close(a.stop)
	a.noted.close()
	a.rehasher.close()
	a.cache.Close()
	return a.state.Load().pools.Close()
}
