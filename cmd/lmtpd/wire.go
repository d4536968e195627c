package main

import (
	"cmp"
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"dovepost/auth"
	"dovepost/auth/guard"
	"dovepost/auth/sqldb"
	"dovepost/cmd/internal/daemon"
	"dovepost/cmd/internal/serve"
	"dovepost/lmtp/session"
	"dovepost/lookup"
	"dovepost/lookup/cache"
	"dovepost/lookup/mysql"
)

// prepareTimeout bounds how long the server may take, at start, to say whether it
// takes the statement.
const prepareTimeout = 5 * time.Second

// lmtpd is the program.
type lmtpd struct {
	settings
	env     *daemon.Env
	names   *guard.Names
	homes   *homes // nil without mail_home
	cache   *cache.Cache
	users   *users
	session *session.Handler
	pool    atomic.Pointer[mysql.Pool] // nil without a database
	reads   int                        // of the files; start and reload take turns
}

func (l *lmtpd) start(ctx context.Context, env *daemon.Env) (*daemon.Service, error) {
	l.env = env
	var err error
	if l.session, err = l.handler(); err != nil {
		return nil, daemon.ConfigError(err)
	}
	deliverer, err := l.deliverer(env.Log)
	if err != nil {
		return nil, daemon.ConfigError(err)
	}
	if l.names, err = l.settings.names(); err != nil {
		return nil, daemon.ConfigError(err)
	}
	if l.mailHome != "" {
		if l.homes, err = newHomes(l.mailHome); err != nil {
			return nil, daemon.ConfigError(err)
		}
	}
	l.cache = cache.New(l.cacheFresh, l.cacheSize)
	l.users = &users{delimiter: l.delimiter, timeout: l.lookupTimeout}
	if err := l.read(ctx); err != nil {
		return nil, err
	}
	l.session.Resolver, l.session.Deliverer = l.users, deliverer
	l.session.Log, l.session.Observe = env.Log, env.Metrics.Observe("lmtp")
	env.Metrics.Cache("users", l.cache.Stats)
	return &daemon.Service{Handler: l.serve, Reload: l.read, Close: l.close}, nil
}

// serve returns what answers on a listener; all listeners share one Handler, and so
// its limits.
func (l *lmtpd) serve(string) (serve.Handler, error) { return l.session, nil }

func (l *lmtpd) close() error {
	if pool := l.pool.Load(); pool != nil {
		return pool.Close()
	}
	return nil
}

// read reads the files and puts what they say into use. On an error all stays as it was.
func (l *lmtpd) read(ctx context.Context) error {
	old := l.pool.Load()
	source, pool, err := l.source(ctx, old)
	if err != nil {
		if pool != nil && pool != old {
			pool.Close()
		}
		return err
	}
	l.reads++
	rows := lookup.Map(l.cache.Map(fmt.Sprintf("users %d", l.reads), userdb{source, l.homes, l.mailUID, l.mailGID}))
	l.users.rows.Store(&rows)
	l.pool.Store(pool)
	if old != nil && old != pool {
		time.AfterFunc(2*l.lookupTimeout, func() { old.Close() })
	}
	return nil
}

// source opens where the users come from. The pool is nil if that is no database.
func (l *lmtpd) source(ctx context.Context, old *mysql.Pool) (auth.Userdb, *mysql.Pool, error) {
	if l.userdb != "" {
		client, err := l.remote()
		if err != nil {
			return nil, nil, daemon.ConfigError(err)
		}
		// The rules for names are the auth server's own.
		return client, nil, nil
	}
	db, pool, err := l.database(old)
	if err != nil {
		return nil, pool, daemon.ConfigError(err)
	}
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	switch err := db.PrepareUserdb(ctx); {
	case err == nil:
	case !mysql.Unreachable(err):
		return nil, pool, daemon.ConfigError(err)
	case l.env.Check:
		return nil, pool, err
	default:
		l.env.Log.Warn("the database does not answer yet", "err", err)
	}
	l.env.Metrics.Pool(pool.Config().String(), pool.Stats)
	return guard.Lookup{Names: l.names, Userdb: db}, pool, nil
}

// database opens the tables of --sql, or else of --mysql, over the old pool if the
// server is the same.
func (l *lmtpd) database(old *mysql.Pool) (*sqldb.DB, *mysql.Pool, error) {
	open := func(c mysql.Config) *mysql.Pool {
		if old != nil && old.Config() == c {
			return old
		}
		p := mysql.OpenPool(c, l.mysqlConns)
		p.SetLog(l.env.Log)
		return p
	}
	if l.sql != "" {
		file, err := sqldb.ReadFile(l.sql)
		if err != nil {
			return nil, nil, err
		}
		pool := open(file.Config())
		db, err := sqldb.Open(file, pool)
		return db, pool, err
	}
	file, err := mysql.ReadFile(l.mysql)
	if err != nil {
		return nil, nil, err
	}
	pool := open(file.Config())
	// What authd tells Dovecot of these users, with the same settings.
	db, err := sqldb.Seed(pool, sqldb.SeedOptions{
		Home: l.mailHome, UID: cmp.Or(l.mailUID, "5000"), GID: cmp.Or(l.mailGID, "5000"),
	})
	return db, pool, err
}
