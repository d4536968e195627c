// Dovepost is the administrator's command: it asks the daemons what they would
// answer to Postfix and Dovecot, and makes password hashes.
//
//	dovepost lookup MAP KEY ...     ask lookupd, as Postfix does
//	dovepost user [MASK | NAME ...] list users, or show what Dovecot is told of one
//	dovepost auth test NAME         log in at authd
//	dovepost auth lookup NAME ...   show what authd knows of a login name
//	dovepost pw                     make or verify a password hash
//	dovepost policy held            list the accounts that policyd holds
//	dovepost policy release LOGIN   release one of them
//	dovepost policy greylist show NETWORK     what the greylist has of a network
//	dovepost policy greylist remove NETWORK   forget it
//	dovepost policy rate show NAME            limits of a login, and what is used
//	dovepost policy rate reset NAME           begin to count anew
//	dovepost version                print the version
//
// `dovepost COMMAND --help` has the rest. SOCKET is always unix:PATH or
// inet:HOST:PORT. Passwords are read from the terminal or from the first line of
// standard input, never from the command line, where all users could see them.
//
// Exit codes: 0, 64 (command line), 75 (try again, or no daemon there), and those
// of each command.
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"dovepost/cmd/internal/daemon"
)

// Exit codes, sysexits(3).
const (
	exitOK       = 0
	exitNotFound = 1  // lookup: as postmap -q
	exitUsage    = 64 // wrong command line
	exitNoUser   = 67 // no such user
	exitTemp     = 75 // trying again may help; pw: as doveadm pw
	exitRefused  = 77 // wrong password, or a user who may not log in
	exitConfig   = 78 // a setting or a file is wrong
)

//go:embed main.go
var source string

// call is one run of the command.
type call struct {
	ctx            context.Context
	stdin          *os.File
	stdout, stderr io.Writer
}

// command is one subcommand.
type command struct {
	name string // "auth test"
	doc  string // source file whose first comment is the manual
	args string // what the names of arguments are, for errors
	min  int    // arguments that must be there
	max  int    // and may be; -1: any number

	// prepare adds the flags and returns what is to be run when they are parsed.
	prepare func(fs *pflag.FlagSet) func(c *call, args []string) error
}

var commands = slices.Concat([]command{lookupCommand, userCommand, authTestCommand, authLookupCommand, pwCommand}, policyCommands, []command{
	{name: "version", doc: "// dovepost version prints the version of this program.", prepare: func(*pflag.FlagSet) func(*call, []string) error {
		return func(c *call, _ []string) error { return printVersion(c.stdout) }
	}}})

// exitError is an error with its own exit code; any other is exitTemp. Without an
// error inside, nothing is printed.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e exitError) Unwrap() error { return e.err }

func main() {
	os.Exit(run(&call{context.Background(), os.Stdin, os.Stdout, os.Stderr}, os.Args[1:]))
}

// run runs one command line and returns its exit code.
func run(c *call, args []string) int {
	if len(args) == 0 {
		fmt.Fprintln(c.stderr, daemon.Manual(source))
		return exitUsage
	}
	switch args[0] {
	case "help", "--help", "-h":
		if len(args) == 1 {
			fmt.Fprintln(c.stdout, daemon.Manual(source))
			return exitOK
		}
		args = append(args[1:], "--help")
	case "--version":
		args = []string{"version"}
	}
	for i := range commands {
		if rest, ok := commands[i].match(args); ok {
			return commands[i].run(c, rest)
		}
	}
	fmt.Fprintf(c.stderr, "dovepost: there is no command %q; dovepost --help lists them\n", strings.Join(args[:min(2, len(args))], " "))
	return exitUsage
}

// match takes the words of the command's name off.
func (cmd *command) match(args []string) (rest []string, ok bool) {
	for word := range strings.FieldsSeq(cmd.name) {
		if len(args) == 0 || args[0] != word {
			return nil, false
		}
		args = args[1:]
	}
	return args, true
}

func (cmd *command) run(c *call, args []string) int {
	fs := pflag.NewFlagSet(cmd.name, pflag.ContinueOnError)
	fs.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(strings.ReplaceAll(name, "-", "_"))
	})
	fs.Usage = func() {}
	do := cmd.prepare(fs)
	switch err := fs.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprintln(c.stdout, daemon.Manual(cmd.doc))
		if fs.HasFlags() {
			fmt.Fprintf(c.stdout, "\nFlags:\n%s", fs.FlagUsages())
		}
		return exitOK
	case err != nil:
		fmt.Fprintf(c.stderr, "dovepost %s: %v\n", cmd.name, err)
		return exitUsage
	case fs.NArg() < cmd.min || cmd.max >= 0 && fs.NArg() > cmd.max:
		fmt.Fprintf(c.stderr, "usage: dovepost %s\n", strings.TrimSpace(cmd.name+" [flags] "+cmd.args))
		return exitUsage
	}
	err := do(c, fs.Args())
	if err == nil {
		return exitOK
	}
	if text := err.Error(); text != "" {
		fmt.Fprintf(c.stderr, "dovepost %s: %s\n", cmd.name, text)
	}
	var coded exitError
	if errors.As(err, &coded) {
		return coded.code
	}
	return exitTemp
}

// usage makes err one of the command line.
func usage(format string, args ...any) error {
	return exitError{exitUsage, fmt.Errorf(format, args...)}
}

func printVersion(w io.Writer) error {
	_, err := fmt.Fprintln(w, "dovepost", daemon.Version())
	return err
}

// endpoint is a --socket flag: unix:PATH, inet:HOST:PORT or an absolute path.
type endpoint struct{ network, address string }

func (e *endpoint) Type() string { return "SOCKET" }

func (e *endpoint) String() string {
	if e.network == "tcp" {
		return "inet:" + e.address
	}
	return "unix:" + e.address
}

func (e *endpoint) Set(text string) error {
	kind, address, _ := strings.Cut(text, ":")
	switch {
	case strings.HasPrefix(text, "/"):
		*e = endpoint{"unix", text}
	case kind == "unix" && address != "":
		*e = endpoint{"unix", address}
	case kind == "inet" && strings.Contains(address, ":"):
		*e = endpoint{"tcp", address}
	default:
		return errors.New("want unix:PATH or inet:HOST:PORT")
	}
	return nil
}

// connection adds the flags of all commands that ask a daemon.
func connection(fs *pflag.FlagSet, usual string) (*endpoint, *time.Duration) {
	e := &endpoint{"unix", usual}
	fs.Var(e, "socket", "where the daemon listens")
	return e, fs.Duration("timeout", 15*time.Second, "how long to wait for an answer")
}
