package sqldb

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// ShieldAccount is a row of shield_accounts, for an administrator.
type ShieldAccount struct {
	Login, State, Reason string
	Age                  time.Duration // of the state
}

const (
	shieldList = "SELECT login, state, reason, GREATEST(0, TIMESTAMPDIFF(SECOND, changed, CURRENT_TIMESTAMP)) AS age FROM shield_accounts" +
		" WHERE state = ? OR ? = '' ORDER BY changed DESC, login"
	shieldSet = "UPDATE shield_accounts SET state = ? WHERE login = ? AND state = ?"
)

// Accounts returns the accounts in a state, the latest first; "" is any state.
func (s *Shield) Accounts(ctx context.Context, state string) ([]ShieldAccount, error) {
	rows, err := s.db.Query(ctx, shieldList, state, state)
	if err != nil {
		return nil, fmt.Errorf("shield_accounts: %w", err)
	}
	list := make([]ShieldAccount, len(rows.Values))
	for i, v := range rows.Values {
		list[i] = ShieldAccount{v[0].String, v[1].String, v[2].String, time.Duration(number(v[3])) * time.Second}
	}
	return list, nil
}

// Change changes the state of an account, a key as rules.AccountKey makes it, from one to another. changed
// is false if it is not in that state.
func (s *Shield) Change(ctx context.Context, login, from, to string) (changed bool, err error) {
	n, err := s.db.Exec(ctx, shieldSet, to, login, from)
	if err != nil {
		return false, fmt.Errorf("shield_accounts: %w", err)
	}
	return n > 0, nil
}

// GreylistEntry is what the greylist has of a network: of one of its triplets, or, without a Recipient, of the whole.
type GreylistEntry struct {
	Network, Sender, Recipient string
	Passes                     int64         // of a triplet 0 or 1
	Age                        time.Duration // since it was first seen; of a network 0
	Left                       time.Duration // until it is forgotten
}

const (
	greylistOf = "SELECT network, '' AS sender, '' AS recipient, passes, 0 AS age, expires - UNIX_TIMESTAMP() AS remains, 0 AS first_seen FROM greylist_networks WHERE network = ? AND expires > UNIX_TIMESTAMP()" +
		" UNION ALL SELECT network, sender, recipient, passed, UNIX_TIMESTAMP() - first_seen, expires - UNIX_TIMESTAMP(), first_seen FROM greylist WHERE network = ? AND expires > UNIX_TIMESTAMP()" +
		" ORDER BY first_seen, sender, recipient"
	greylistRemove        = "DELETE FROM greylist WHERE network = ? LIMIT 1000"
	greylistRemoveNetwork = "DELETE FROM greylist_networks WHERE network = ?"
)

// Entries returns what is known of a network such as 192.0.2.0/24, itself first. It reads the
// whole table.
func (g *Greylist) Entries(ctx context.Context, network string) ([]GreylistEntry, error) {
	rows, err := g.db.Query(ctx, greylistOf, network, network)
	if err != nil {
		return nil, fmt.Errorf("greylist: %w", err)
	}
	list := make([]GreylistEntry, len(rows.Values))
	for i, v := range rows.Values {
		list[i] = GreylistEntry{
			Network: v[0].String, Sender: v[1].String, Recipient: v[2].String, Passes: number(v[3]),
			Age: time.Duration(number(v[4])) * time.Second, Left: time.Duration(number(v[5])) * time.Second,
		}
	}
	return list, nil
}

// Remove forgets a network and its triplets, and returns how many rows those were.
func (g *Greylist) Remove(ctx context.Context, network string) (removed int64, err error) {
	for more := true; more; {
		n, err := g.db.update(ctx, greylistRemove, network)
		if err != nil {
			return removed, fmt.Errorf("greylist: %w", err)
		}
		removed += n
		more = n > 0
	}
	n, err := g.db.update(ctx, greylistRemoveNetwork, network)
	if err != nil {
		return removed, fmt.Errorf("greylist_networks: %w", err)
	}
	return removed + n, nil
}

// nobody is the node whose rows take off what the others have counted.
const nobody = 0

// Reset has what was counted of a name until now count no more, by rows that take it off: what policyds have in memory
// is totals, which they would write again.
func (c *Counters) Reset(ctx context.Context, name string) error {
	less, sums, sets := make([]string, len(c.columns)), make([]string, len(c.columns)), make([]string, len(c.columns))
	for i, column := range c.columns {
		less[i], sums[i] = "-"+column, fmt.Sprintf("SUM(%[1]s) AS %[1]s", column)
		sets[i] = fmt.Sprintf("%[1]s = VALUES(%[1]s)", column)
	}
	_, err := c.db.update(ctx, "INSERT INTO "+c.table+" (name, step, start, node, "+strings.Join(c.columns[:], ", ")+", expires)"+
		" SELECT name, step, start, ?, "+strings.Join(less, ", ")+", expires FROM"+
		" (SELECT name, step, start, "+strings.Join(sums, ", ")+", MAX(expires) AS expires FROM "+c.table+" WHERE name = ? AND node <> ? GROUP BY name, step, start) AS counted"+
		" ON DUPLICATE KEY UPDATE "+strings.Join(sets, ", "), int64(nobody), name, int64(nobody))
	if err != nil {
		return fmt.Errorf("%s: %w", c.table, err)
	}
	return nil
}
