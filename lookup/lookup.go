// Package lookup is the vocabulary of table lookups: what a Postfix map is to dovepost.
//
// A lookup has three outcomes, as everywhere in Postfix: found, not found, and
// "ask again later". Only the database may say "not found"; whatever else goes
// wrong is temporary, so that Postfix defers mail instead of refusing it.
//
// This package knows no wire and no database. The protocols are in
// lookup/socketmap and lookup/tcptable, the key forms in lookup/ladder, the
// tables in lookup/mysql.
package lookup

import (
	"context"
	"errors"
)

// ErrNotFound is the proven "no": the database answered, and there is no such key.
// Every other error of a Map is temporary.
var ErrNotFound = errors.New("not found")

// A Map answers keys, as one Postfix lookup table does.
type Map interface {
	// Lookup returns the values of key, at least one and none of them empty, in
	// the order of the database. Postfix sees them joined with commas. The key
	// is as the client sent it; folding it is the Map's own business.
	//
	// Outcomes: values and nil; nil and an error that wraps ErrNotFound; nil and
	// any other error, which means "try again later".
	Lookup(ctx context.Context, key string) (values []string, err error)
}

// Maps holds the maps of one daemon by the name that stands in main.cf.
type Maps map[string]Map

// Func makes a Map of a function.
type Func func(ctx context.Context, key string) ([]string, error)

// Lookup calls f.
func (f Func) Lookup(ctx context.Context, key string) ([]string, error) { return f(ctx, key) }
