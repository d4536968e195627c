package main

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dovepost/auth"
	"dovepost/lookup/mysql"
)

const (
	maxNotes    = 10_000           // logins that wait to be noted; more are dropped
	noteTimeout = 5 * time.Second  // for one statement
	lastNotes   = 10 * time.Second // for all that are left when the daemon ends
)

// lastLogins notes logins in the database, behind the back of those who log in. Of one
// user and service the latest login of an interval is noted. What the database does
// not take is dropped, and counted.
type lastLogins struct {
	authd    *authd
	services []string // lower case; empty: all
	dropped  atomic.Uint64

	mu    sync.Mutex // guards notes
	notes map[noteKey]note

	stop chan struct{}
	done chan struct{}
}

type noteKey struct{ user, service string }

type note struct {
	request auth.Request
	app     string
	at      time.Time
}

// newLastLogins starts the noting; nil if the settings do not want it.
func (a *authd) newLastLogins() *lastLogins {
	if a.lastLoginQuery == "" {
		return nil
	}
	l := &lastLogins{authd: a, notes: map[noteKey]note{}, stop: make(chan struct{}), done: make(chan struct{}),
		services: strings.FieldsFunc(strings.ToLower(a.lastLoginServices), func(r rune) bool { return r == ' ' || r == ',' })}
	go l.run()
	return l
}

// add notes the login r. It never waits for the database. Logins that go on to nologin
// or to another server are none.
func (l *lastLogins) add(r *auth.Request, row *auth.Credentials) {
	for _, field := range []string{"nologin", "proxy"} {
		if _, ok := row.Fields.Get(field); ok {
			return
		}
	}
	service := strings.ToLower(r.Service)
	wanted := len(l.services) == 0
	for _, s := range l.services {
		wanted = wanted || s == service
	}
	if !wanted {
		return
	}
	n := note{request: *r, app: row.AppPassword, at: time.Now()}
	n.request.User, n.request.Password, n.request.Token, n.request.Row = row.User, "", "", nil
	l.mu.Lock()
	defer l.mu.Unlock()
	key := noteKey{row.User, service}
	if _, there := l.notes[key]; !there && len(l.notes) >= maxNotes {
		l.dropped.Add(1)
		return
	}
	l.notes[key] = n
}

func (l *lastLogins) run() {
	defer close(l.done)
	tick := time.NewTicker(l.authd.lastLoginInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.write(context.Background())
		case <-l.stop:
			ctx, cancel := context.WithTimeout(context.Background(), lastNotes)
			defer cancel()
			l.write(ctx)
			return
		}
	}
}

// write notes what there is. When the database cannot be asked the rest is dropped.
func (l *lastLogins) write(ctx context.Context) {
	l.mu.Lock()
	notes := l.notes
	l.notes = map[noteKey]note{}
	l.mu.Unlock()
	left := len(notes)
	var failed error
	for _, n := range notes {
		err := l.exec(ctx, &n)
		if err == nil {
			left--
			continue
		}
		failed = err
		if mysql.Unreachable(err) || ctx.Err() != nil {
			break
		}
	}
	if left > 0 {
		l.dropped.Add(uint64(left))
		l.authd.env.Log.Warn("last logins are not noted", "dropped", left, "all", l.dropped.Load(), "err", failed)
	}
}

func (l *lastLogins) exec(ctx context.Context, n *note) error {
	ctx, cancel := context.WithTimeout(ctx, noteTimeout)
	defer cancel()
	_, err := l.authd.state.Load().lastLogin.Exec(ctx, &n.request,
		map[string]string{"time": strconv.FormatInt(n.at.Unix(), 10), "app_password": n.app})
	return err
}

// close notes what is left. A nil lastLogins has nothing.
func (l *lastLogins) close() {
	if l == nil {
		return
	}
	close(l.stop)
	<-l.done
}

// mechanisms returns list with l told of every login. A nil lastLogins is not told.
func (l *lastLogins) mechanisms(list []auth.Mechanism) []auth.Mechanism {
	if l == nil {
		return list
	}
	told := make([]auth.Mechanism, len(list))
	for i, m := range list {
		told[i] = toldMechanism{m, l}
	}
	return told
}

type toldMechanism struct {
	auth.Mechanism
	to *lastLogins
}

func (m toldMechanism) Start(r *auth.Request, v auth.Verifier) auth.Exchange {
	return toldExchange{m.Mechanism.Start(r, v), m.to, r}
}

type toldExchange struct {
	auth.Exchange
	to *lastLogins
	r  *auth.Request
}

func (x toldExchange) Next(ctx context.Context, response []byte) ([]byte, *auth.Credentials, error) {
	challenge, row, err := x.Exchange.Next(ctx, response)
	if err == nil && row != nil {
		x.to.add(x.r, row)
	}
	return challenge, row, err
}
