package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"dovepost/policy/ledger"
)

// Counters is a ledger.Store in a table of policy.sql: name, step, start, node, three
// columns of counts, expires.
type Counters struct {
	db      *DB
	table   string
	columns [3]string
}

// RateCounters are those of the rule rate.
func (db *DB) RateCounters() *Counters {
	return &Counters{db, "rate_counts", [3]string{"messages", "recipients", "bytes"}}
}

// ShieldCounters are those of the rule shield.
func (db *DB) ShieldCounters() *Counters {
	return &Counters{db, "shield_counts", [3]string{"tried", "refused", "bounces"}}
}

const (
	maxWants = 16 // of one statement
	maxRows  = 64
	purged   = 1000 // rows of one statement
)

// readText asks for n keys, and for the time.
func (c *Counters) readText(n int) string {
	sums := make([]string, len(c.columns))
	for i, column := range c.columns {
		sums[i] = "SUM(" + column + ")"
	}
	return "SELECT NULL AS name, 0 AS step, 0 AS start, 0 AS own, " + nowMicros + ", 0, 0" +
		" UNION ALL SELECT name, step, start, node = ? AS own, " + strings.Join(sums, ", ") + " FROM " + c.table +
		" WHERE " + repeated("(name = ? AND step = ? AND start >= ?)", " OR ", n) + " GROUP BY name, step, start, own"
}

// nowMicros is the server's clock in microseconds since 1970, in UTC whatever the time
// zone of the session is.
const nowMicros = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(6))"

// writeText stores n totals. One that is stored already, or is less than what is, changes nothing.
func (c *Counters) writeText(n int) string {
	sets := make([]string, len(c.columns))
	for i, column := range c.columns {
		sets[i] = fmt.Sprintf("%[1]s = GREATEST(%[1]s, VALUES(%[1]s))", column)
	}
	return "INSERT INTO " + c.table + " (name, step, start, node, " + strings.Join(c.columns[:], ", ") + ", expires) VALUES " +
		repeated("(?, ?, ?, ?, ?, ?, ?, ?)", ", ", n) + " ON DUPLICATE KEY UPDATE " + strings.Join(sets, ", ")
}

func (c *Counters) purgeText() string {
	return "DELETE FROM " + c.table + " WHERE expires < UNIX_TIMESTAMP() LIMIT " + strconv.Itoa(purged)
}

// repeated joins text with itself.
func repeated(text, separator string, n int) string {
	return strings.TrimSuffix(strings.Repeat(text+separator, n), separator)
}

// Statements are those of the store, to be prepared at start.
func (c *Counters) Statements() []string {
	return []string{c.readText(1), c.writeText(1), c.purgeText()}
}

// sizeFor returns how many of left go into one statement, and how many places that has: few
// texts, so that a connection has all prepared.
func sizeFor(left, most int) (n, places int) {
	for places = 1; places < left && places < most; places *= 2 {
	}
	return min(left, places), places
}

// Read asks for what is stored. See ledger.Store.
func (c *Counters) Read(ctx context.Context, node int64, wants []ledger.Want) (rows []ledger.Row, now time.Time, err error) {
	for first := true; first || len(wants) > 0; first = false {
		if len(wants) == 0 {
			wants = []ledger.Want{{}}
		}
		n, places := sizeFor(len(wants), maxWants)
		args := []any{node}
		for i := range places {
			w := wants[min(i, n-1)]
			args = append(args, w.Name, w.Step, w.From)
		}
		found, err := c.db.Query(ctx, c.readText(places), args...)
		if err != nil {
			return nil, now, fmt.Errorf("%s: %w", c.table, err)
		}
		for _, values := range found.Values {
			if !values[0].Valid {
				now = time.UnixMicro(number(values[4]))
				continue
			}
			row := ledger.Row{Key: ledger.Key{Name: values[0].String, Step: number(values[1])}, Start: number(values[2]), Own: values[3].String == "1"}
			for i := range row.Counts {
				row.Counts[i] = max(0, number(values[4+i]))
			}
			rows = append(rows, row)
		}
		wants = wants[n:]
	}
	return rows, now, nil
}

// number reads an integer column; one beyond an int64 is the largest.
func number(s sql.NullString) int64 {
	n, _ := strconv.ParseInt(s.String, 10, 64)
	return n
}

// Write stores totals. See ledger.Store.
func (c *Counters) Write(ctx context.Context, node int64, rows []ledger.Row) error {
	for len(rows) > 0 {
		n, places := sizeFor(len(rows), maxRows)
		args := make([]any, 0, 8*places)
		for i := range places {
			r := rows[min(i, n-1)]
			args = append(args, r.Name, r.Step, r.Start, node, r.Counts[0], r.Counts[1], r.Counts[2], ledger.Expires(r.Step, r.Start))
		}
		if _, err := c.db.update(ctx, c.writeText(places), args...); err != nil {
			return fmt.Errorf("%s: %w", c.table, err)
		}
		rows = rows[n:]
	}
	return nil
}

// Purge deletes what counts no more, a bounded number of rows, and reports whether there may be
// more.
func (c *Counters) Purge(ctx context.Context) (more bool, err error) {
	n, err := c.db.update(ctx, c.purgeText())
	return n >= purged, err
}

// update is Exec for a statement that may meet another one on the same rows: when the
// server ends it for that it is executed again. Nobody waits for it.
func (db *DB) update(ctx context.Context, text string, args ...any) (changed int64, err error) {
	err = db.breaker.Try(ctx, func(ctx context.Context) error {
		for range 5 {
			if changed, err = db.pool.Exec(ctx, text, args...); !deadlocked(err) {
				break
			}
		}
		return err
	})
	return changed, err
}

// deadlocked reports whether the server gave a statement up for another one.
func deadlocked(err error) bool {
	var said *mysql.MySQLError
	return errors.As(err, &said) && (said.Number == 1213 || said.Number == 1205)
}
