package rules

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// RateRow is a row of the table of limits.
type RateRow struct {
	Name   string // a login, or "@" and a domain
	Limits string // of the login, or of each login of the domain; empty: none
	Total  string // of all logins of the domain together; empty: none
}

// RateRows is where the table is.
type RateRows interface {
	// Version returns a text that differs when the rows may.
	Version(ctx context.Context) (string, error)
	Rows(ctx context.Context) ([]RateRow, error)
}

// RateTable has the table of limits in memory, so that a message asks for nothing. It looks
// for changes once in Every; while that fails, what it has stays.
type RateTable struct {
	Source RateRows
	Every  time.Duration // 0 is 3 s
	Log    *slog.Logger  // nil: slog.Default()

	rows    atomic.Pointer[map[string]RateRow] // by name; nil: never read
	version string                             // of rows; the reader's own

	once  sync.Once
	first sync.Once
	read  chan struct{} // closed after the first try to read
	stop  context.CancelFunc
	done  chan struct{}
}

const defaultRateEvery = 3 * time.Second

// Start begins to read. Close ends it.
func (t *RateTable) Start() {
	t.init()
	var ctx context.Context
	ctx, t.stop = context.WithCancel(context.Background())
	t.done = make(chan struct{})
	go func() {
		defer close(t.done)
		every := t.Every
		if every <= 0 {
			every = defaultRateEvery
		}
		failing := false
		for {
			err := t.refresh(ctx)
			if err != nil && !failing && ctx.Err() == nil {
				t.log().Warn("limits cannot be read, those of before stay", "err", err)
			}
			failing = err != nil
			select {
			case <-ctx.Done():
				return
			case <-time.After(every):
			}
		}
	}()
}

// Close ends what Start began.
func (t *RateTable) Close() error {
	if t.stop != nil {
		t.stop()
		<-t.done
		t.stop = nil
	}
	return nil
}

func (t *RateTable) init() { t.once.Do(func() { t.read = make(chan struct{}) }) }

func (t *RateTable) log() *slog.Logger {
	if t.Log != nil {
		return t.Log
	}
	return slog.Default()
}

// refresh reads the table if it has changed.
func (t *RateTable) refresh(ctx context.Context) error {
	t.init()
	defer t.first.Do(func() { close(t.read) })
	version, err := t.Source.Version(ctx)
	if err != nil {
		return err
	}
	if t.rows.Load() != nil && version == t.version {
		return nil
	}
	list, err := t.Source.Rows(ctx)
	if err != nil {
		return err
	}
	rows := make(map[string]RateRow, len(list))
	for _, row := range list {
		row.Name = strings.ToLower(row.Name)
		rows[row.Name] = row
	}
	t.rows.Store(&rows)
	t.version = version
	return nil
}

var errRateRows = errors.New("the limits were not read yet")

// row returns the row of a name. It waits for the first try to read the table, and fails
// until there has been one that did not: nobody waits for a database that is away.
func (t *RateTable) row(ctx context.Context, name string) (RateRow, error) {
	rows := t.rows.Load()
	if rows == nil {
		t.init()
		select {
		case <-t.read:
			if rows = t.rows.Load(); rows == nil {
				return RateRow{}, errRateRows
			}
		case <-ctx.Done():
			return RateRow{}, ctx.Err()
		}
	}
	return (*rows)[name], nil
}

// Logins is a RateLookup.
func (t *RateTable) Logins(ctx context.Context, name string) (text string, found bool, err error) {
	row, err := t.row(ctx, name)
	return row.Limits, row.Limits != "", err
}

// Totals is a RateLookup.
func (t *RateTable) Totals(ctx context.Context, name string) (text string, found bool, err error) {
	row, err := t.row(ctx, name)
	return row.Total, row.Total != "", err
}
