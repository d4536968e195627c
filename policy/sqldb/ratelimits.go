package sqldb

import (
	"context"
	"fmt"

	"dovepost/policy/rules"
)

// RateLimits is the table rate_limits, a rules.RateRows.
type RateLimits struct{ db *DB }

// RateLimits returns the table of the limits of the rule rate.
func (db *DB) RateLimits() RateLimits { return RateLimits{db} }

const (
	rateVersion = "SELECT CONCAT(COUNT(*), ' ', COALESCE(SUM(UNIX_TIMESTAMP(changed)), '')) AS version FROM rate_limits"
	rateRows    = "SELECT name, limits, total FROM rate_limits"
)

// Statements are those of the table, to be prepared at start.
func (RateLimits) Statements() []string { return []string{rateVersion, rateRows} }

// Version is how many rows there are, and the sum of when each was last changed, to the microsecond: not the
// latest, since a transaction may show its rows after those of one that began later.
func (t RateLimits) Version(ctx context.Context) (string, error) {
	rows, err := t.db.Query(ctx, rateVersion)
	if err != nil {
		return "", fmt.Errorf("rate_limits: %w", err)
	}
	return rows.Values[0][0].String, nil
}

// Rows reads the table.
func (t RateLimits) Rows(ctx context.Context) ([]rules.RateRow, error) {
	rows, err := t.db.Query(ctx, rateRows)
	if err != nil {
		return nil, fmt.Errorf("rate_limits: %w", err)
	}
	list := make([]rules.RateRow, len(rows.Values))
	for i, v := range rows.Values {
		list[i] = rules.RateRow{Name: v[0].String, Limits: v[1].String, Total: v[2].String}
	}
	return list, nil
}
