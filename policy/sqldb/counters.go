package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"

	lookupmysql "dovepost/lookup/mysql"
	"dovepost/policy/ledger"
)

// Counters is a ledger.Store in a table of policy.sql: name, step, start, node, three
// columns of counts, expires.
//
// MariaDB, from 10.5 on, says in the answer to a write what is stored of others (RETURNING). Another server is
// asked with a second statement.
type Counters struct {
	db      *DB
	table   string
	columns [3]string
	plain   atomic.Bool // the server knows no RETURNING
}

// RateCounters are those of the rule rate.
func (db *DB) RateCounters() *Counters {
	return &Counters{db: db, table: "rate_counts", columns: [3]string{"messages", "recipients", "bytes"}}
}

// ShieldCounters are those of the rule shield.
func (db *DB) ShieldCounters() *Counters {
	return &Counters{db: db, table: "shield_counts", columns: [3]string{"tried", "refused", "bounces"}}
}

// WithoutReturning has c ask with two statements, as a server without RETURNING needs.
func (c *Counters) WithoutReturning() { c.plain.Store(true) }

const (
	maxWants = 16 // of one statement
	maxRows  = 16
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

// How long MariaDB lets a statement wait for rows that another one has locked, 50 s where nobody says. When we
// have given it up it would go on to wait, and keep its connection. For MySQL these are comments.
const (
	notAtAll = "/*M! SET STATEMENT innodb_lock_wait_timeout = 0 FOR */ "
	briefly  = "/*M! SET STATEMENT innodb_lock_wait_timeout = 1 FOR */ "
)

// returningText is writeText that returns, for each row, what others have in the buckets of its key: their number, and
// start and counts of each. Where group_concat_max_len cuts those short, they are fewer.
//
// It locks its own row and then those of the others, which do the same the other way round: two that waited for each
// other would wait for ever, in whatever order their rows are. So it does not wait.
func (c *Counters) returningText(n int) string {
	others := " FROM " + c.table + " AS others WHERE others.name = " + c.table + ".name AND others.step = " + c.table + ".step AND others.node <> " + c.table + ".node"
	return notAtAll + c.writeText(n) + " RETURNING name, step, " + nowMicros + ", (SELECT COUNT(*)" + others + "), (SELECT GROUP_CONCAT(start, ' ', " +
		strings.Join(c.columns[:], ", ' ', ") + ")" + others + ")"
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

// Prepare finds out whether the server knows RETURNING.
func (c *Counters) Prepare(ctx context.Context) error {
	err := c.db.Prepare(ctx, c.returningText(1))
	if notUnderstood(err) {
		c.plain.Store(true)
		return nil
	}
	return err
}

// notUnderstood reports whether the server has found a statement's syntax wrong.
func notUnderstood(err error) bool {
	var said *mysql.MySQLError
	return errors.As(err, &said) && said.Number == 1064
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
				row.Counts[i] = number(values[4+i])
			}
			rows = append(rows, row)
		}
		wants = wants[n:]
	}
	return rows, now, nil
}

// number reads an integer column; one beyond an int64 is the largest.
func number(s sql.NullString) int64 { return integer(s.String) }

func integer(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}

// Write stores totals, and asks for what others have stored. See ledger.Store.
func (c *Counters) Write(ctx context.Context, node int64, rows []ledger.Row) (found []ledger.Row, now time.Time, err error) {
	for len(rows) > 0 {
		n, places := sizeFor(len(rows), maxRows)
		args := make([]any, 0, 8*places)
		for i := range places {
			r := rows[min(i, n-1)]
			args = append(args, r.Name, r.Step, r.Start, node, r.Counts[0], r.Counts[1], r.Counts[2], ledger.Expires(r.Step, r.Start))
		}
		others, at, err := c.writeReturning(ctx, places, args)
		if err != nil {
			others, at, err = c.writePlain(ctx, node, places, args)
		}
		if err != nil {
			return nil, now, fmt.Errorf("%s: %w", c.table, err)
		}
		if now.IsZero() {
			now = at
		}
		found, rows = append(found, others...), rows[n:]
	}
	return found, now, nil
}

// writePlain is Write with a statement for each of the two.
func (c *Counters) writePlain(ctx context.Context, node int64, places int, args []any) ([]ledger.Row, time.Time, error) {
	if _, err := c.db.update(ctx, c.writeText(places), args...); err != nil {
		return nil, time.Time{}, err
	}
	var wants []ledger.Want
	for ; len(args) > 0; args = args[8:] {
		want := ledger.Want{Key: ledger.Key{Name: args[0].(string), Step: args[1].(int64)}}
		if !slices.Contains(wants, want) {
			wants = append(wants, want)
		}
	}
	return c.Read(ctx, node, wants)
}

var (
	errPlain = errors.New("the server knows no RETURNING")
	errCut   = errors.New("what others have is too long for group_concat_max_len")
)

// writeReturning is Write with one statement. On an error, as when another one writes the same accounts just
// now, it is not tried again.
func (c *Counters) writeReturning(ctx context.Context, places int, args []any) (found []ledger.Row, now time.Time, err error) {
	if c.plain.Load() {
		return nil, now, errPlain
	}
	var rows *lookupmysql.Rows
	err = c.db.breaker.Try(ctx, func(ctx context.Context) error {
		rows, err = c.db.pool.Query(ctx, c.returningText(places), args...)
		return err
	})
	if notUnderstood(err) {
		c.plain.Store(true)
	}
	if err != nil {
		return nil, now, err
	}
	seen := map[ledger.Key]bool{}
	for _, values := range rows.Values {
		key := ledger.Key{Name: values[0].String, Step: number(values[1])}
		now = time.UnixMicro(number(values[2]))
		if seen[key] {
			continue
		}
		seen[key] = true
		others, n := parseBuckets(key, values[4].String)
		if n != number(values[3]) {
			return nil, now, errCut
		}
		found = append(found, others...)
	}
	return found, now, nil
}

// parseBuckets reads what returningText returns of a key: a row for each start, and how many there were of all
// nodes.
func parseBuckets(key ledger.Key, text string) (rows []ledger.Row, n int64) {
	sums := map[int64]ledger.Counts{}
	for bucket := range strings.SplitSeq(text, ",") {
		var counts ledger.Counts
		words := strings.Fields(bucket)
		if len(words) != 1+len(counts) {
			continue
		}
		for i := range counts {
			counts[i] = integer(words[1+i])
		}
		start := integer(words[0])
		sums[start] = sums[start].Plus(counts)
		n++
	}
	for start, counts := range sums {
		rows = append(rows, ledger.Row{Key: key, Start: start, Counts: counts})
	}
	return rows, n
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
			if changed, err = db.pool.Exec(ctx, briefly+text, args...); !deadlocked(err) {
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
