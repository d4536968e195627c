package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/pflag"

	"dovepost/cmd/internal/daemon"
	"dovepost/lookup"
	"dovepost/lookup/mysql"
	"dovepost/policy"
	"dovepost/policy/breaker"
	"dovepost/policy/rules"
	"dovepost/policy/sqldb"
)

// accessRule is the rule access: the allow and deny lists.
type accessRule struct {
	file     string
	table    bool
	interval time.Duration

	client, sender, recipient, login string // table files
}

func (*accessRule) name() string { return "access" }

func (a *accessRule) flags(fs *pflag.FlagSet) {
	fs.StringVar(&a.file, "access", "", "ask the allow and deny list in `FILE`")
	daemon.BoolVar(fs, &a.table, "access_table", false, "ask the table access_list on the server of mysql")
	daemon.DurationVar(fs, &a.interval, "access_table_interval", 10*time.Second, "how often it is read")
	const usage = "ask the tables of `FILES`, each like mysql_table(5), for the "
	fs.StringVar(&a.client, "access_client_maps", "", usage+"client's address and networks")
	fs.StringVar(&a.sender, "access_sender_maps", "", usage+"forms of the sender")
	fs.StringVar(&a.recipient, "access_recipient_maps", "", usage+"forms of the recipient")
	fs.StringVar(&a.login, "access_login_maps", "", usage+"login")
}

// wanted reports whether there is anything to ask.
func (a *accessRule) wanted() bool { return a.file != "" || a.table || a.maps() }

func (a *accessRule) maps() bool { return a.client+a.sender+a.recipient+a.login != "" }

// build makes the lists: the file is asked first, then the table, then the maps.
func (a *accessRule) build(_ context.Context, b *builder) (policy.Decider, error) {
	if !a.wanted() {
		return nil, errors.New("access: there is no list")
	}
	var all accessLists
	if a.file != "" {
		list, err := a.readFile(b)
		if err != nil {
			return nil, err
		}
		all.AccessLists = append(all.AccessLists, list)
	}
	if a.table {
		if a.interval < time.Second {
			return nil, fmt.Errorf("access_table_interval: %v is less than a second", a.interval)
		}
		db, err := b.database(sqldb.AccessStatement)
		if err != nil {
			return nil, err
		}
		all.table = &rules.AccessTable{
			Rows:      func(ctx context.Context) ([]rules.AccessRow, error) { return sqldb.AccessRows(ctx, db) },
			Delimiter: b.delimiter, Interval: a.interval, Timeout: b.lookupTimeout, Log: b.Log,
		}
		all.AccessLists = append(all.AccessLists, all.table)
	}
	if a.maps() {
		maps, err := a.openMaps(b)
		if err != nil {
			return nil, err
		}
		all.AccessLists = append(all.AccessLists, maps)
	}
	return &all, nil
}

func (a *accessRule) readFile(b *builder) (*rules.Access, error) {
	list, err := readFile(a.file, func(r io.Reader) (*rules.Access, error) { return rules.ReadAccess(r, b.delimiter) })
	if err != nil {
		return nil, err
	}
	b.Log.Info("access list read", "file", a.file, "rules", list.Len())
	return list, nil
}

// openMaps opens the table files.
func (a *accessRule) openMaps(b *builder) (*rules.AccessMaps, error) {
	m := &rules.AccessMaps{Delimiter: b.delimiter}
	for _, field := range []struct {
		name, files string
		to          *rules.AccessMap
	}{
		{"access_client_maps", a.client, &m.Client}, {"access_sender_maps", a.sender, &m.Sender},
		{"access_recipient_maps", a.recipient, &m.Recipient}, {"access_login_maps", a.login, &m.Login},
	} {
		tables, err := b.openAll(field.files)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field.name, err)
		}
		var maps accessMaps
		for _, t := range tables {
			maps = append(maps, accessMap{t.breaker, mysql.Set{t.table}})
		}
		if len(maps) > 0 {
			*field.to = maps
		}
	}
	return m, nil
}

// accessMaps are the tables of one field. All forms of a key are looked for in the
// first, then in the second, and so on.
type accessMaps []accessMap

// First implements rules.AccessMap.
func (m accessMaps) First(ctx context.Context, keys []string) (string, error) {
	for _, table := range m {
		if action, err := table.first(ctx, keys); action != "" || err != nil {
			return action, err
		}
	}
	return "", nil
}

// accessMap is a table, and what stands before its server.
type accessMap struct {
	guard *breaker.Breaker
	set   mysql.Set
}

func (m accessMap) first(ctx context.Context, keys []string) (action string, err error) {
	err = m.guard.Do(ctx, func(ctx context.Context) error {
		_, values, err := m.set.First(ctx, keys)
		switch {
		case errors.Is(err, lookup.ErrNotFound):
			return nil
		case err != nil:
			return err
		}
		action = values[0]
		return nil
	})
	return action, err
}

// accessLists is the rule in use.
type accessLists struct {
	rules.AccessLists
	table *rules.AccessTable // may be nil
}

// Start implements starter.
func (l *accessLists) Start() {
	if l.table != nil {
		l.table.Start()
	}
}

// Close implements closer.
func (l *accessLists) Close() error {
	if l.table == nil {
		return nil
	}
	return l.table.Close()
}
