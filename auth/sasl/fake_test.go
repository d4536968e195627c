package sasl

import (
	"context"
	"errors"
	"testing"

	"dovepost/auth"
)

var errAway = errors.New("the database is away")

// rows is a Verifier over passwords, decoded, by name. A name without a row is
// unknown, "away" finds no database, and "closed" is disabled.
type rows map[string]string

func (rows) VerifyPlain(context.Context, *auth.Request, []byte) (*auth.Credentials, error) {
	return nil, errors.New("not asked for")
}

func (rows rows) LookupCredentials(_ context.Context, r *auth.Request, scheme string) (*auth.Credentials, error) {
	r.User = r.Login
	password, ok := rows[r.User]
	row := &auth.Credentials{User: r.User, Password: password}
	stored, _ := secret(row)
	switch {
	case r.User == "away":
		return nil, errAway
	case r.User == "closed":
		return nil, &auth.Refusal{Err: auth.ErrUserDisabled, Reason: "closed"}
	case !ok:
		return nil, auth.ErrUnknownUser
	case scheme == "":
		row.Password = ""
	case stored != scheme && stored != "PLAIN":
		return nil, auth.ErrPasswordMismatch
	}
	return row, nil
}

// mechanism returns the mechanism of that name.
func mechanism(t testing.TB, name string, o Options) auth.Mechanism {
	t.Helper()
	list, err := New(name, o)
	if err != nil {
		t.Fatal(err)
	}
	return list[0]
}

// outcome checks that exactly one of proof, refusal and temporary error has come.
func outcome(t *testing.T, name string, row *auth.Credentials, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || (row != nil) != (want == nil) {
		t.Errorf("it handles %s: %v, %v; want %v", name, row, err, want)
	}
	if want != nil && auth.Refused(err) == errors.Is(want, errAway) {
		t.Errorf("it handles %s: refused is %t for %v", name, auth.Refused(err), err)
	}
	if row != nil && row.Password != "" {
		t.Errorf("it handles %s: the row keeps its secret", name)
	}
}
