package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"dovepost/auth/sqldb"
	"dovepost/cmd/internal/daemon"
	"dovepost/lookup"
	"dovepost/lookup/cache"
	"dovepost/lookup/mysql"
)

// CacheSettings are the flags of a cache of users.
type CacheSettings struct {
	Fresh time.Duration
	Stale time.Duration
	Size  int64
}

// Flags adds cache_fresh, cache_stale and cache_size.
func (s *CacheSettings) Flags(fs *pflag.FlagSet) {
	daemon.DurationVar(fs, &s.Fresh, "cache_fresh", 2*time.Second, "how long a user's row is used again without asking")
	daemon.DurationVar(fs, &s.Stale, "cache_stale", 24*time.Hour, "how old a row may be that is used while the database does not answer; 0: none is")
	daemon.SizeVar(fs, &s.Size, "cache_size", 64<<20, "bound of the cache in `octets`")
}

// Check finds settings that cannot be right.
func (s *CacheSettings) Check() error {
	switch {
	case s.Fresh < 0:
		return fmt.Errorf("cache_fresh: %v is negative", s.Fresh)
	case s.Stale < 0:
		return fmt.Errorf("cache_stale: %v is negative", s.Stale)
	case s.Size < 0:
		return fmt.Errorf("cache_size: %d is negative", s.Size)
	}
	return nil
}

// New makes the cache. timeout is how long one question may take: a map that is
// silent for nearly as long counts as away.
func (s *CacheSettings) New(timeout time.Duration, log *slog.Logger) *cache.Cache {
	c := cache.New(s.Fresh, s.Size)
	c.Stale, c.Timeout, c.Log = s.Stale, timeout, log
	c.Patience = timeout * 4 / 5 // before the caller's own time is up
	c.Alive = Alive
	return c
}

// Alive is for a cache.Cache before databases.
func Alive(err error) bool { return !mysql.Unreachable(err) }

// Recall returns what answers the questions of an sqldb.DB from c. Name is of one
// word and tells the log what the rows are. Nothing of it is ever in a file.
func Recall(c *cache.Cache, name string) func(statement string) sqldb.Recall {
	return func(statement string) sqldb.Recall {
		m := c.Map(name+" "+statement, nil).Positive().Private()
		return func(ctx context.Context, q *sqldb.Question) (*sqldb.Answer, error) {
			m, key := m.With(asker(q.Ask)), recallKey(q.User)+q.Values
			var values []string
			var origin cache.Origin
			var err error
			if q.NoCache {
				values, err = m.Anew(ctx, key)
			} else {
				values, origin, err = m.Find(ctx, key)
			}
			if errors.Is(err, lookup.ErrNotFound) {
				return &sqldb.Answer{Rows: &mysql.Rows{}}, nil
			}
			if err != nil {
				return nil, err
			}
			rows, err := unpack(values)
			return &sqldb.Answer{Rows: rows, Cached: origin != cache.Asked, Stale: origin == cache.Old}, err
		}
	}
}

// recallKey begins the keys of a user's rows.
func recallKey(user string) string { return user + "\x00" }

// Flush forgets the rows of the users in c, or of all where none is named, and
// returns how many those were.
func Flush(c *cache.Cache, users []string) int {
	return c.Forget(func(key string) bool {
		for _, user := range users {
			if strings.HasPrefix(key, recallKey(user)) {
				return true
			}
		}
		return len(users) == 0
	})
}

// asker is a question as a table.
type asker func(context.Context) (*mysql.Rows, error)

func (ask asker) Lookup(ctx context.Context, _ string) ([]string, error) {
	rows, err := ask(ctx)
	switch {
	case err != nil:
		return nil, err
	case len(rows.Values) == 0:
		return nil, lookup.ErrNotFound
	}
	return pack(rows), nil
}

// pack writes rows as the values of a table: how many columns there are, their
// names, and the rows, NULL as an empty text and any other value with "=" before it.
func pack(rows *mysql.Rows) []string {
	n := len(rows.Columns)
	values := make([]string, 0, 1+n+n*len(rows.Values))
	values = append(values, strconv.Itoa(n))
	values = append(values, rows.Columns...)
	for _, row := range rows.Values {
		for _, value := range row {
			if value.Valid {
				values = append(values, "="+value.String)
			} else {
				values = append(values, "")
			}
		}
	}
	return values
}

var errPacked = errors.New("incomplete rows")

// unpack undoes pack. The texts stay the cache's.
func unpack(values []string) (*mysql.Rows, error) {
	if len(values) == 0 {
		return nil, errPacked
	}
	n, err := strconv.Atoi(values[0])
	rest := values[1:]
	if err != nil || n < 1 || len(rest) < n || len(rest)%n != 0 {
		return nil, errPacked
	}
	rows := &mysql.Rows{Columns: rest[:n:n]}
	fields := make([]sql.NullString, len(rest)-n)
	for i, value := range rest[n:] {
		fields[i].String, fields[i].Valid = strings.CutPrefix(value, "=")
	}
	for ; len(fields) > 0; fields = fields[n:] {
		rows.Values = append(rows.Values, fields[:n:n])
	}
	return rows, nil
}
