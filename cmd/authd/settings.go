package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"dovepost/auth/guard"
	"dovepost/auth/scheme"
	"dovepost/cmd/internal/daemon"
)

// settings are the flags of authd.
type settings struct {
	guardSettings
	mechanismSettings
	tokenSettings
	masterSettings
	passwordSettings
	ignoredSettings
	cacheSettings
	extraSettings
	sql           []string
	mysql         string
	mysqlConns    int
	lookupTimeout time.Duration

	failureDelay  time.Duration
	realm         string
	translation   string
	usernameChars string
	format        string
	passScheme    string
	verbose       bool

	mailHome, mailLocation string
	mailUID, mailGID       string
}

func (s *settings) flags(fs *pflag.FlagSet) {
	fs.StringArrayVar(&s.sql, "sql", nil, "take queries and server from `FILE`, a dovecot-sql.conf.ext; several are asked in order")
	fs.StringVar(&s.mysql, "mysql", "", "serve the built-in table users from the server of `FILE`, a mysql_table(5) file")
	fs.IntVar(&s.mysqlConns, "mysql_max_connections", 8, "connections to the MySQL server")
	daemon.DurationVar(fs, &s.lookupTimeout, "lookup_timeout", 5*time.Second, "how long a query may take before the answer is \"try again later\"")

	s.mechanismFlags(fs)
	daemon.DurationVar(fs, &s.failureDelay, "auth_failure_delay", 2*time.Second, "how late a refusal is told; never more than 8s to Postfix")
	fs.StringVar(&s.realm, "auth_default_realm", "", "`domain` of user names without one")
	fs.StringVar(&s.translation, "auth_username_translation", "", "pairs of `characters` in user names, from and to")
	fs.StringVar(&s.usernameChars, "auth_username_chars", guard.DefaultUsernameChars, "`characters` that user names may have; empty: all")
	fs.StringVar(&s.format, "auth_username_format", guard.DefaultUsernameFormat, "what is looked up for a user name, with Dovecot's variables; empty: the name")
	fs.StringVar(&s.passScheme, "default_pass_scheme", "SHA512-CRYPT", "with --mysql: `scheme` of passwords without {SCHEME}")
	s.guardFlags(fs)
	s.tokenFlags(fs)
	s.masterFlags(fs)
	s.passwordFlags(fs)
	s.ignoredFlags(fs)
	s.cacheFlags(fs)
	s.extraFlags(fs)
	daemon.BoolVar(fs, &s.verbose, "auth_verbose", false, "log why logins are refused")

	fs.StringVar(&s.mailHome, "mail_home", "/home/vmail/%d/%n", "with --mysql: home directory, with %u, %n, %d")
	fs.StringVar(&s.mailLocation, "mail_location", "maildir:~/Maildir", "with --mysql: `mail location`")
	fs.StringVar(&s.mailUID, "mail_uid", "5000", "with --mysql: `uid` of all users")
	fs.StringVar(&s.mailGID, "mail_gid", "5000", "with --mysql: `gid` of all users")
}

// rules are what the settings say about logins.
type rules struct {
	names  *guard.Names
	policy guard.Policy
}

// check finds settings that cannot be right, and compiles the others.
func (s *settings) check() (r rules, err error) {
	switch {
	case (len(s.sql) == 0) == (s.mysql == ""):
		return r, errors.New("one of --sql and --mysql is needed")
	case s.mysqlConns < 1:
		return r, fmt.Errorf("mysql_max_connections: %d is less than 1", s.mysqlConns)
	case s.lookupTimeout <= 0 || s.lookupTimeout > 30*time.Second:
		return r, fmt.Errorf("lookup_timeout: %v is not between 0 and 30s", s.lookupTimeout)
	case s.failureDelay < 0 || s.failureDelay > time.Minute:
		return r, fmt.Errorf("auth_failure_delay: %v is not between 0 and 1m", s.failureDelay)
	}
	if err = errors.Join(checkScheme(s.passScheme), s.checkCache(), s.checkExtras(), s.checkMasters(), s.checkPasswords()); err != nil {
		return r, err
	}
	if r.policy, err = s.guardSettings.policy(); err != nil {
		return r, err
	}
	if r.names, err = guard.NewNames(s.realm, s.translation, s.usernameChars, s.format); err != nil {
		return r, err
	}
	return r, s.checkMechanisms(r.names)
}

// checkScheme finds a default_pass_scheme that does not exist. Of a dovecot-sql.conf.ext
// it is wrong for --check alone: rows that say their scheme are as good as in Dovecot.
func checkScheme(name string) error {
	base, _, _ := strings.Cut(strings.ToUpper(name), ".")
	if !slices.Contains(scheme.Known(), base) {
		return fmt.Errorf("default_pass_scheme: unknown scheme %q", name)
	}
	return nil
}
