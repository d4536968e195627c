package sqldb

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"dovepost/policy/rules"
)

// Greylist keeps triplets and networks in the tables greylist and greylist_networks,
// and reads greylist_recipients. It implements rules.GreylistStore; the time is the
// server's.
type Greylist struct{ db *DB }

// NewGreylist returns the greylist of db.
func NewGreylist(db *DB) *Greylist { return &Greylist{db} }

var _ rules.GreylistStore = (*Greylist)(nil)

// The statements. The key of a triplet is a hash, so no text is ever cut into it.
const (
	greylistFacts = "SELECT 'now' AS fact, UNIX_TIMESTAMP() AS number, 0 AS since, 0 AS expires, '' AS address" +
		" UNION ALL SELECT 'triplet', passed, first_seen, expires, '' FROM greylist WHERE id = UNHEX(?)" +
		" UNION ALL SELECT 'network', passes, 0, expires, '' FROM greylist_networks WHERE network = ?" +
		" UNION ALL SELECT 'recipient', enabled, 0, 0, address FROM greylist_recipients WHERE address IN (?, ?, ?, ?)"
	// A row that was to be forgotten begins anew; expires comes last, since it decides.
	greylistBegin = "INSERT INTO greylist (id, network, sender, recipient, first_seen, passed, expires)" +
		" VALUES (UNHEX(?), ?, ?, ?, UNIX_TIMESTAMP(), 0, UNIX_TIMESTAMP() + ?) ON DUPLICATE KEY UPDATE" +
		" first_seen = IF(expires <= UNIX_TIMESTAMP(), UNIX_TIMESTAMP(), first_seen)," +
		" passed = IF(expires <= UNIX_TIMESTAMP(), 0, passed)," +
		" expires = IF(expires <= UNIX_TIMESTAMP(), UNIX_TIMESTAMP() + ?, expires)"
	greylistPass  = "UPDATE greylist SET passed = 1, expires = UNIX_TIMESTAMP() + ? WHERE id = UNHEX(?) AND passed = 0"
	greylistCount = "INSERT INTO greylist_networks (network, passes, expires) VALUES (?, 1, UNIX_TIMESTAMP() + ?)" +
		" ON DUPLICATE KEY UPDATE passes = IF(expires <= UNIX_TIMESTAMP(), 1, LEAST(passes + 1, 1000000))," +
		" expires = UNIX_TIMESTAMP() + ?"
	greylistKeep        = "UPDATE greylist SET expires = UNIX_TIMESTAMP() + ? WHERE id = UNHEX(?)"
	greylistKeepNetwork = "UPDATE greylist_networks SET expires = UNIX_TIMESTAMP() + ? WHERE network = ?"
)

// GreylistStatements are all that a Greylist asks.
var GreylistStatements = append([]string{greylistFacts, greylistBegin, greylistPass, greylistCount, greylistKeep, greylistKeepNetwork}, greylistPurges...)

// greylistPurges are the statements of Purge; each takes a few rows at a time.
var greylistPurges = []string{
	"DELETE FROM greylist WHERE expires <= UNIX_TIMESTAMP() ORDER BY expires LIMIT ?",
	"DELETE FROM greylist_networks WHERE expires <= UNIX_TIMESTAMP() ORDER BY expires LIMIT ?",
}

// Facts implements rules.GreylistStore: one statement, all by primary keys.
func (g *Greylist) Facts(ctx context.Context, q rules.GreylistQuestion) (f rules.GreylistFacts, err error) {
	args := []any{q.Key, q.Network, "", "", "", ""}
	for i, form := range q.Recipients[:min(len(q.Recipients), 4)] {
		if fits(form) {
			args[2+i] = form
		}
	}
	rows, err := g.db.Query(ctx, greylistFacts, args...)
	if err != nil {
		return f, fmt.Errorf("greylist: %w", err)
	}
	for _, row := range rows.Values {
		var n [3]int64
		for i := range n {
			if n[i], err = strconv.ParseInt(row[1+i].String, 10, 64); err != nil {
				return f, fmt.Errorf("greylist: column %s: %w", rows.Columns[1+i], err)
			}
		}
		switch row[0].String {
		case "now":
			f.Now = n[0]
		case "triplet":
			f.Triplet.Passed, f.Triplet.Since, f.Triplet.Expires = n[0] != 0, n[1], n[2]
		case "network":
			f.Network.Passes, f.Network.Expires = n[0], n[2]
		case "recipient":
			f.Listed = append(f.Listed, rules.GreylistRecipient{Address: row[4].String, On: n[0] != 0})
		}
	}
	return f, nil
}

// Begin implements rules.GreylistStore.
func (g *Greylist) Begin(ctx context.Context, t rules.GreylistTriplet, window time.Duration) error {
	return g.exec(ctx, greylistBegin, t.Key, t.Network, legible(t.Sender), legible(t.Recipient), seconds(window), seconds(window))
}

// Pass implements rules.GreylistStore. Of several machines that say so at once one
// changes the row, and counts.
func (g *Greylist) Pass(ctx context.Context, t rules.GreylistTriplet, lifetime time.Duration) error {
	changed, err := g.db.Exec(ctx, greylistPass, seconds(lifetime), t.Key)
	if err != nil {
		return fmt.Errorf("greylist: %w", err)
	}
	if changed == 0 {
		return nil
	}
	return g.exec(ctx, greylistCount, t.Network, seconds(lifetime), seconds(lifetime))
}

// KeepTriplet implements rules.GreylistStore.
func (g *Greylist) KeepTriplet(ctx context.Context, key string, lifetime time.Duration) error {
	return g.exec(ctx, greylistKeep, seconds(lifetime), key)
}

// KeepNetwork implements rules.GreylistStore.
func (g *Greylist) KeepNetwork(ctx context.Context, network string, lifetime time.Duration) error {
	return g.exec(ctx, greylistKeepNetwork, seconds(lifetime), network)
}

func (g *Greylist) exec(ctx context.Context, text string, args ...any) error {
	if _, err := g.db.Exec(ctx, text, args...); err != nil {
		return fmt.Errorf("greylist: %w", err)
	}
	return nil
}

// Purge deletes what is forgotten, at most limit rows of a table, and reports whether
// there may be more.
func (g *Greylist) Purge(ctx context.Context, limit int64) (more bool, err error) {
	for _, text := range greylistPurges {
		n, err := g.db.update(ctx, text, limit)
		if err != nil {
			return false, fmt.Errorf("greylist: %w", err)
		}
		more = more || n >= limit
	}
	return more, nil
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// columnSize is how many characters an address has room for in a table.
const columnSize = 255

// fits reports whether a column can hold s, so that s may be looked up in it.
func fits(s string) bool {
	return s != "" && utf8.ValidString(s) && utf8.RuneCountInString(s) <= columnSize
}

// legible returns s as a column can hold it, for people to read: cut, and with ? for
// what is no text.
func legible(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s[:min(len(s), 4*columnSize)])
	if utf8.RuneCountInString(s) > columnSize {
		s = string([]rune(s)[:columnSize])
	}
	return s
}
