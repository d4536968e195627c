// Package sasl holds the server's side of SASL mechanisms (RFC 4422), one file each.
//
// A mechanism knows the messages of its exchange. It writes the names that the
// client claims into the request and leaves every decision to an auth.Verifier;
// it sees no database, no policy and no wire. What a client sends is bounded by
// the wire to 16 KiB a message.
//
// A message that breaks the rules of its mechanism is auth.ErrMalformed; one that
// does not prove what it claims is another refusal; and both come at the same step
// of the exchange, after the same work, whether the user exists or not.
package sasl

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"dovepost/auth"
)

// Options are what some mechanisms have to know. The zero value serves those with
// passwords.
type Options struct {
	Hostname string   // who asks, in the challenge of CRAM-MD5; empty: localhost
	Realms   []string // auth_realms: what DIGEST-MD5 offers
	SaltKey  []byte   // makes the salts that SCRAM shows where none is stored; nil: random

	// Work has f, which computes the keys of SCRAM for r, done when there is time for
	// it. An error is temporary. nil: at once.
	Work func(ctx context.Context, r *auth.Request, f func()) error

	Anonymous        string // auth_anonymous_username: who ANONYMOUS is
	UsernameFromCert bool   // auth_ssl_username_from_cert: the certificate's name, whatever the client says
	RequireCert      bool   // auth_ssl_require_client_cert: no exchange without a verified certificate

	Tokens Tokens // validates the tokens of OAUTHBEARER and XOAUTH2
}

// factories make all mechanisms that are known, by name. list is the whole list
// that is being offered.
var factories = map[string]func(o *Options, list []string) (auth.Mechanism, error){
	"PLAIN":       func(*Options, []string) (auth.Mechanism, error) { return plain{}, nil },
	"LOGIN":       func(*Options, []string) (auth.Mechanism, error) { return login{}, nil },
	"CRAM-MD5":    func(o *Options, _ []string) (auth.Mechanism, error) { return cram{o.Hostname}, nil },
	"DIGEST-MD5":  newDigest,
	"APOP":        newAPOP,
	"EXTERNAL":    newExternal,
	"ANONYMOUS":   newAnonymous,
	"XOAUTH2":     newXOAuth2,
	"OAUTHBEARER": newOAuthBearer,

	"SCRAM-SHA-1":        scramFactory("SCRAM-SHA-1", sha1.New, false),
	"SCRAM-SHA-1-PLUS":   scramFactory("SCRAM-SHA-1", sha1.New, true),
	"SCRAM-SHA-256":      scramFactory("SCRAM-SHA-256", sha256.New, false),
	"SCRAM-SHA-256-PLUS": scramFactory("SCRAM-SHA-256", sha256.New, true),
}

// New reads a list of mechanisms as Dovecot's auth_mechanisms has it, "plain
// login", and returns them in that order. Errors: an unknown name, none at all,
// or one that the options do not serve.
func New(list string, o Options) ([]auth.Mechanism, error) {
	if o.Hostname == "" {
		o.Hostname = "localhost"
	}
	if o.SaltKey == nil {
		o.SaltKey = NewSaltKey()
	}
	if o.Work == nil {
		o.Work = func(_ context.Context, _ *auth.Request, f func()) error { f(); return nil }
	}
	var names []string
	for _, name := range strings.FieldsFunc(list, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' }) {
		if name = strings.ToUpper(name); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no mechanism in %q", list)
	}
	var all []auth.Mechanism
	for _, name := range names {
		factory, ok := factories[name]
		if !ok {
			return nil, fmt.Errorf("unknown mechanism %q", name)
		}
		m, err := factory(&o, names)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if o.UsernameFromCert || o.RequireCert {
			m = certified{m, o.UsernameFromCert, o.RequireCert}
		}
		all = append(all, m)
	}
	return all, nil
}

// NewSaltKey returns a random key for Options.
func NewSaltKey() []byte {
	key := make([]byte, 32)
	rand.Read(key) // never fails: it ends the process instead
	return key
}

// hasNUL: no name and no password holds a NUL; where one appears, somebody hopes
// that another part of the system stops reading there.
func hasNUL(b []byte) bool { return bytes.IndexByte(b, 0) >= 0 }

// claim writes the names that a client claims into r.
func claim(r *auth.Request, authcid, authzid string) {
	r.Login = authcid
	if authzid != authcid {
		r.Authzid = authzid
	}
}

// secret takes the value off a row's password.
func secret(row *auth.Credentials) (scheme, value string) {
	scheme, value, _ = strings.Cut(strings.TrimPrefix(row.Password, "{"), "}")
	return scheme, value
}

// proven is a row as it leaves an exchange: nobody behind it needs the secret.
func proven(row *auth.Credentials) *auth.Credentials {
	without := *row
	without.Password = ""
	return &without
}

// errOver is an exchange that is asked once more after its end.
var errOver = errors.New("the exchange is over")
