package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"dovepost/auth"
)

// Masters is an auth.Verifier that lets master users log in as other users, by
// "user*master" where a separator is set, and by PLAIN's authzid: with the master's
// own password, which is looked up among the master users alone.
//
// The user must exist in the passdb. His password does not matter, but the conditions
// of his row do. Everybody else's login is the embedded Verifier's.
type Masters struct {
	auth.Verifier
	Separator string        // auth_master_user_separator; empty: names are taken as they are
	Masters   auth.Verifier // of the master users' passwords; nil: there are no master users
	Names     *Names        // as for users; nil: names are taken as they are
	Passdb    auth.Passdb   // of all users
	Log       *slog.Logger
}

var errNoMaster = fmt.Errorf("%w: a master login, and there are no master users", auth.ErrUnknownUser)

// split returns the request of the master user, and whom he wants to be: nil for a
// login that is nobody else's. An error is a refusal.
func (m *Masters) split(r *auth.Request) (master *auth.Request, err error) {
	user, name, target := "", r.Login, r.Authzid
	if m.Separator != "" {
		var found bool
		if user, name, found = strings.Cut(r.Login, m.Separator); !found {
			name = r.Login
		} else if target == "" {
			if target = user; user == "" {
				return nil, fmt.Errorf("%w: a master login for nobody", auth.ErrUnknownUser)
			}
		}
	}
	if target == "" {
		return nil, nil
	}
	of := *r
	of.Login, of.Authzid = name, ""
	if of.User, err = m.canonical(&of, name); err != nil {
		return nil, fmt.Errorf("%w: %v", auth.ErrUnknownUser, err)
	}
	r.Login = name
	r.User = of.User
	switch {
	case target == of.User:
		r.Authzid = "" // as himself
		return nil, nil
	case m.Masters == nil:
		return nil, errNoMaster
	}
	if of.LoginUser, err = m.canonical(&of, target); err != nil {
		return nil, fmt.Errorf("%w: %v", auth.ErrUnknownUser, err)
	}
	return &of, nil
}

func (m *Masters) canonical(r *auth.Request, name string) (string, error) {
	if m.Names == nil {
		return name, nil
	}
	return m.Names.CanonicalOf(r, name)
}

// VerifyPlain is auth.Verifier's. After a master login r.MasterUser is who has proven
// to be himself, and r.User and the row are the user's.
func (m *Masters) VerifyPlain(ctx context.Context, r *auth.Request, password []byte) (*auth.Credentials, error) {
	return m.verify(ctx, r, func(v auth.Verifier, r *auth.Request) (*auth.Credentials, error) {
		return v.VerifyPlain(ctx, r, password)
	})
}

// LookupCredentials is auth.Verifier's: the password is the master's, the rest of the
// row the user's.
func (m *Masters) LookupCredentials(ctx context.Context, r *auth.Request, scheme string) (*auth.Credentials, error) {
	return m.verify(ctx, r, func(v auth.Verifier, r *auth.Request) (*auth.Credentials, error) {
		return v.LookupCredentials(ctx, r, scheme)
	})
}

func (m *Masters) verify(ctx context.Context, r *auth.Request, ask func(auth.Verifier, *auth.Request) (*auth.Credentials, error)) (*auth.Credentials, error) {
	master, err := m.split(r)
	if err != nil {
		m.log().Info("auth refused", "why", err.Error(), "login", r.Login, "service", r.Service, "rip", r.RemoteIP)
		return nil, err
	}
	if master == nil {
		return ask(m.Verifier, r)
	}
	row, err := ask(m.Masters, master)
	r.User, r.Stale = master.User, master.Stale
	switch {
	case err != nil:
		return nil, err
	case row.NoPassword:
		m.log().Error("a master user without a password is refused", "user", row.User)
		return nil, auth.ErrPasswordMismatch
	}
	as, err := m.become(ctx, r, row.User, master.LoginUser)
	if err != nil {
		return nil, err
	}
	as.Password = row.Password
	for _, field := range row.Fields {
		if _, there := as.Fields.Get(field.Name); !there && field.Name != "allow_nets" && field.Name != "allow_real_nets" {
			as.Fields = append(as.Fields, field)
		}
	}
	return as, nil
}

// become makes r the login of the user for the master, and returns the user's row.
func (m *Masters) become(ctx context.Context, r *auth.Request, master, user string) (*auth.Credentials, error) {
	r.MasterUser, r.User, r.Authzid = master, user, ""
	row, err := m.Passdb.LookupPass(ctx, r)
	switch {
	case errors.Is(err, auth.ErrUnknownUser), auth.Refused(err):
		m.log().Info("auth refused", "why", "a master user wants to be an unknown user", "user", user, "master", master, "service", r.Service, "rip", r.RemoteIP)
		return nil, auth.ErrAuthzFailed
	case err != nil:
		return nil, err
	}
	if why := checkRow(r, row); why != "" {
		m.log().Info("auth refused", "why", why, "user", user, "master", master, "service", r.Service, "rip", r.RemoteIP)
		return nil, auth.ErrAuthzFailed
	}
	r.User = row.User
	m.log().Info("master user logs in", "user", row.User, "master", master, "service", r.Service, "rip", r.RemoteIP)
	as := *row
	as.NoPassword = false
	as.Fields = append(auth.Fields(nil), row.Fields...)
	return &as, nil
}

func (m *Masters) log() *slog.Logger {
	if m.Log != nil {
		return m.Log
	}
	return slog.Default()
}

// Chain is an auth.Passdb of several, asked in order: the first that knows the user
// answers. A failure of one is the answer only if none of the rest knows him.
type Chain []auth.Passdb

// LookupPass is auth.Passdb's.
func (c Chain) LookupPass(ctx context.Context, r *auth.Request) (*auth.Credentials, error) {
	var failure error = auth.ErrUnknownUser
	for _, passdb := range c {
		row, err := passdb.LookupPass(ctx, r)
		switch {
		case err == nil:
			return row, nil
		case !errors.Is(err, auth.ErrUnknownUser):
			failure = err
		}
	}
	return nil, failure
}
