// dovepost user [--socket SOCKET] [MASK] lists the users whose names match MASK, with
// * for any characters and ? for one; without a MASK, all.
//
// dovepost user [-f FIELD] NAME ... shows what Dovecot and lmtpd are told of users:
// name, uid, gid, home, mail, quota_rule and so on, a field and its value on each
// line, or only the value of FIELD.
//
// Exit codes: 0, 67 no such user or no such field, 75 temporary failure.

package main

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"dovepost/auth"
	"dovepost/auth/dovecot"
)

//go:embed user.go
var userSource string

var userCommand = command{name: "user", doc: userSource, args: "[MASK | NAME ...]", max: -1,
	prepare: func(fs *pflag.FlagSet) func(*call, []string) error {
		at, timeout := connection(fs, "/run/dovecot/auth-userdb")
		field := fs.StringP("field", "f", "", "print only the value of `FIELD`")
		return func(c *call, args []string) error {
			db := &dovecot.Userdb{Network: at.network, Address: at.address, Timeout: *timeout}
			defer db.Close()
			if len(args) == 0 {
				args = []string{"*"}
			}
			if len(args) == 1 && strings.ContainsAny(args[0], "*?") {
				return listUsers(c, db, args[0])
			}
			return each(args, func(name string) error {
				u, err := db.LookupUser(c.ctx, &auth.Request{User: name, Login: name, Service: "doveadm"})
				if err != nil {
					return unknownUser(name, err)
				}
				return printUser(c, u, *field)
			})
		}
	}}

func listUsers(c *call, db *dovecot.Userdb, mask string) error {
	for name, err := range db.Users(c.ctx, mask) {
		if err != nil {
			return err
		}
		if !matches(strings.ToLower(mask), strings.ToLower(name)) {
			continue // Dovecot 2.3 does not look at the mask
		}
		if _, err := fmt.Fprintln(c.stdout, name); err != nil {
			return err
		}
	}
	return nil
}

// matches reports whether name is of the form mask: * is any text, ? any octet.
func matches(mask, name string) bool {
	star, from := -1, 0 // where to go on when what follows the last * does not fit
	m, n := 0, 0
	for n < len(name) {
		switch {
		case m < len(mask) && mask[m] == '*':
			star, from = m, n
			m++
		case m < len(mask) && (mask[m] == '?' || mask[m] == name[n]):
			m, n = m+1, n+1
		case star >= 0:
			from++
			m, n = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(mask[m:], "*") == ""
}

// printUser prints all that is set, or one field.
func printUser(c *call, u *auth.User, field string) error {
	fields := auth.Fields{{Name: "user", Value: u.Name, HasValue: true}}
	for _, f := range []struct{ name, value string }{{"uid", u.UID}, {"gid", u.GID}, {"home", u.Home}, {"mail", u.Mail}} {
		if f.value != "" {
			fields = append(fields, auth.Field{Name: f.name, Value: f.value, HasValue: true})
		}
	}
	fields = append(fields, u.Fields...)
	if field == "" {
		printFields(c, fields)
		return nil
	}
	value, ok := fields.Get(field)
	if !ok {
		return exitError{exitNoUser, fmt.Errorf("%s has no field %q", u.Name, field)}
	}
	_, err := fmt.Fprintln(c.stdout, value)
	return err
}
