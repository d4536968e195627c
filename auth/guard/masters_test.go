package guard

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"dovepost/auth"
)

// rowsByName is a passdb; "away" is not to be reached.
type rowsByName map[string]*auth.Credentials

func (p rowsByName) LookupPass(_ context.Context, r *auth.Request) (*auth.Credentials, error) {
	if r.User == "away@a" {
		return nil, errors.New("away")
	}
	row := p[r.User]
	if row == nil {
		return nil, auth.ErrUnknownUser
	}
	found := *row
	return &found, nil
}

// a master login handles every way to ask for it.
func TestMasters(t *testing.T) {
	names, err := NewNames("a", "", "", "%Lu")
	if err != nil {
		t.Fatal(err)
	}
	users := rowsByName{
		"alice@a": {User: "alice@a", Password: "{PLAIN}alice-secret", Fields: auth.Fields{{Name: "host", Value: "h"}}},
		"nets@a":  {User: "nets@a", Password: "{PLAIN}x", Fields: auth.Fields{{Name: "allow_nets", Value: "192.0.2.0/24"}}},
		"root@a":  {User: "root@a", Password: "{PLAIN}user-secret"},
	}
	masters := rowsByName{
		"root@a": {User: "root@a", Password: "{PLAIN}root-secret", Fields: auth.Fields{{Name: "nodelay"}}},
		"open@a": {User: "open@a", NoPassword: true}, "empty@a": {User: "empty@a", Password: "{PLAIN}"},
		"far@a": {User: "far@a", Password: "{PLAIN}far-secret", Fields: auth.Fields{{Name: "allow_nets", Value: "192.0.2.0/24"}}},
	}
	m := &Masters{Verifier: &Verifier{Passdb: users, Names: names}, Separator: "*", Names: names, Passdb: users,
		Masters: &Verifier{Passdb: Chain{rowsByName{}, masters}, Names: names}}
	none := &Masters{Verifier: m.Verifier, Names: names, Passdb: users}
	for _, tt := range []struct {
		name                     string
		m                        *Masters
		login, authzid, password string
		want                     string // user master typed, or the error
	}{
		{"an ordinary login", m, "Alice@a", "", "alice-secret", "alice@a  Alice@a"},
		{"a master user", m, "Alice*Root", "", "root-secret", "alice@a root@a Root"},
		{"authzid", m, "root@a", "alice@a", "root-secret", "alice@a root@a root@a"},
		{"authzid of himself in other letters", m, "Alice@a", "alice@a", "alice-secret", "alice@a  Alice@a"},
		{"a master as himself has the user's password", m, "root@a", "", "user-secret", "root@a  root@a"},
		{"a master as himself has not the master's", m, "root@a", "", "root-secret", "password mismatch"},
		{"as himself with a separator", m, "root@a*root@a", "", "user-secret", "root@a  root@a"},
		{"the user's password", m, "alice*root", "", "alice-secret", "password mismatch"},
		{"the master's password as a user", m, "alice*root", "", "user-secret", "password mismatch"},
		{"an unknown master", m, "alice*nobody", "", "root-secret", "unknown user"},
		{"a user who is no master", m, "root*alice", "", "alice-secret", "unknown user"},
		{"an unknown user", m, "nobody*root", "", "root-secret", "authorization failed"},
		{"an unknown user, and a wrong password", m, "nobody*root", "", "x", "password mismatch"},
		{"nobody", m, "*root", "", "root-secret", "unknown user"},
		{"no master", m, "alice*", "", "root-secret", "unknown user"},
		{"nothing but a separator", m, "*", "", "", "unknown user"},
		{"two separators", m, "alice*root*root", "", "root-secret", "unknown user"},
		{"a master without a password", m, "alice*open", "", "", "password mismatch"},
		{"a master with an empty password", m, "alice*empty", "", "", "password mismatch"},
		{"a master from elsewhere", m, "alice*far", "", "far-secret", "password mismatch"},
		{"a user who may not log in from here", m, "nets*root", "", "root-secret", "authorization failed"},
		{"a database that is away", m, "away*root", "", "root-secret", "away"},
		{"no masters", none, "alice@a", "nets@a", "alice-secret", "unknown user"},
		{"no masters and no separator", none, "alice*root", "", "root-secret", "unknown user"},
		{"no masters, authzid of himself", none, "alice@a", "alice@a", "alice-secret", "alice@a  alice@a"},
	} {
		r := &auth.Request{Login: tt.login, Authzid: tt.authzid, Service: "imap", Mech: "PLAIN"}
		row, err := tt.m.VerifyPlain(t.Context(), r, []byte(tt.password))
		var got string
		if err == nil {
			got = fmt.Sprint(row.User, " ", r.MasterUser, " ", r.Login)
			if row.User != r.User {
				t.Errorf("%s: the row is of %s, the request of %s", tt.name, row.User, r.User)
			}
		} else {
			for got = err.Error(); errors.Unwrap(err) != nil; got = err.Error() {
				err = errors.Unwrap(err)
			}
		}
		if got != tt.want {
			t.Errorf("it handles %s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// the credentials of a master login are the master's, everything else the user's.
func TestMastersCredentials(t *testing.T) {
	users := rowsByName{"alice": {User: "Alice", Password: "{PLAIN}a", Fields: auth.Fields{{Name: "host", Value: "h"}}, Userdb: auth.Fields{{Name: "home", Value: "/h"}}}}
	masters := rowsByName{"root": {User: "root", Password: "{PLAIN}r", Fields: auth.Fields{{Name: "host", Value: "no"}, {Name: "nodelay"}}}}
	m := &Masters{Verifier: &Verifier{Passdb: users}, Passdb: users, Masters: &Verifier{Passdb: masters}}
	r := &auth.Request{Login: "root", Authzid: "alice"}
	row, err := m.LookupCredentials(t.Context(), r, "SCRAM-SHA-256")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(row.User, row.Password, len(row.Fields), row.Userdb), "Alice{PLAIN}r2 [{home /h false}]"; got != want || r.MasterUser != "root" {
		t.Errorf("got %s, %+v; want %s", got, r, want)
	}
	if host, _ := row.Fields.Get("host"); host != "h" {
		t.Errorf("host=%s", host)
	}
}

// PASS is refused to who may not log in from there.
func TestAllowed(t *testing.T) {
	p := Allowed{rowsByName{"a": {User: "a", Fields: auth.Fields{{Name: "allow_nets", Value: "10.0.0.0/8"}}}, "b": {User: "b", Fields: auth.Fields{{Name: "allow_nets", Value: "local"}}}}}
	if _, err := p.LookupPass(t.Context(), &auth.Request{User: "a"}); !errors.Is(err, auth.ErrPasswordMismatch) {
		t.Errorf("a: %v", err)
	}
	if row, err := p.LookupPass(t.Context(), &auth.Request{User: "b"}); err != nil || row.User != "b" {
		t.Errorf("b: %v, %v", row, err)
	}
}

// auth_username_format has all variables.
func TestUsernameFormat(t *testing.T) {
	r := &auth.Request{Service: "imap", Login: "Al+x@Example.COM"}
	for format, want := range map[string]string{"": "Al+x@Example.COM", "%Lu": "al+x@example.com", "%n": "Al+x", "%Ln@%{if;%s;eq;imap;i;o}.%Ld": "al+x@i.example.com",
		"%3Lu": "al+", "%{sha1;truncate=16:user}": "", "%{orig_user}|%s": "Al+x@Example.COM|imap"} {
		names, err := NewNames("", "", "", format)
		if err != nil {
			t.Errorf("%s: %v", format, err)
			continue
		}
		if got, err := names.CanonicalOf(r, r.Login); err != nil || got != want && want != "" || r.User != "" {
			t.Errorf("%s: got %q, %v; want %q", format, got, err, want)
		}
	}
	for _, format := range []string{"%w", "%z", "%{user", "%{md5:password}"} {
		if _, err := NewNames("", "", "", format); err == nil {
			t.Errorf("%s is taken", format)
		}
	}
}
