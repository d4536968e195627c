package database

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"dovepost/cmd/internal/daemon"
	"dovepost/lookup/mysql"
)

func env(check bool) *daemon.Env {
	return &daemon.Env{Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Check: check}
}

func TestAReloadKeepsThePoolsOfServersThatStay(t *testing.T) {
	a, b, c := mysql.Config{Hosts: "inet:a"}, mysql.Config{Hosts: "inet:b"}, mysql.Config{Hosts: "inet:c"}
	first := NewPools(env(false), 1, nil)
	stays, goes := first.Open(a), first.Open(b)
	if first.Open(a) != stays {
		t.Error("a server has two pools in one state")
	}
	second := NewPools(env(false), 1, first)
	if second.Open(a) != stays {
		t.Error("the pool of a server that stays is not taken over")
	}
	if second.Open(c) == goes {
		t.Error("another server has got an old pool")
	}
	if gone := without(second.old, second.pools); len(gone) != 1 || gone[0] != goes {
		t.Errorf("to be closed after the reload: %v, want the pool of b alone", gone)
	}
	if given := without(second.pools, second.old); len(given) != 1 || given[0] == stays {
		t.Errorf("to be closed when the reload fails: %v, want the pool of c alone", given)
	}
	var none *Pools
	if err := none.Close(); err != nil {
		t.Error(err)
	}
}

func TestPrepare(t *testing.T) {
	pool := mysql.OpenPool(mysql.Config{Hosts: "unix:/nonexistent"}, 1)
	other := mysql.OpenPool(mysql.Config{Hosts: "unix:/nonexistent/other"}, 1)
	refused := mysql.ErrNoResultSet
	away := context.DeadlineExceeded
	say := func(p *mysql.Pool, err error) Statement {
		return Statement{p, func(context.Context) error { return err }}
	}
	for name, tt := range map[string]struct {
		statements []Statement
		check      bool
		reload     bool
		want       error
	}{
		"takes what is good":                             {[]Statement{say(pool, nil)}, false, false, nil},
		"starts while a server is away":                  {[]Statement{say(pool, away), say(pool, refused)}, false, false, nil},
		"starts when one of two servers refuses":         {[]Statement{say(pool, away), say(other, refused)}, false, false, nil},
		"starts when one of two statements is refused":   {[]Statement{say(pool, refused), say(pool, nil)}, false, false, nil},
		"ends when all are refused":                      {[]Statement{say(pool, refused), say(other, refused)}, false, false, refused},
		"does not take over what is refused":             {[]Statement{say(pool, nil), say(pool, refused)}, false, true, refused},
		"takes over what a server that is away may take": {[]Statement{say(pool, away)}, false, true, nil},
		"fails under --check when one is refused":        {[]Statement{say(pool, nil), say(pool, refused)}, true, false, refused},
		"fails under --check while a server is away":     {[]Statement{say(pool, away)}, true, false, away},
	} {
		pools := NewPools(env(tt.check), 1, nil)
		if tt.reload {
			pools = NewPools(env(tt.check), 1, pools)
		}
		if err := pools.Prepare(t.Context(), tt.statements...); !errors.Is(err, tt.want) {
			t.Errorf("it %s: %v, want %v", name, err, tt.want)
		}
	}
	start := time.Now()
	slow := Statement{pool, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := NewPools(env(false), 1, nil).Prepare(ctx, slow); err != nil || time.Since(start) > prepareTimeout {
		t.Errorf("a server that hangs at start: %v after %v", err, time.Since(start))
	}
}
