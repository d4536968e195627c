// dovepost lookup [--socket SOCKET] MAP KEY ... asks lookupd for keys of a map, the
// way Postfix does.
//
// MAP is the name that stands at the end of the parameter's value in main.cf, for
// instance virtual_alias_maps. For one KEY the value is printed, for several KEY,
// a tab and the value, one line for each that was found. A single - reads the keys
// from standard input, one a line.
//
// Postfix asks for keys as they are; which forms of an address are tried is up to
// lookupd and the map.
//
// Exit codes: 0 all found, 1 some not found, 75 some could not be answered.

package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"

	"dovepost/lookup"
	"dovepost/lookup/socketmap"
)

//go:embed lookup.go
var lookupSource string

var lookupCommand = command{name: "lookup", doc: lookupSource, args: "MAP KEY ...", min: 2, max: -1,
	prepare: func(fs *pflag.FlagSet) func(*call, []string) error {
		at, timeout := connection(fs, "/var/spool/postfix/dovepost/lookup")
		return func(c *call, args []string) (err error) {
			keys, withKey := args[1:], len(args) > 2
			if len(keys) == 1 && keys[0] == "-" {
				withKey = true
				if keys, err = readLines(c.stdin); err != nil {
					return err
				}
			}
			ctx, cancel := context.WithTimeout(c.ctx, *timeout)
			defer cancel()
			client, err := socketmap.Dial(ctx, at.network, at.address)
			if err != nil {
				return err
			}
			defer client.Close()
			q := &question{client: client, name: args[0], timeout: *timeout, withKey: withKey}
			return q.askAll(c, keys)
		}
	}}

// question is what is asked about all keys.
type question struct {
	client  *socketmap.Client
	name    string // of the map
	timeout time.Duration
	withKey bool // print the key before the value
}

// askAll prints the values. An answer that is an error does not keep the other
// keys from being asked; a broken connection does.
func (q *question) askAll(c *call, keys []string) error {
	code := exitOK
	for _, key := range keys {
		value, err := q.ask(c.ctx, key)
		reply := new(socketmap.ReplyError)
		switch {
		case err == nil && q.withKey:
			fmt.Fprintf(c.stdout, "%s\t%s\n", key, value)
		case err == nil:
			fmt.Fprintln(c.stdout, value)
		case errors.Is(err, lookup.ErrNotFound):
			code = max(code, exitNotFound)
		case errors.As(err, &reply):
			fmt.Fprintf(c.stderr, "dovepost lookup: %s: %v\n", key, reply)
			code = exitTemp
		default:
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	if code != exitOK {
		return exitError{code: code}
	}
	return nil
}

func (q *question) ask(ctx context.Context, key string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	return q.client.Lookup(ctx, q.name, key)
}

// readLines reads keys, one a line.
func readLines(f *os.File) (lines []string, err error) {
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		lines = append(lines, scan.Text())
	}
	return lines, scan.Err()
}
