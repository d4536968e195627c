package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"dovepost/auth/scheme"
	"dovepost/auth/sqldb"
	"dovepost/cmd/internal/daemon"
	"dovepost/cmd/internal/database"
)

// extraSettings are the flags of what a site may have beside passdb and userdb.
type extraSettings struct {
	appPasswordQuery  string
	lastLoginQuery    string
	lastLoginServices string
	lastLoginInterval time.Duration
	rehashQuery       string
	rehashScheme      string
	rehashRounds      int
}

func (s *extraSettings) extraFlags(fs *pflag.FlagSet) {
	fs.StringVar(&s.appPasswordQuery, "auth_app_password_query", "", "`query` for the further passwords of a user: columns password, name, services, expires (Unix time)")
	fs.StringVar(&s.lastLoginQuery, "auth_last_login_query", "", "`statement` that notes a login, with %{time} (Unix time) and %{app_password} besides Dovecot's variables")
	fs.StringVar(&s.lastLoginServices, "auth_last_login_services", "", "`services` whose logins are noted; empty: all")
	daemon.DurationVar(fs, &s.lastLoginInterval, "auth_last_login_interval", 10*time.Second, "how often logins are noted; of one user and service the latest in this time")
	fs.StringVar(&s.rehashQuery, "auth_rehash_query", "", "`statement` that stores a new hash, with %{new_password}, %{old_password} as the row has it, and %{new_hash} without {SCHEME}")
	fs.StringVar(&s.rehashScheme, "auth_rehash_scheme", "", "`scheme` in which a password is stored anew at a login if it is in another")
	fs.IntVar(&s.rehashRounds, "auth_rehash_rounds", 0, "its cost, as `dovepost pw -r` takes it; 0: the scheme's default")
}

// checkExtras finds settings that cannot be right.
func (s *extraSettings) checkExtras() error {
	switch {
	case (s.rehashQuery == "") != (s.rehashScheme == ""):
		return fmt.Errorf("auth_rehash_scheme and auth_rehash_query are needed both")
	case s.lastLoginInterval <= 0 || s.lastLoginInterval > time.Hour:
		return fmt.Errorf("auth_last_login_interval: %v is not between 0 and 1h", s.lastLoginInterval)
	case s.rehashScheme == "":
		return nil
	case !strings.Contains(s.rehashQuery, "%{old_password}"):
		return fmt.Errorf("auth_rehash_query: without %%{old_password} in its condition it would undo a change that comes between")
	case slices.Contains([]string{"PLAIN", "CLEAR", "CLEARTEXT", "PLAIN-TRUNC", "OTP"}, strings.ToUpper(s.rehashScheme)):
		return fmt.Errorf("auth_rehash_scheme: %s is no hash", s.rehashScheme)
	}
	if _, err := scheme.HashWith(s.rehashScheme, []byte("test"), scheme.Options{User: "user@example.com", Rounds: s.rehashRounds}); err != nil {
		return fmt.Errorf("auth_rehash_scheme: %w", err)
	}
	return nil
}

// extras are the statements of the settings; nil: the setting is empty.
type extras struct {
	appPasswords, lastLogin, rehash *sqldb.Statement
}

// openExtras compiles the statements of the settings.
func (a *authd) openExtras(s *state) (statements []database.Statement, err error) {
	for _, e := range []struct {
		to         **sqldb.Statement
		name, text string
		own        []string
	}{
		{&s.appPasswords, "auth_app_password_query", a.appPasswordQuery, nil},
		{&s.lastLogin, "auth_last_login_query", a.lastLoginQuery, []string{"time", "app_password"}},
		{&s.rehash, "auth_rehash_query", a.rehashQuery, []string{"old_password", "new_password", "new_hash"}},
	} {
		if e.text == "" {
			continue
		}
		if *e.to, err = s.DB.Statement(e.name, e.text, e.own...); err != nil {
			return nil, err
		}
		statements = append(statements, database.Statement{Pool: s.Pool, Prepare: (*e.to).Prepare})
	}
	return statements, nil
}
