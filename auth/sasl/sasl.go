// Package sasl holds the server's side of SASL mechanisms (RFC 4422), one file each.
//
// A mechanism knows the messages of its exchange. It writes the names that the
// client claims into the request and leaves every decision to an auth.Verifier;
// it sees no database, no policy and no wire.
package sasl

import (
	"bytes"
	"fmt"
	"strings"

	"dovepost/auth"
)

// mechanisms are all that are known, by name.
var mechanisms = map[string]auth.Mechanism{
	"PLAIN": plain{},
	"LOGIN": login{},
}

// Parse reads a list of mechanisms as Dovecot's auth_mechanisms has it, "plain
// login", and returns them in that order. Errors: an unknown name, or none at all.
func Parse(list string) ([]auth.Mechanism, error) {
	var all []auth.Mechanism
	seen := map[string]bool{}
	for _, name := range strings.FieldsFunc(list, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' }) {
		name = strings.ToUpper(name)
		m, ok := mechanisms[name]
		if !ok {
			return nil, fmt.Errorf("unknown mechanism %q", name)
		}
		if !seen[name] {
			all = append(all, m)
		}
		seen[name] = true
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no mechanism in %q", list)
	}
	return all, nil
}

// hasNUL: no name and no password holds a NUL; where one appears, somebody hopes
// that another part of the system stops reading there.
func hasNUL(b []byte) bool { return bytes.IndexByte(b, 0) >= 0 }
