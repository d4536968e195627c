package sqldb

import (
	"context"
	"fmt"

	"dovepost/policy/rules"
)

// AccessStatement reads the table access_list, in the order in which its rows count.
const AccessStatement = "SELECT field, pattern, action FROM access_list ORDER BY priority, id LIMIT 100001"

// AccessRows returns all rows of the table access_list of db; one more than a list may
// have, if there are too many.
func AccessRows(ctx context.Context, db *DB) ([]rules.AccessRow, error) {
	found, err := db.Query(ctx, AccessStatement)
	if err != nil {
		return nil, fmt.Errorf("access_list: %w", err)
	}
	rows := make([]rules.AccessRow, len(found.Values))
	for i, row := range found.Values {
		rows[i] = rules.AccessRow{Field: row[0].String, Pattern: row[1].String, Action: row[2].String}
	}
	return rows, nil
}
