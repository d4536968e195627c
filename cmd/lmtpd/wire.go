package main

import (
	"context"
	"errors"

	"dovepost/auth"
	"dovepost/auth/guard"
	"dovepost/auth/sqldb"
	"dovepost/cmd/internal/daemon"
	"dovepost/cmd/internal/database"
	"dovepost/cmd/internal/mailbox"
	"dovepost/cmd/internal/serve"
	"dovepost/lmtp/journal"
	"dovepost/lmtp/maildir"
	"dovepost/lmtp/session"
	"dovepost/lookup/cache"
)

// lmtpd is the program.
type lmtpd struct {
	settings
	env        *daemon.Env
	names      *guard.Names
	homes      *mailbox.Homes // nil without mail_home
	cache      *cache.Cache
	users      *mailbox.Users
	session    *session.Handler
	deliveries *journal.Journal
	warner     *warner         // nil: nobody is warned
	pools      *database.Pools // nil without a database; start and reload take turns
	stop       chan struct{}   // closed by close
}

func (l *lmtpd) start(ctx context.Context, env *daemon.Env) (*daemon.Service, error) {
	l.env = env
	l.stop = make(chan struct{})
	var err error
	if l.session, err = l.handler(); err != nil {
		return nil, daemon.ConfigError(err)
	}
	deliverer, err := l.deliverer(env.Log)
	if err != nil {
		return nil, daemon.ConfigError(err)
	}
	if err := l.limit(deliverer); err != nil {
		return nil, daemon.ConfigError(err)
	}
	if l.names, err = l.mail.Names(); err != nil {
		return nil, daemon.ConfigError(err)
	}
	if l.homes, err = l.mail.Homes(); err != nil {
		return nil, daemon.ConfigError(err)
	}
	l.cache = l.rows.New(l.lookupTimeout, env.Log)
	l.users = &mailbox.Users{Delimiter: l.delimiter, Timeout: l.lookupTimeout}
	if err := l.read(ctx); err != nil {
		return nil, err
	}
	l.deliveries = l.openJournal(env)
	deliverer.Journal = l.deliveries
	l.session.Resolver, l.session.Deliverer = l.users, deliverer
	l.session.Log, l.session.Observe = env.Log, env.Metrics.Observe("lmtp")
	env.Metrics.Cache("users", l.cache.Stats)
	l.warnRights()
	tune(l.stop)
	return &daemon.Service{Handler: l.serve, Reload: l.read, Close: l.close}, nil
}

// serve returns what answers on a listener; all listeners share one Handler, and so
// its limits.
func (l *lmtpd) serve(string) (serve.Handler, error) { return l.session, nil }

func (l *lmtpd) close() error {
	close(l.stop)
	return errors.Join(l.warner.close(), l.pools.Close(), l.deliveries.Close())
}

// limit gives the deliverer its quota and its filters.
func (l *lmtpd) limit(d *maildir.Deliverer) error {
	root, warner, err := l.quotaRoot(d, l.env.Log)
	if err != nil {
		return err
	}
	l.warner = warner
	if root != nil {
		d.Quota = root
		if l.settings.quota.rcptCheck {
			l.session.Room = d
		}
	}
	if d.Filter, err = l.filters.filter(); err != nil {
		return err
	}
	d.Sender, err = l.filters.sender(l.session.Hostname)
	return err
}

// read reads the files and puts what they say into use. On an error all stays as it was.
func (l *lmtpd) read(ctx context.Context) error {
	certificate, err := l.peers.readCertificate()
	if err != nil {
		return daemon.ConfigError(err)
	}
	source, name, err := l.source(ctx)
	if err != nil {
		return err
	}
	l.peers.certificate.Store(certificate)
	// A user whom nobody knew is not unknown while nobody can be asked.
	rows := mailbox.Userdb{Userdb: source, Homes: l.homes, UID: l.mail.UID, GID: l.mail.GID, Rules: l.mail.Quota.Rules}
	l.users.Use(l.cache.Map("users "+name, rows).Positive())
	return nil
}

// source opens where the users come from. Name tells it from any other source.
func (l *lmtpd) source(ctx context.Context) (source auth.Userdb, name string, err error) {
	if l.mail.Userdb != "" {
		client, err := l.mail.Remote(l.lookupTimeout)
		// The rules for names are the auth server's own.
		return client, l.mail.Userdb, daemon.ConfigError(err)
	}
	pools := database.NewPools(l.env, l.mysqlConns, l.pools)
	db, err := l.open(ctx, pools)
	if err != nil {
		pools.Discard()
		return nil, "", err
	}
	pools.Use(2 * l.lookupTimeout)
	l.pools = pools
	return guard.Lookup{Names: l.names, Userdb: db}, db.UserStatement(), nil
}

// open opens the tables of --sql, or else of --mysql, and has the server look at the
// statements.
func (l *lmtpd) open(ctx context.Context, pools *database.Pools) (*sqldb.DB, error) {
	users, err := pools.Users(database.Files{SQL: l.mail.SQL, MySQL: l.mysql}, l.mail.Seed())
	if err != nil {
		return nil, daemon.ConfigError(err)
	}
	return users.DB, pools.Prepare(ctx, database.Statement{Pool: users.Pool, Prepare: users.DB.PrepareUserdb})
}
