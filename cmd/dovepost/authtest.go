// dovepost auth test [--socket SOCKET] NAME logs in at authd, or at Dovecot's own
// auth service, as doveadm auth test does.
//
// The password is read from the terminal, without showing it, or is the first line
// of standard input. What the server says of the user is printed. A refusal comes
// as late as it comes to mail clients.
//
// Exit codes: 0 logged in, 75 temporary failure, 77 refused: wrong password, no such
// user, or a user who may not log in.

package main

import (
	_ "embed"
	"errors"
	"fmt"
	"net/netip"

	"github.com/spf13/pflag"

	"dovepost/auth"
	"dovepost/auth/dovecot"
)

//go:embed authtest.go
var authTestSource string

var authTestCommand = command{name: "auth test", doc: authTestSource, args: "NAME", min: 1, max: 1,
	prepare: func(fs *pflag.FlagSet) func(*call, []string) error {
		at, timeout := connection(fs, "/run/dovecot/auth-client")
		about := requestFlags(fs)
		return func(c *call, args []string) error {
			r, err := about()
			if err != nil {
				return err
			}
			r.Login = args[0]
			password, err := readPassword(c, false)
			if err != nil {
				return err
			}
			client := &dovecot.Client{Network: at.network, Address: at.address, Timeout: *timeout}
			row, err := client.AuthPlain(c.ctx, r, password)
			switch {
			case auth.Refused(err):
				return exitError{exitRefused, refusal(err)}
			case err != nil:
				return err
			}
			fmt.Fprintln(c.stdout, "logged in")
			printFields(c, row.Fields)
			return nil
		}
	}}

// refusal words a refusal, with the server's text if there is one.
func refusal(err error) error {
	var r *auth.Refusal
	if errors.As(err, &r) && r.Reason != "" {
		return fmt.Errorf("refused: %s", r.Reason)
	}
	return fmt.Errorf("refused: %w", err)
}

// requestFlags adds what may be known of a login.
func requestFlags(fs *pflag.FlagSet) func() (*auth.Request, error) {
	service := fs.String("service", "doveadm", "the `service` that is logged in to: imap, pop3, smtp ...")
	rip := fs.String("rip", "", "the client's IP `address`")
	lip := fs.String("lip", "", "the server's IP `address`")
	secured := fs.Bool("secured", true, "say that the connection is protected by TLS")
	return func() (*auth.Request, error) {
		r := &auth.Request{Service: *service, Secured: *secured}
		for _, a := range []struct {
			name, text string
			to         *netip.Addr
		}{{"rip", *rip, &r.RemoteIP}, {"lip", *lip, &r.LocalIP}} {
			if a.text == "" {
				continue
			}
			var err error
			if *a.to, err = netip.ParseAddr(a.text); err != nil {
				return nil, usage("--%s: %q is no IP address", a.name, a.text)
			}
		}
		return r, nil
	}
}

// printFields prints a field a line, but not the password that a proxy logs in with.
func printFields(c *call, fields auth.Fields) {
	for _, f := range fields {
		if f.Name == "pass" {
			fmt.Fprintln(c.stdout, "pass\t(not shown)")
		} else if f.HasValue {
			fmt.Fprintf(c.stdout, "%s\t%s\n", f.Name, f.Value)
		} else {
			fmt.Fprintln(c.stdout, f.Name)
		}
	}
}
