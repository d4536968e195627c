// dovepost auth lookup [--socket SOCKET] NAME ... shows what authd, or Dovecot's own
// auth service, knows of a login name before a password is compared: the user's final
// name and fields such as proxy, host or nologin. The hash is never among them.
//
// Exit codes: 0, 67 no such user, 75 temporary failure.

package main

import (
	_ "embed"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"dovepost/auth"
	"dovepost/auth/dovecot"
)

//go:embed authlookup.go
var authLookupSource string

var authLookupCommand = command{name: "auth lookup", doc: authLookupSource, args: "NAME ...", min: 1, max: -1,
	prepare: func(fs *pflag.FlagSet) func(*call, []string) error {
		at, timeout := connection(fs, "/run/dovecot/auth-userdb")
		about := requestFlags(fs)
		return func(c *call, args []string) error {
			db := &dovecot.Userdb{Network: at.network, Address: at.address, Timeout: *timeout}
			defer db.Close()
			return each(args, func(name string) error {
				r, err := about()
				if err != nil {
					return err
				}
				r.User, r.Login = name, name
				row, err := db.LookupPass(c.ctx, r)
				if err != nil {
					return unknownUser(name, err)
				}
				printFields(c, row.Fields)
				return nil
			})
		}
	}}

// each does something for all names. Unknown ones do not keep the others from their
// turn, any other error does.
func each(names []string, do func(name string) error) error {
	var unknown []error
	for _, name := range names {
		err := do(name)
		if err != nil && !errors.Is(err, auth.ErrUnknownUser) {
			return err
		}
		unknown = append(unknown, err)
	}
	if err := errors.Join(unknown...); err != nil {
		return exitError{exitNoUser, err}
	}
	return nil
}

// unknownUser gives a failed lookup the name it was for.
func unknownUser(name string, err error) error { return fmt.Errorf("%s: %w", name, err) }
