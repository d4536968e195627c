package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"dovepost/cmd/internal/daemon"
	"dovepost/cmd/internal/database"
	"dovepost/cmd/internal/serve"
	"dovepost/lookup"
	"dovepost/lookup/cache"
	"dovepost/lookup/ladder"
	"dovepost/lookup/mysql"
	"dovepost/lookup/socketmap"
	"dovepost/lookup/tcptable"
)

// lookupd is the program: settings, and the state that SIGHUP replaces.
type lookupd struct {
	settings
	env    *daemon.Env
	cache  *cache.Cache
	keeper *keeper
	state  atomic.Pointer[state]
	stop   chan struct{} // closed at the end
}

// state is what the files say. It never changes once it is in use.
type state struct {
	maps  lookup.Maps
	pools *database.Pools
}

func (l *lookupd) start(ctx context.Context, env *daemon.Env) (*daemon.Service, error) {
	l.env = env
	if err := l.check(); err != nil {
		return nil, daemon.ConfigError(err)
	}
	l.cache = cache.New(l.cacheFresh, l.cacheSize)
	l.cache.Stale, l.cache.Timeout, l.cache.Log = l.cacheStale, l.lookupTimeout, env.Log
	l.cache.Alive = database.Alive
	s, err := l.read(ctx, nil)
	if err != nil {
		return nil, err
	}
	l.use(s)
	if !env.Check {
		l.keeper = keep(l.cache, l.file(), env.Log)
		l.stop = make(chan struct{})
		go daemon.CollectGarbage(l.stop)
	}
	env.Metrics.Cache("lookup", l.cache.Stats)
	return &daemon.Service{Handler: l.handler, Reload: l.reload, Usr1: l.usr1, Close: l.close}, nil
}

// handler returns what answers on the listeners of a kind.
func (l *lookupd) handler(kind string) (serve.Handler, error) {
	observe := l.env.Metrics.Observe(kind)
	if kind == "socketmap" {
		return &socketmap.Handler{
			Maps:    func() lookup.Maps { return l.state.Load().maps },
			Timeout: l.lookupTimeout, Log: l.env.Log, Observe: observe,
		}, nil
	}
	name := strings.TrimPrefix(kind, "tcp_table=")
	if name == kind {
		return nil, errors.New("want tcp_table=NAME")
	}
	if l.state.Load().maps[name] == nil {
		return nil, fmt.Errorf("there is no map %q", name)
	}
	return &tcptable.Handler{
		Map:     func() lookup.Map { return l.state.Load().maps[name] },
		Timeout: l.lookupTimeout, Log: l.env.Log.With("map", name), Observe: observe,
	}, nil
}

// reload reads the files again. Pools whose server has not changed go on.
func (l *lookupd) reload(ctx context.Context) error {
	s, err := l.read(ctx, l.state.Load())
	if err != nil {
		return err
	}
	l.use(s)
	return nil
}

// use makes s the present state.
func (l *lookupd) use(s *state) {
	l.state.Store(s)
	s.pools.Use(2 * l.lookupTimeout)
}

// usr1 tells the log how the cache fares.
func (l *lookupd) usr1() {
	hits, stale, misses, entries, bytes := l.cache.Stats()
	l.env.Log.Info("cache", "hits", hits, "stale", stale, "misses", misses, "entries", entries, "bytes", bytes, "limit", l.cacheSize)
}

func (l *lookupd) close() error {
	if l.stop != nil {
		close(l.stop)
	}
	l.cache.Close()
	l.keeper.close()
	return l.state.Load().pools.Close()
}

// read makes a state of the files, with the pools of the old one where it can.
func (l *lookupd) read(ctx context.Context, old *state) (*state, error) {
	if old == nil {
		old = &state{}
	}
	s := &state{maps: lookup.Maps{}, pools: database.NewPools(l.env, l.mysqlConns, old.pools)}
	b := &builder{lookupd: l, settings: l.settings, state: s}
	err := daemon.ConfigError(b.all())
	if err == nil {
		err = s.pools.Prepare(ctx, b.statements...)
	}
	if err != nil {
		s.pools.Discard()
		return nil, err
	}
	return s, nil
}

// builder builds a state.
type builder struct {
	*lookupd
	settings   // of lookupd, and of main.cf
	state      *state
	asked      map[string]string // maps that Postfix asks for, and where
	statements []database.Statement
}

// all adds every map that the settings ask for.
func (b *builder) all() error {
	site, err := b.parseMaps()
	if err != nil {
		return err
	}
	if b.postfix != "" {
		if err := b.postfixMaps(site); err != nil {
			return err
		}
	}
	if b.mysql != "" {
		if err := b.seed(site); err != nil {
			return err
		}
	}
	for _, m := range site {
		if err := b.files(m, m.name); err != nil {
			return fmt.Errorf("map %s: %w", m.name, err)
		}
	}
	if len(b.state.maps) == 0 {
		return errors.New("no map to serve: there is neither --postfix nor --map nor --mysql")
	}
	return b.unserved()
}

// seed adds the maps of the built-in schema, but for those that there are already.
func (b *builder) seed(site map[string]mapSetting) error {
	f, err := mysql.ReadFile(b.mysql)
	if err != nil {
		return err
	}
	files := mysql.Seed(f)
	for name, kind := range map[string]ladder.Kind{
		"virtual_mailbox_domains": ladder.Domain,
		"virtual_mailbox_maps":    ladder.Address,
		"virtual_alias_maps":      ladder.Alias,
		"smtpd_sender_login_maps": ladder.Address,
	} {
		if _, own := site[name]; own || b.state.maps[name] != nil {
			continue
		}
		list := []*mysql.File{files[name]}
		if kind == ladder.Alias {
			list = append(list, files["virtual_mailbox_maps"]) // a mailbox comes before a catch-all
		}
		if err := b.add(name, name, kind, list); err != nil {
			return err
		}
	}
	return nil
}

// files adds the map of files, which stands for a parameter.
func (b *builder) files(m mapSetting, parameter string) error {
	var list []*mysql.File
	for _, path := range m.files {
		f, err := mysql.ReadFile(path)
		if err != nil {
			return err
		}
		for _, w := range f.Warnings {
			b.env.Log.Warn("file", "map", m.name, "warning", w)
		}
		list = append(list, f)
	}
	return b.add(m.name, parameter, m.kind, list)
}

// add adds a map.
func (b *builder) add(name, parameter string, kind ladder.Kind, files []*mysql.File) error {
	var tables mysql.Set
	digest := ""
	for _, f := range files {
		pool := b.state.pools.Open(f.Config())
		t, err := mysql.NewTable(f, pool)
		if err != nil {
			return err
		}
		if t.Direct() {
			b.env.Log.Warn("the query has a variable where nothing can be bound, and is sent as text", "map", name, "file", f.Path)
		}
		digest += " " + f.Digest()
		tables = append(tables, t)
		b.statements = append(b.statements, database.Statement{Pool: pool, Prepare: t.Prepare})
	}
	o := b.options(parameter, kind)
	// All that an answer depends on: so it outlives a reload that changes nothing.
	id := fmt.Sprintf("%s %s %+v %s", name, kind, o, digest)
	m := b.cache.Map(id, ladder.New(kind, []lookup.Map{tables}, o))
	if strings.Contains(name+parameter, "_password_maps") {
		m.Private()
	}
	b.state.maps[name] = m
	return nil
}
