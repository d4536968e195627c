package sasl

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"dovepost/auth"
)

// asked records what a mechanism asks its verifier.
type asked struct {
	r        *auth.Request
	password string
	n        int
}

func (a *asked) VerifyPlain(_ context.Context, r *auth.Request, password []byte) (*auth.Credentials, error) {
	a.r, a.password = r, string(password)
	a.n++
	return &auth.Credentials{User: r.Login}, nil
}

func (a *asked) LookupCredentials(context.Context, *auth.Request, string) (*auth.Credentials, error) {
	return nil, errors.New("not asked for")
}

// none is a missing initial response.
const none = "<none>"

func TestExchanges(t *testing.T) {
	tests := []struct {
		name, mech string
		responses  []string
		challenges []string // before the last response
		err        error    // at the last response
		login      string
		authzid    string
		password   string
	}{
		{"PLAIN with an initial response", "PLAIN", []string{"\x00alice\x00secret"}, nil, nil, "alice", "", "secret"},
		{"PLAIN without one", "PLAIN", []string{none, "\x00alice\x00secret"}, []string{""}, nil, "alice", "", "secret"},
		{"an authzid", "PLAIN", []string{"bob\x00alice\x00secret"}, nil, nil, "alice", "bob", "secret"},
		{"an authzid that is the authcid", "PLAIN", []string{"alice\x00alice\x00secret"}, nil, nil, "alice", "", "secret"},
		{"an empty password", "PLAIN", []string{"\x00alice\x00"}, nil, nil, "alice", "", ""},
		{"8-bit octets", "PLAIN", []string{"\x00al\xffce\x00\xc3\xbc"}, nil, nil, "al\xffce", "", "\xc3\xbc"},
		{"nothing at all", "PLAIN", []string{""}, nil, auth.ErrMalformed, "", "", ""},
		{"one NUL", "PLAIN", []string{"alice\x00secret"}, nil, auth.ErrMalformed, "", "", ""},
		{"three NULs", "PLAIN", []string{"\x00alice\x00sec\x00ret"}, nil, auth.ErrMalformed, "", "", ""},
		{"LOGIN", "LOGIN", []string{none, "alice", "secret"}, []string{"Username:", "Password:"}, nil, "alice", "", "secret"},
		{"the name as initial response", "LOGIN", []string{"alice", "secret"}, []string{"Password:"}, nil, "alice", "", "secret"},
		{"an empty initial response", "LOGIN", []string{"", "alice", "secret"}, []string{"Username:", "Password:"}, nil, "alice", "", "secret"},
		{"an empty name", "LOGIN", []string{none, ""}, []string{"Username:"}, auth.ErrMalformed, "", "", ""},
		{"an empty password", "LOGIN", []string{"alice", ""}, []string{"Password:"}, nil, "alice", "", ""},
		{"a NUL in the name", "LOGIN", []string{"a\x00b"}, nil, auth.ErrMalformed, "", "", ""},
		{"a NUL in the password", "LOGIN", []string{"alice", "a\x00b"}, []string{"Password:"}, auth.ErrMalformed, "alice", "", ""},
	}
	for _, tt := range tests {
		mechs, err := New(tt.mech, Options{})
		if err != nil {
			t.Fatal(err)
		}
		r, v := &auth.Request{}, &asked{}
		x := mechs[0].Start(r, v)
		for i, response := range tt.responses {
			var in []byte
			if response != none {
				in = []byte(response)
			}
			challenge, row, err := x.Next(t.Context(), in)
			if i < len(tt.responses)-1 {
				if err != nil || row != nil || challenge == nil || !bytes.Equal(challenge, []byte(tt.challenges[i])) {
					t.Errorf("it handles %s: step %d: %q, %v, %v; want %q", tt.name, i, challenge, row, err, tt.challenges[i])
				}
				continue
			}
			if !errors.Is(err, tt.err) || (row != nil) != (tt.err == nil) {
				t.Errorf("it handles %s: %v, %v; want error %v", tt.name, row, err, tt.err)
			}
		}
		if r.Login != tt.login || r.Authzid != tt.authzid || v.password != tt.password {
			t.Errorf("it handles %s: login %q, authzid %q, password %q; want %q, %q, %q", tt.name, r.Login, r.Authzid, v.password, tt.login, tt.authzid, tt.password)
		}
		if want := map[bool]int{true: 1, false: 0}[tt.err == nil]; v.n != want {
			t.Errorf("it handles %s: the verifier was asked %d times, want %d", tt.name, v.n, want)
		}
	}
}

func TestNew(t *testing.T) {
	tests := []struct{ name, list, want string }{
		{"the seed's list", "plain login", "PLAIN LOGIN"},
		{"the order of the list", "LOGIN, plain", "LOGIN PLAIN"},
		{"repetition", "plain plain", "PLAIN"},
		{"an unknown name", "plain gssapi", ""},
		{"an empty list", " ", ""},
		{"channel binding", "SCRAM-SHA-256 scram-sha-256-plus scram-sha-1", "SCRAM-SHA-256 SCRAM-SHA-256-PLUS SCRAM-SHA-1"},
		{"the rest of those with passwords", "cram-md5 digest-md5 apop", "CRAM-MD5 DIGEST-MD5 APOP"},
		{"ANONYMOUS without anybody", "plain anonymous", ""},
		{"EXTERNAL without names from certificates", "plain external", ""},
		{"tokens without anybody who validates them", "plain xoauth2", ""},
	}
	for _, tt := range tests {
		mechs, err := New(tt.list, Options{})
		var names []string
		for _, m := range mechs {
			names = append(names, m.Name())
		}
		if got := strings.Join(names, " "); got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("it handles %s: New(%q) = %q, %v; want %q", tt.name, tt.list, got, err, tt.want)
		}
	}
}

// FuzzPlain checks that what is verified are whole parts of what was said.
func FuzzPlain(f *testing.F) {
	f.Add([]byte("\x00alice\x00secret"))
	f.Add([]byte("bob\x00alice\x00\x00"))
	f.Fuzz(func(t *testing.T, response []byte) {
		r, v := &auth.Request{}, &asked{}
		_, row, err := plain{}.Start(r, v).Next(t.Context(), append([]byte{}, response...))
		if err != nil {
			if v.n != 0 || row != nil {
				t.Fatalf("%q is refused, but was verified", response)
			}
			return
		}
		authzid := r.Authzid
		if authzid == "" && !bytes.HasPrefix(response, []byte{0}) {
			authzid = r.Login
		}
		if got := authzid + "\x00" + r.Login + "\x00" + v.password; got != string(response) {
			t.Fatalf("%q was taken for %q", response, got)
		}
	})
}
