package sasl

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"dovepost/auth"
)

func TestExternal(t *testing.T) {
	v := rows{"alice": "{SHA512}x", "closed": ""}
	for _, tt := range []struct {
		name     string
		r        auth.Request
		response string
		err      error
		authzid  string
	}{
		{"a certificate", auth.Request{ClientCert: true, CertUsername: "alice"}, "", nil, ""},
		{"the authzid of the certificate", auth.Request{ClientCert: true, CertUsername: "alice"}, "alice", nil, ""},
		{"an authzid", auth.Request{ClientCert: true, CertUsername: "alice"}, "bob", nil, "bob"},
		{"a certificate that is not verified", auth.Request{CertUsername: "alice"}, "", auth.ErrPasswordMismatch, ""},
		{"a certificate without a name", auth.Request{ClientCert: true}, "", auth.ErrPasswordMismatch, ""},
		{"no certificate", auth.Request{}, "alice", auth.ErrPasswordMismatch, ""},
		{"an unknown user", auth.Request{ClientCert: true, CertUsername: "nobody"}, "", auth.ErrUnknownUser, ""},
		{"a disabled user", auth.Request{ClientCert: true, CertUsername: "closed"}, "", auth.ErrUserDisabled, ""},
		{"a database that is away", auth.Request{ClientCert: true, CertUsername: "away"}, "", errAway, ""},
		{"a NUL", auth.Request{ClientCert: true, CertUsername: "alice"}, "a\x00b", auth.ErrMalformed, ""},
	} {
		r := tt.r
		x := mechanism(t, "EXTERNAL", Options{UsernameFromCert: true}).Start(&r, v)
		if empty, _, err := x.Next(t.Context(), nil); empty == nil || len(empty) > 0 || err != nil {
			t.Errorf("it handles %s: %q, %v", tt.name, empty, err)
		}
		_, row, err := x.Next(t.Context(), []byte(tt.response))
		outcome(t, tt.name, row, err, tt.err)
		if r.Authzid != tt.authzid {
			t.Errorf("it handles %s: authzid %q", tt.name, r.Authzid)
		}
	}
}

func TestCertified(t *testing.T) {
	for _, tt := range []struct {
		name  string
		o     Options
		r     auth.Request
		login string // who is asked for; empty: nobody
	}{
		{"a certificate that counts for nothing", Options{}, auth.Request{ClientCert: true, CertUsername: "bob"}, "alice"},
		{"a name that overrides the client's", Options{UsernameFromCert: true}, auth.Request{ClientCert: true, CertUsername: "bob"}, "bob"},
		{"no certificate where none is needed", Options{UsernameFromCert: true}, auth.Request{}, "alice"},
		{"a name without a verified certificate", Options{UsernameFromCert: true}, auth.Request{CertUsername: "bob"}, "alice"},
		{"a certificate that is needed", Options{RequireCert: true}, auth.Request{ClientCert: true}, "alice"},
		{"none where one is needed", Options{RequireCert: true}, auth.Request{}, ""},
		{"one without a name where both are needed", Options{RequireCert: true, UsernameFromCert: true}, auth.Request{ClientCert: true}, ""},
	} {
		v := &asked{}
		r := tt.r
		_, row, err := mechanism(t, "PLAIN", tt.o).Start(&r, v).Next(t.Context(), []byte("\x00alice\x00secret"))
		if tt.login == "" {
			outcome(t, tt.name, row, err, auth.ErrPasswordMismatch)
			continue
		}
		if err != nil || v.r == nil || v.r.Login != tt.login {
			t.Errorf("it handles %s: %v, asked %+v; want %s", tt.name, err, v.r, tt.login)
		}
	}
}

func TestAnonymous(t *testing.T) {
	for _, tt := range []struct {
		name, response string
		err            error
	}{
		{"a trace", "me@example.com", nil},
		{"no trace", "", nil},
		{"a long trace", strings.Repeat("x", 5000), auth.ErrMalformed},
	} {
		r := &auth.Request{}
		x := mechanism(t, "ANONYMOUS", Options{Anonymous: "guest"}).Start(r, nil)
		x.Next(t.Context(), nil)
		_, row, err := x.Next(t.Context(), []byte(tt.response))
		outcome(t, tt.name, row, err, tt.err)
		if row == nil {
			continue
		}
		if _, ok := row.Fields.Get("anonymous"); !ok || row.User != "guest" || r.User != "guest" {
			t.Errorf("it handles %s: %+v", tt.name, row)
		}
	}
}

// tokens is a Tokens that knows a few.
type tokens struct{}

func (tokens) Validate(_ context.Context, r *auth.Request, token string) error {
	if owner, ok := strings.CutPrefix(token, "of-"); ok && owner == r.Login {
		return nil
	}
	switch token {
	case "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==", "good":
		return nil
	case "narrow":
		return auth.ErrUserDisabled
	case "away":
		return errAway
	}
	return auth.ErrPasswordMismatch
}

// A token and a certificate have to be of one user.
func TestTokenWithCertificate(t *testing.T) {
	v := rows{"alice": "!", "bob": "!"}
	for owner, want := range map[string]error{"alice": auth.ErrPasswordMismatch, "bob": nil} {
		r := &auth.Request{ClientCert: true, CertUsername: "bob"}
		x := mechanism(t, "XOAUTH2", Options{Tokens: advised{}, UsernameFromCert: true}).Start(r, v)
		response := []byte("user=alice\x01auth=Bearer of-" + owner + "\x01\x01")
		_, row, err := x.Next(t.Context(), response)
		if want != nil {
			_, row, err = x.Next(t.Context(), nil)
		}
		outcome(t, "a token of "+owner, row, err, want)
	}
}

// advised are tokens for the scope imap.
type advised struct {
	tokens
	openID string
}

func (a advised) Advice() (scope, openID string) { return "imap", a.openID }

// The first case of OAUTHBEARER is the example of RFC 7628 section 4.1.
func TestOAuth(t *testing.T) {
	v := rows{"user@example.com": "{SHA512}x", "alice": "!", "closed": "", "a,b": "!"}
	const open = "https://idp.example.com/.well-known/openid-configuration?a=b&c"
	for _, tt := range []struct {
		mech, name, response string
		err                  error
		status               string // of the error result, where there is one
	}{
		{"OAUTHBEARER", "the example", "n,a=user@example.com,\x01host=server.example.com\x01port=143\x01auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01", nil, ""},
		{"OAUTHBEARER", "a client that could bind the channel", "y,a=alice,\x01auth=bearer good\x01\x01", nil, ""},
		{"OAUTHBEARER", "a name with a comma", "n,a=a=2Cb,\x01auth=Bearer good\x01\x01", nil, ""},
		{"OAUTHBEARER", "a wrong token", "n,a=alice,\x01auth=Bearer bad\x01\x01", auth.ErrPasswordMismatch, "invalid_token"},
		{"OAUTHBEARER", "a token for something else", "n,a=alice,\x01auth=Bearer narrow\x01\x01", auth.ErrUserDisabled, "insufficient_scope"},
		{"OAUTHBEARER", "an unknown user", "n,a=nobody,\x01auth=Bearer good\x01\x01", auth.ErrUnknownUser, "invalid_token"},
		{"OAUTHBEARER", "a disabled user", "n,a=closed,\x01auth=Bearer good\x01\x01", auth.ErrUserDisabled, "insufficient_scope"},
		{"OAUTHBEARER", "an issuer that is away", "n,a=alice,\x01auth=Bearer away\x01\x01", errAway, ""},
		{"OAUTHBEARER", "a database that is away", "n,a=away,\x01auth=Bearer good\x01\x01", errAway, ""},
		{"OAUTHBEARER", "no user", "n,,\x01auth=Bearer good\x01\x01", auth.ErrMalformed, ""},
		{"OAUTHBEARER", "no token", "n,a=alice,\x01\x01\x01", auth.ErrMalformed, ""},
		{"OAUTHBEARER", "an empty token", "n,a=alice,\x01auth=Bearer \x01\x01", auth.ErrMalformed, ""},
		{"OAUTHBEARER", "another kind of token", "n,a=alice,\x01auth=Basic good\x01\x01", auth.ErrMalformed, ""},
		{"OAUTHBEARER", "two tokens", "n,a=alice,\x01auth=Bearer bad\x01auth=Bearer good\x01\x01", auth.ErrMalformed, ""},
		{"OAUTHBEARER", "channel binding", "p=tls-unique,a=alice,\x01auth=Bearer good\x01\x01", auth.ErrMalformed, ""},
		{"OAUTHBEARER", "a missing end", "n,a=alice,\x01auth=Bearer good\x01", auth.ErrMalformed, ""},
		{"OAUTHBEARER", "nothing", "", auth.ErrMalformed, ""},
		{"XOAUTH2", "Google's example", "user=alice\x01auth=Bearer good\x01\x01", nil, ""},
		{"XOAUTH2", "another order", "auth=BEARER good\x01user=alice\x01\x01", nil, ""},
		{"XOAUTH2", "a wrong token", "user=alice\x01auth=Bearer bad\x01\x01", auth.ErrPasswordMismatch, "401"},
		{"XOAUTH2", "a token for something else", "user=alice\x01auth=Bearer narrow\x01\x01", auth.ErrUserDisabled, "403"},
		{"XOAUTH2", "an unknown user", "user=nobody\x01auth=Bearer good\x01\x01", auth.ErrUnknownUser, "401"},
		{"XOAUTH2", "an issuer that is away", "user=alice\x01auth=Bearer away\x01\x01", errAway, ""},
		{"XOAUTH2", "no user", "auth=Bearer good\x01\x01", auth.ErrMalformed, ""},
		{"XOAUTH2", "two users", "user=alice\x01user=bob\x01auth=Bearer good\x01\x01", auth.ErrMalformed, ""},
		{"XOAUTH2", "no token", "user=alice\x01\x01", auth.ErrMalformed, ""},
		{"XOAUTH2", "a blank in the token", "user=alice\x01auth=Bearer go od\x01\x01", auth.ErrMalformed, ""},
		{"XOAUTH2", "a NUL", "user=alice\x00\x01auth=Bearer good\x01\x01", auth.ErrMalformed, ""},
	} {
		x := mechanism(t, tt.mech, Options{Tokens: advised{openID: open}}).Start(&auth.Request{}, v)
		if empty, _, err := x.Next(t.Context(), nil); empty == nil || len(empty) > 0 || err != nil {
			t.Errorf("it handles %s: %q, %v", tt.name, empty, err)
		}
		result, row, err := x.Next(t.Context(), []byte(tt.response))
		if tt.status != "" {
			var said map[string]string
			if json.Unmarshal(result, &said) != nil || err != nil || row != nil || said["status"] != tt.status || said["scope"] != "imap" || said["openid-configuration"] != open {
				t.Errorf("it handles %s: %s, %v, %v; want status %s", tt.name, result, row, err, tt.status)
			}
			result, row, err = x.Next(t.Context(), []byte("\x01"))
		}
		if result != nil {
			t.Errorf("it handles %s: %q at the end", tt.name, result)
		}
		outcome(t, tt.name, row, err, tt.err)
	}
}
