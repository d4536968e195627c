// dovepost pw [-s SCHEME] [-r ROUNDS] [-u NAME] makes a password hash and prints it
// as {SCHEME}hash, the form that Dovecot and authd take from the database.
//
// dovepost pw -t HASH [-u NAME] verifies a password against such a hash.
//
// The password is read from the terminal, without showing it, or is the first line
// of standard input. ROUNDS is the cost of the schemes that have one: rounds of
// SHA512-CRYPT, SHA256-CRYPT and PBKDF2, the logarithm of the rounds of BLF-CRYPT,
// passes of ARGON2, iterations of SCRAM. Without it, the cost is Dovecot's default.
// NAME is the user's whole name, which is a part of the hashes of DIGEST-MD5.
//
// Exit codes: 0 made or verified; 75 not verified, as with doveadm pw, also when
// HASH is of no known scheme or malformed.

package main

import (
	_ "embed"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"dovepost/auth/scheme"
)

//go:embed pw.go
var pwSource string

var pwCommand = command{name: "pw", doc: pwSource, args: "", max: 0,
	prepare: func(fs *pflag.FlagSet) func(*call, []string) error {
		name := fs.StringP("scheme", "s", "SHA512-CRYPT", "the `SCHEME` to hash with, such as ARGON2ID or SHA256.hex")
		rounds := fs.IntP("rounds", "r", 0, "the cost, where the scheme has one")
		user := fs.StringP("user", "u", "", "the user's `NAME`, for DIGEST-MD5")
		hash := fs.StringP("test", "t", "", "verify a password against `HASH`")
		list := fs.BoolP("list", "l", false, "list the schemes")
		return func(c *call, _ []string) error {
			switch {
			case *list:
				_, err := fmt.Fprintln(c.stdout, strings.Join(scheme.Known(), " "))
				return err
			case fs.Changed("test"):
				return verifyPassword(c, *hash, *user)
			}
			return hashPassword(c, *name, scheme.Options{User: *user, Rounds: *rounds})
		}
	}}

func hashPassword(c *call, name string, o scheme.Options) error {
	// Find out what is wrong with the settings before a password is typed.
	if _, err := scheme.HashWith(name, []byte("x"), o); err != nil {
		return usageOf(err)
	}
	password, err := readPassword(c, true)
	if err != nil {
		return err
	}
	stored, err := scheme.HashWith(name, password, o)
	if err != nil {
		return usageOf(err)
	}
	_, err = fmt.Fprintln(c.stdout, stored)
	return err
}

// usageOf: what cannot be hashed was asked wrongly.
func usageOf(err error) error { return exitError{exitUsage, err} }

var errNotVerified = errors.New("the password does not match")

func verifyPassword(c *call, stored, user string) error {
	password, err := readPassword(c, false)
	if err != nil {
		return err
	}
	ok, err := scheme.Verify(stored, password, user)
	if err != nil {
		return err
	}
	if !ok {
		return errNotVerified
	}
	_, err = fmt.Fprintf(c.stdout, "%s (verified)\n", stored)
	return err
}
