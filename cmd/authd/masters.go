package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"dovepost/auth"
	"dovepost/auth/guard"
	"dovepost/auth/passwdfile"
	"dovepost/auth/sqldb"
	"dovepost/cmd/internal/database"
	"dovepost/lookup/mysql"
)

// masterSettings are about users who may log in as others.
type masterSettings struct {
	separator   string
	masterFile  string
	masterQuery string
}

func (s *masterSettings) masterFlags(fs *pflag.FlagSet) {
	fs.StringVar(&s.separator, "auth_master_user_separator", "", "`character` between a user and the master user who logs in as him; empty: none")
	fs.StringVar(&s.masterFile, "auth_master_passdb_file", "", "passwords of the master users, a passwd-`file` with lines of user:{SCHEME}hash")
	fs.StringVar(&s.masterQuery, "auth_master_password_query", "", "the password_`query` of the master users, asked where the users are")
}

func (s *masterSettings) checkMasters() error {
	switch {
	case len(s.separator) > 1:
		return fmt.Errorf("auth_master_user_separator = %s: more than one character", s.separator)
	case s.separator != "" && !s.masters():
		return errors.New("auth_master_user_separator: there are no master users, see auth_master_passdb_file and auth_master_password_query")
	}
	return nil
}

func (s *masterSettings) masters() bool { return s.masterFile != "" || s.masterQuery != "" }

// openMasters opens the passdb of the master users: the file, then the query.
func (a *authd) openMasters(pools *database.Pools, scheme string) (passdb auth.Passdb, statements []database.Statement, err error) {
	var chain guard.Chain
	if a.masterFile != "" {
		file, err := passwdfile.Read(a.masterFile, "CRYPT")
		if err != nil {
			return nil, nil, fmt.Errorf("auth_master_passdb_file: %w", err)
		}
		chain = append(chain, file)
	}
	if a.masterQuery != "" {
		config, err := a.server()
		if err != nil {
			return nil, nil, err
		}
		pool := pools.Open(config)
		db, err := sqldb.Open(&sqldb.File{Path: "auth_master", PasswordQuery: a.masterQuery, DefaultPassScheme: scheme, ClearPassword: a.clearPassword}, pool)
		if err != nil {
			return nil, nil, err
		}
		chain = append(chain, db)
		statements = append(statements, database.Statement{Pool: pool, Prepare: db.Prepare})
	}
	return chain, statements, nil
}

// server is where the users are.
func (a *authd) server() (config mysql.Config, err error) {
	if len(a.sql) > 0 {
		file, err := sqldb.ReadFile(a.firstSQL())
		if err != nil {
			return config, err
		}
		return file.Config(), nil
	}
	file, err := mysql.ReadFile(a.mysql)
	if err != nil {
		return config, err
	}
	return file.Config(), nil
}

// logins is the verifier of everybody: v, and the master users.
func (a *authd) logins(v *guard.Verifier) auth.Verifier {
	m := &guard.Masters{Verifier: a.chain(a.rehasher.verifier(v), v), Separator: a.separator, Names: a.names, Passdb: a, Log: a.env.Log}
	if a.masters() {
		m.Masters = &guard.Verifier{Passdb: masterPassdb{a}, DefaultScheme: v.DefaultScheme,
			Workers: v.Workers, Verbose: v.Verbose, Log: v.Log}
	}
	var everyone auth.Verifier = m
	if a.clearPassword {
		everyone = withPassword{everyone}
	}
	if a.verboseDigits > 0 {
		everyone = traces{everyone, a.verboseDigits, a.env.Log}
	}
	return everyone
}

// masterPassdb asks for master users in the present state.
type masterPassdb struct{ a *authd }

func (m masterPassdb) LookupPass(ctx context.Context, r *auth.Request) (*auth.Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, m.a.lookupTimeout)
	defer cancel()
	return m.a.state.Load().masters.LookupPass(ctx, r)
}

// mastersPassdb answers PASS: of "user*master" it is the user, if there is such a master.
type mastersPassdb struct {
	auth.Passdb
	a *authd
}

func (p mastersPassdb) LookupPass(ctx context.Context, r *auth.Request) (*auth.Credentials, error) {
	if p.a.separator == "" {
		return p.Passdb.LookupPass(ctx, r)
	}
	user, master, found := strings.Cut(r.Login, p.a.separator)
	if !found {
		return p.Passdb.LookupPass(ctx, r)
	}
	of := *r
	of.Login = master
	name, err := p.a.names.CanonicalOf(&of, master)
	if err != nil || user == "" {
		return nil, fmt.Errorf("%w: %q names no user and master user", auth.ErrUnknownUser, r.Login)
	}
	of.User = name
	if _, err := (masterPassdb{p.a}).LookupPass(ctx, &of); err != nil {
		return nil, err
	}
	r.Login = user
	return p.Passdb.LookupPass(ctx, r)
}
