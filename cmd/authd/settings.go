package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"dovepost/auth"
	"dovepost/auth/guard"
	"dovepost/auth/sasl"
	"dovepost/auth/scheme"
)

// settings are the flags of authd.
type settings struct {
	sql, mysql    string
	iterateQuery  string
	mysqlConns    int
	lookupTimeout time.Duration

	mechList      string
	failureDelay  duration
	realm         string
	translation   string
	usernameChars string
	format        string
	passScheme    string
	workers       int
	verbose       yesNo

	mailHome, mailLocation string
	mailUID, mailGID       string
}

func (s *settings) flags(fs *pflag.FlagSet) {
	s.failureDelay = duration(2 * time.Second)
	fs.StringVar(&s.sql, "sql", "", "take queries and server from `FILE`, a dovecot-sql.conf.ext")
	fs.StringVar(&s.mysql, "mysql", "", "serve the built-in table users from the server of `FILE`, a mysql_table(5) file")
	fs.StringVar(&s.iterateQuery, "iterate_query", "", "with a --sql file that has none: the `query` that lists the users, for doveadm user '*'")
	fs.IntVar(&s.mysqlConns, "mysql_max_connections", 8, "connections to the MySQL server")
	fs.DurationVar(&s.lookupTimeout, "lookup_timeout", 5*time.Second, "how long a query may take before the answer is \"try again later\"")

	fs.StringVar(&s.mechList, "auth_mechanisms", "plain login", "SASL mechanisms, in the order in which they are offered")
	fs.Var(&s.failureDelay, "auth_failure_delay", "how late a refusal is told; never more than 8s to Postfix")
	fs.StringVar(&s.realm, "auth_default_realm", "", "`domain` of user names without one")
	fs.StringVar(&s.translation, "auth_username_translation", "", "pairs of `characters` in user names, from and to")
	fs.StringVar(&s.usernameChars, "auth_username_chars", guard.DefaultUsernameChars, "`characters` that user names may have; empty: all")
	fs.StringVar(&s.format, "auth_username_format", guard.DefaultUsernameFormat, "what is looked up for a user name: %u, %n, %d, with L or U; empty: the name")
	fs.StringVar(&s.passScheme, "default_pass_scheme", "SHA512-CRYPT", "with --mysql: `scheme` of passwords without {SCHEME}")
	fs.IntVar(&s.workers, "auth_worker_max_count", 0, "password hashes computed at a time; 0: the number of processors")
	fs.Var(&s.verbose, "auth_verbose", "log why logins are refused")
	fs.Lookup("auth_verbose").NoOptDefVal = "yes"

	fs.StringVar(&s.mailHome, "mail_home", "/home/vmail/%d/%n", "with --mysql: home directory, with %u, %n, %d")
	fs.StringVar(&s.mailLocation, "mail_location", "maildir:~/Maildir", "with --mysql: `mail location`")
	fs.StringVar(&s.mailUID, "mail_uid", "5000", "with --mysql: `uid` of all users")
	fs.StringVar(&s.mailGID, "mail_gid", "5000", "with --mysql: `gid` of all users")
}

// rules are what the settings say about logins.
type rules struct {
	names      *guard.Names
	mechanisms []auth.Mechanism
}

// check finds settings that cannot be right, and compiles the others.
func (s *settings) check() (r rules, err error) {
	switch {
	case (s.sql == "") == (s.mysql == ""):
		return r, errors.New("one of --sql and --mysql is needed")
	case s.mysqlConns < 1:
		return r, fmt.Errorf("mysql_max_connections: %d is less than 1", s.mysqlConns)
	case s.lookupTimeout <= 0 || s.lookupTimeout > 30*time.Second:
		return r, fmt.Errorf("lookup_timeout: %v is not between 0 and 30s", s.lookupTimeout)
	case s.failureDelay < 0 || s.failureDelay > duration(time.Minute):
		return r, fmt.Errorf("auth_failure_delay: %v is not between 0 and 1m", s.failureDelay)
	case s.workers < 0:
		return r, fmt.Errorf("auth_worker_max_count: %d is less than 0", s.workers)
	case !slices.Contains(scheme.Known(), strings.ToUpper(s.passScheme)):
		return r, fmt.Errorf("default_pass_scheme: unknown scheme %q", s.passScheme)
	}
	if r.mechanisms, err = sasl.Parse(s.mechList); err != nil {
		return r, fmt.Errorf("auth_mechanisms: %w", err)
	}
	r.names, err = guard.NewNames(s.realm, s.translation, s.usernameChars, s.format)
	return r, err
}

// duration is a time as Go or Dovecot writes it: 2s, 2 secs, 500 ms, 2.
type duration time.Duration

func (d *duration) Type() string   { return "duration" }
func (d *duration) String() string { return time.Duration(*d).String() }

var units = map[string]time.Duration{
	"": time.Second, "s": time.Second, "sec": time.Second, "secs": time.Second, "second": time.Second, "seconds": time.Second,
	"ms": time.Millisecond, "msec": time.Millisecond, "msecs": time.Millisecond, "milliseconds": time.Millisecond,
	"m": time.Minute, "min": time.Minute, "mins": time.Minute, "minute": time.Minute, "minutes": time.Minute,
}

func (d *duration) Set(value string) error {
	digits := strings.TrimRight(strings.ToLower(strings.TrimSpace(value)), "abcdefghijklmnopqrstuvwxyz")
	unit, known := units[strings.ToLower(strings.TrimSpace(value))[len(digits):]]
	n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 31)
	if err == nil && known {
		*d = duration(time.Duration(n) * unit)
		return nil
	}
	t, err := time.ParseDuration(value)
	if err != nil {
		return fmt.Errorf("want a time such as 2s or 2 secs")
	}
	*d = duration(t)
	return nil
}

// yesNo is a boolean as Dovecot writes it.
type yesNo bool

func (b *yesNo) Type() string { return "yes|no" }

func (b *yesNo) String() string {
	if *b {
		return "yes"
	}
	return "no"
}

func (b *yesNo) Set(value string) error {
	switch strings.ToLower(value) {
	case "yes", "y", "1", "true":
		*b = true
	case "no", "n", "0", "false":
		*b = false
	default:
		return errors.New("want yes or no")
	}
	return nil
}
