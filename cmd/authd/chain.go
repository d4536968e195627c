package main

import (
	"context"
	"errors"
	"iter"

	"dovepost/auth"
	"dovepost/auth/guard"
	"dovepost/auth/sqldb"
	"dovepost/cmd/internal/database"
)

// moreUsers opens the files of --sql after the first.
func (a *authd) moreUsers(s *state) (statements []database.Statement, err error) {
	s.all = []*sqldb.DB{s.DB}
	for _, file := range a.sql[min(1, len(a.sql)):] {
		users, err := s.pools.Users(database.Files{SQL: file, ClearPassword: a.clearPassword}, sqldb.SeedOptions{})
		if err != nil {
			return nil, err
		}
		s.all = append(s.all, users.DB)
		statements = append(statements, users.Statements()...)
	}
	return statements, nil
}

// firstSQL is the file whose server the other statements of the settings are asked of.
func (a *authd) firstSQL() string {
	if len(a.sql) == 0 {
		return ""
	}
	return a.sql[0]
}

// chain is first, and a verifier like v for each further file of --sql.
func (a *authd) chain(first auth.Verifier, v *guard.Verifier) auth.Verifier {
	if len(a.sql) < 2 {
		return first
	}
	all := guard.Verifiers{first}
	for i := range a.sql[1:] {
		all = append(all, &guard.Verifier{Passdb: numbered{a, i + 1}, Names: v.Names, DefaultScheme: v.DefaultScheme,
			Workers: v.Workers, Verbose: v.Verbose, Log: v.Log, Verified: v.Verified})
	}
	return all
}

// numbered is the passdb of one file of the present state.
type numbered struct {
	a *authd
	n int
}

func (n numbered) LookupPass(ctx context.Context, r *auth.Request) (*auth.Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, n.a.lookupTimeout)
	defer cancel()
	return n.a.state.Load().all[n.n].LookupPass(ctx, r)
}

// inOrder asks all until one knows the user. A failure of one is the answer if none of the
// rest knows him.
func inOrder[T any](all []*sqldb.DB, r *auth.Request, ask func(*sqldb.DB, *auth.Request) (*T, error)) (*T, error) {
	asked, failure := *r, error(nil)
	for _, db := range all {
		*r = asked
		found, err := ask(db, r)
		switch {
		case err == nil:
			return found, nil
		case failure == nil || errors.Is(failure, auth.ErrUnknownUser):
			failure = err
		}
	}
	return nil, failure
}

// LookupPass, LookupUser and Users ask the databases of the present state.

func (a *authd) LookupPass(ctx context.Context, r *auth.Request) (*auth.Credentials, error) {
	return inOrder(a.state.Load().all, r, func(db *sqldb.DB, r *auth.Request) (*auth.Credentials, error) {
		ctx, cancel := context.WithTimeout(ctx, a.lookupTimeout)
		defer cancel()
		return db.LookupPass(ctx, r)
	})
}

func (a *authd) LookupUser(ctx context.Context, r *auth.Request) (*auth.User, error) {
	return inOrder(a.state.Load().all, r, func(db *sqldb.DB, r *auth.Request) (*auth.User, error) {
		ctx, cancel := context.WithTimeout(ctx, a.lookupTimeout)
		defer cancel()
		return db.LookupUser(ctx, r)
	})
}

// Users lists those of each database, in order, one that is in two of them twice.
func (a *authd) Users(ctx context.Context, mask string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, db := range a.state.Load().all {
			for name, err := range db.Users(ctx, mask) {
				if !yield(name, err) || err != nil {
					return
				}
			}
		}
	}
}
