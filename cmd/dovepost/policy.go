// All dovepost policy commands use the database, the tables and the settings of policyd: those that policyd.cf, or
// --config FILE, has. --mysql FILE takes the place of its mysql.
//
// Exit codes: 0, 67 no such account or network there, 75 temporary failure, 78 a setting is wrong.

package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"dovepost/cmd/internal/daemon"
	"dovepost/lookup/mysql"
	"dovepost/policy/breaker"
	"dovepost/policy/sqldb"
)

//go:embed policy.go
var policySource string

// policyCommand makes one of the commands that use policyd's tables. doc is its manual, without what holds for all.
func policyCommand(name, args string, min, max int, doc string, prepare func(fs *pflag.FlagSet) func(*policyTables, []string) error) command {
	doc = "// dovepost policy " + strings.ReplaceAll(doc, "\n", "\n// ") + "\n//\n" + policySource
	return command{name: "policy " + name, doc: doc, args: args, min: min, max: max,
		prepare: func(fs *pflag.FlagSet) func(*call, []string) error {
			config := fs.String("config", "/etc/dovepost/policyd.cf", "the settings of policyd, in `FILE`")
			file := fs.String("mysql", "", "the database of its tables, in `FILE`; without it that of the settings")
			timeout := fs.Duration("timeout", 15*time.Second, "how long to wait for the database")
			do := prepare(fs)
			return func(c *call, args []string) error {
				p, err := openPolicy(c, *config, *file, fs.Changed("config"), *timeout)
				if err != nil {
					return err
				}
				defer p.close()
				return do(p, args)
			}
		}}
}

var policyCommands = []command{
	policyCommand("held", "", 0, 0, `held [--all] lists the accounts that policyd has put on hold: which, since when, by which
rule and why. --all has those that were released, and those that are exempt, too.`,
		func(fs *pflag.FlagSet) func(*policyTables, []string) error {
			all := fs.Bool("all", false, "those that were released or are exempt, too")
			return func(p *policyTables, _ []string) error { return p.held(*all) }
		}),
	policyCommand("release", "LOGIN ...", 1, -1, `release LOGIN ... releases accounts that are held: within seconds, and on all
machines; what was seen of them before does not count any more. What shield_lock_query has locked
stays so, and mail that is on hold is released with postsuper -H.`,
		forEach((*policyTables).release)),
	policyCommand("greylist show", "NETWORK | ADDRESS", 1, 1, `greylist show NETWORK | ADDRESS shows what the rule greylist has of a client's network:
how many senders have passed, and each sender and recipient that was seen.`,
		forEach((*policyTables).showNetwork)),
	policyCommand("greylist remove", "NETWORK | ADDRESS", 1, 1, `greylist remove NETWORK | ADDRESS forgets a client's network, and its senders. A
policyd that has let it pass has that in memory for 5 minutes.`,
		forEach((*policyTables).removeNetwork)),
	policyCommand("rate show", "NAME ...", 1, -1, `rate show NAME ... shows the limits of the rule rate, and how much of each is used: of a
login, or, with @DOMAIN, of all logins of a domain together.`,
		func(*pflag.FlagSet) func(*policyTables, []string) error { return (*policyTables).showRate }),
	policyCommand("rate reset", "NAME ...", 1, -1, `rate reset NAME ... has what a login, or all of @DOMAIN together, has sent until now count
no more: within seconds, and on all machines.`,
		forEach((*policyTables).resetRate)),
}

// errNotThere is for a name that the tables do not have, or not in the state that it is to be in.
var errNotThere = errors.New("not there")

// forEach does something for all arguments. One that is not there does not keep the others from their turn.
func forEach(do func(*policyTables, string) error) func(*pflag.FlagSet) func(*policyTables, []string) error {
	return func(*pflag.FlagSet) func(*policyTables, []string) error {
		return func(p *policyTables, args []string) error {
			var missing []error
			for _, arg := range args {
				err := do(p, arg)
				if err != nil && !errors.Is(err, errNotThere) {
					return err
				}
				missing = append(missing, err)
			}
			if err := errors.Join(missing...); err != nil {
				return exitError{exitNoUser, err}
			}
			return nil
		}
	}
}

// policyTables are the tables of policyd, for one command.
type policyTables struct {
	ctx      context.Context
	out      io.Writer
	log      *slog.Logger
	settings map[string]string
	timeout  time.Duration
	db       *sqldb.DB
	breaker  *breaker.Breaker
	pools    []*mysql.Pool
}

// openPolicy finds the database. A settings file that is not there is no error where --mysql is given alone.
func openPolicy(c *call, config, file string, named bool, timeout time.Duration) (*policyTables, error) {
	settings, err := daemon.ReadSettings(config)
	if err != nil && (named || file == "") {
		return nil, exitError{exitConfig, err}
	}
	if file == "" {
		file = settings["mysql"]
	}
	if file == "" {
		return nil, exitError{exitConfig, fmt.Errorf("%s has no mysql = FILE; --mysql FILE names one", config)}
	}
	f, err := mysql.ReadFile(file)
	if err != nil {
		return nil, exitError{exitConfig, err}
	}
	p := &policyTables{ctx: c.ctx, out: c.stdout, settings: settings, timeout: timeout, log: slog.New(slog.NewTextHandler(c.stderr, &slog.HandlerOptions{Level: slog.LevelError}))}
	pool := p.open(f)
	p.breaker = sqldb.NewBreaker(pool, timeout, p.log)
	p.db = sqldb.New(pool, p.breaker)
	return p, nil
}

func (p *policyTables) open(f *mysql.File) *mysql.Pool {
	pool := mysql.OpenPool(f.Config(), 1)
	p.pools = append(p.pools, pool)
	return pool
}

func (p *policyTables) close() {
	p.breaker.Close()
	for _, pool := range p.pools {
		pool.Close()
	}
}

// table prints rows in columns, under their titles.
func (p *policyTables) table(titles []string, rows [][]string) error {
	w := tabwriter.NewWriter(p.out, 0, 8, 2, ' ', 0)
	for _, row := range append([][]string{titles}, rows...) {
		if _, err := fmt.Fprintln(w, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return w.Flush()
}

// greylist are its tables.
func (p *policyTables) greylist() *sqldb.Greylist { return sqldb.NewGreylist(p.db) }
