package sqldb

import (
	"context"
	"strings"
)

// GrantStatement finds who may send as an address by the table sender_grants: its ? are for the
// forms that a grant can have, see Grants.
const GrantStatement = "SELECT login FROM sender_grants WHERE address IN (?, ?, ?, ?)"

// maxAddress is how long an address in the table can be, in octets. A longer one has no grants.
const maxAddress = 320

// Grants returns the logins that the table lets send as an address: by a row for it, for it
// without its extension (base, the same where there is none), or for its domain, as
// @domain or *@domain. Addresses are in small letters in the table.
func (db *DB) Grants(ctx context.Context, address, base string) ([]string, error) {
	address, base = strings.ToLower(address), strings.ToLower(base)
	at := strings.LastIndexByte(address, '@')
	if at < 0 || len(address) > maxAddress {
		return nil, nil
	}
	rows, err := db.Query(ctx, GrantStatement, address, base, address[at:], "*"+address[at:])
	if err != nil {
		return nil, err
	}
	var logins []string
	for _, row := range rows.Values {
		logins = append(logins, row[0].String)
	}
	return logins, nil
}
