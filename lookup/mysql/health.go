package mysql

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	driver "github.com/go-sql-driver/mysql"
)

// calm is how long all must be well before trouble counts as over: a server at its
// limit refuses some and not all, and that is one episode.
const calm = 10 * time.Second

// health notices when a server begins to be in trouble and when that is over.
type health struct {
	log atomic.Pointer[slog.Logger] // nil: tell nobody

	troubled atomic.Bool // what is not nil

	mu    sync.Mutex // guards what follows
	what  error      // sentinel of the episode
	since time.Time
	last  time.Time // the last time that it was so
	count int
}

var (
	errAway    = errors.New("the database does not answer")
	errLimit   = errors.New("the database gives no more connections")
	errNotNow  = errors.New("the database cannot work now")
	errRefuses = errors.New("the database refuses")
)

// trouble is the kind of an error of a query, nil for those that are the query's own.
func trouble(err error) error {
	var said *driver.MySQLError
	switch isSaid := errors.As(err, &said); {
	case err == nil, errors.Is(err, context.Canceled):
		return nil
	case limited(err):
		return errLimit
	case isSaid && busy(err):
		return errNotNow
	case isSaid:
		var hosts *hostsError
		if errors.As(err, &hosts) {
			return errRefuses // such as a wrong password
		}
		return nil
	case Unreachable(err):
		return errAway
	}
	return nil
}

// note takes the outcome of a query.
func (h *health) note(c Config, err error) {
	log := h.log.Load()
	if log == nil || err == nil && !h.troubled.Load() {
		return
	}
	what := trouble(err)
	if err != nil && what == nil {
		return
	}
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case what != nil && what == h.what:
		h.last = now
		h.count++
	case what != nil:
		h.what, h.since, h.last, h.count = what, now, now, 1
		h.troubled.Store(true)
		log.Warn(what.Error(), "database", c.String(), "err", err)
	case now.Sub(h.last) >= calm:
		log.Info("the database works again", "database", c.String(), "after", h.last.Sub(h.since).Round(time.Second), "errors", h.count)
		h.what = nil
		h.troubled.Store(false)
	}
}
