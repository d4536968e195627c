package sasl

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"dovepost/auth"
)

// Tokens decides about bearer tokens.
type Tokens interface {
	// Validate returns nil if token has been issued for r.Login, is valid, and good
	// for mail. Errors: auth.ErrUserDisabled where it lacks the scope, another
	// refusal, or temporary. No error holds the token.
	Validate(ctx context.Context, r *auth.Request, token string) error

	// Advice is what a client whose token is refused is told: the scope that it has to
	// ask the authorization server for, and the openid_configuration_url where it
	// finds that server. Either may be empty.
	Advice() (scope, openID string)
}

// oauth is OAUTHBEARER, RFC 7628, and XOAUTH2, Google's older form of it. The token
// says who the user is; his row has to exist, and its password plays no part.
type oauth struct {
	name  string
	parse func(message string) (user, token string, err error)
	o     *Options
}

func newXOAuth2(o *Options, _ []string) (auth.Mechanism, error) {
	return newOAuth(oauth{"XOAUTH2", parseXOAuth2, o})
}

func newOAuthBearer(o *Options, _ []string) (auth.Mechanism, error) {
	return newOAuth(oauth{"OAUTHBEARER", parseBearer, o})
}

func newOAuth(m oauth) (auth.Mechanism, error) {
	if m.o.Tokens == nil {
		return nil, errors.New("nobody validates tokens without --oauth2")
	}
	return m, nil
}

func (m oauth) Name() string    { return m.name }
func (m oauth) Flags() []string { return []string{"plaintext"} }

func (m oauth) Start(r *auth.Request, v auth.Verifier) auth.Exchange {
	return &oauthExchange{m: m, r: r, v: v}
}

type oauthExchange struct {
	m       oauth
	r       *auth.Request
	v       auth.Verifier
	refusal error // told already, in the mechanism's own words
}

// Next takes the token. A refusal is told as JSON first, to which the client has to
// say something before it is final. Errors: auth.ErrMalformed, those of Tokens, the
// verifier's.
func (x *oauthExchange) Next(ctx context.Context, response []byte) ([]byte, *auth.Credentials, error) {
	switch {
	case x.refusal != nil:
		return nil, nil, x.refusal
	case response == nil:
		return []byte{}, nil, nil
	case hasNUL(response):
		return nil, nil, auth.ErrMalformed
	}
	user, token, err := x.m.parse(string(response))
	if err != nil {
		return nil, nil, err
	}
	if x.m.o.UsernameFromCert && x.r.ClientCert && x.r.CertUsername != "" {
		user = x.r.CertUsername // and the token has to be his
	}
	claim(x.r, user, "")
	err = x.m.o.Tokens.Validate(ctx, x.r, token)
	if err == nil {
		var row *auth.Credentials
		if row, err = x.v.LookupCredentials(ctx, x.r, ""); err == nil {
			x.r.Token = token
			return nil, row, nil
		}
	}
	if !auth.Refused(err) {
		return nil, nil, err
	}
	x.refusal = err
	return x.m.failure(err), nil, nil
}

// failure is the error result of RFC 7628 3.2.2, in Dovecot's words.
func (m oauth) failure(err error) []byte {
	result := struct {
		Status  string `json:"status"`
		Schemes string `json:"schemes,omitempty"`
		Scope   string `json:"scope"`
		OpenID  string `json:"openid-configuration,omitempty"`
	}{Status: "invalid_token"}
	result.Scope, result.OpenID = m.o.Tokens.Advice()
	disabled := errors.Is(err, auth.ErrUserDisabled) || errors.Is(err, auth.ErrPassExpired)
	switch {
	case m.name == "XOAUTH2" && disabled:
		result.Status, result.Schemes = "403", "bearer"
	case m.name == "XOAUTH2":
		result.Status, result.Schemes = "401", "bearer"
	case disabled:
		result.Status = "insufficient_scope"
	}
	if result.Scope == "" {
		result.Scope = "mail"
	}
	b, _ := json.Marshal(result) // strings alone: it cannot fail
	return b
}

// parseBearer reads OAUTHBEARER's response: a gs2-header with the user as authzid,
// then key=value pairs of which auth counts, a ^A behind each and one at the end.
func parseBearer(message string) (user, token string, err error) {
	head, rest, err := parseGS2(message)
	if err != nil || head.flag == 'p' || head.authzid == "" {
		return "", "", auth.ErrMalformed
	}
	rest, ok1 := strings.CutPrefix(rest, "\x01")
	rest, ok2 := strings.CutSuffix(rest, "\x01\x01")
	if !ok1 || !ok2 {
		return "", "", auth.ErrMalformed
	}
	token, err = bearer(strings.Split(rest, "\x01"))
	return head.authzid, token, err
}

// parseXOAuth2 reads user=NAME ^A auth=Bearer TOKEN ^A ^A.
func parseXOAuth2(message string) (user, token string, err error) {
	fields := strings.Split(strings.TrimRight(message, "\x01"), "\x01")
	for _, f := range fields {
		if name, ok := strings.CutPrefix(f, "user="); ok {
			if user != "" || name == "" {
				return "", "", auth.ErrMalformed
			}
			user = name
		}
	}
	if user == "" {
		return "", "", auth.ErrMalformed
	}
	token, err = bearer(fields)
	return user, token, err
}

// bearer finds the one auth field. RFC 6750 2.1.
func bearer(fields []string) (token string, err error) {
	for _, f := range fields {
		value, ok := strings.CutPrefix(f, "auth=")
		if !ok {
			continue
		}
		kind, rest, _ := strings.Cut(value, " ")
		if token != "" || !strings.EqualFold(kind, "bearer") {
			return "", auth.ErrMalformed
		}
		token = strings.Trim(rest, " ")
		if !isToken(token) {
			return "", auth.ErrMalformed
		}
	}
	if token == "" {
		return "", auth.ErrMalformed
	}
	return token, nil
}

// isToken: b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"=".
// Other visible characters of ASCII do no harm, and some issuers use them.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
