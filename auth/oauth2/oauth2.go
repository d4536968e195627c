// Package oauth2 validates bearer tokens as Dovecot's oauth2 passdb does: by asking
// the server that has issued them (RFC 7662, or a tokeninfo or userinfo endpoint),
// or by verifying JWTs (RFC 7519) with keys from a directory.
//
// A token is good when the server or the signature says so, when it names the user,
// has the scope, is of an issuer that is expected, and of now. Only an answer that
// says so refuses it: a server that does not answer, or answers otherwise than it
// should, is a temporary error, and so is a key that cannot be read.
//
// Where it differs from Dovecot 2.3 it is stricter: all of several scopes are
// needed, client_id has to be in the aud of a JWT, an explicit active_attribute has
// to be there, and redirects are not followed. Tokens are in no error and no log.
package oauth2

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dovepost/auth"
)

// MaxToken is the longest token that is looked at, in octets: more than one SASL
// response of a mail client can carry.
const MaxToken = 16 << 10

// Validator validates tokens. It is safe for concurrent use.
type Validator struct {
	s      *Settings
	format format
	client *http.Client
	now    func() time.Time
}

// New returns a Validator. Errors: TLS files that cannot be used.
func New(s *Settings) (*Validator, error) {
	f, err := compileFormat(s.UsernameFormat)
	if err != nil {
		return nil, fmt.Errorf("username_format: %w", err)
	}
	config, err := s.tls()
	if err != nil {
		return nil, err
	}
	return &Validator{s: s, format: f, now: time.Now, client: &http.Client{
		Timeout: s.Timeout,
		// Whoever is redirected to would get the token.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, ForceAttemptHTTP2: true,
			MaxConnsPerHost: s.MaxConnections, MaxIdleConnsPerHost: s.MaxConnections, IdleConnTimeout: s.MaxIdle,
			MaxResponseHeaderBytes: maxAnswer, TLSHandshakeTimeout: s.Timeout,
		},
	}}, nil
}

func (s *Settings) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	files := []string{}
	if s.CAFile != "" {
		files = append(files, s.CAFile)
	}
	if s.CADir != "" {
		more, err := filepath.Glob(filepath.Join(s.CADir, "*"))
		if err != nil {
			return nil, fmt.Errorf("tls_ca_cert_dir: %w", err)
		}
		files = append(files, more...)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("CA certificates: %w", err)
		}
		if config.RootCAs == nil {
			config.RootCAs = x509.NewCertPool()
		}
		if !config.RootCAs.AppendCertsFromPEM(text) && path == s.CAFile {
			return nil, fmt.Errorf("tls_ca_cert_file: no certificate in %s", path)
		}
	}
	if s.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("tls_cert_file: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// Validate returns nil when token is good and is user's, whose name is canonical; r
// says who asks. Errors: auth.ErrPasswordMismatch, auth.ErrUserDisabled where the
// token lacks the scope, or temporary.
func (v *Validator) Validate(ctx context.Context, r *auth.Request, user, token string) error {
	if token == "" || len(token) > MaxToken {
		return refusal("no token, or a very long one")
	}
	ctx, cancel := context.WithTimeout(ctx, v.s.Timeout)
	defer cancel()
	fields, err := v.fields(ctx, r, token)
	if err != nil {
		return err
	}
	return v.judge(fields, user)
}

// Advice is what a client whose token is refused may do about it: scope and
// openid_configuration_url of the settings.
func (v *Validator) Advice() (scope, openID string) {
	return strings.Join(v.s.Scope, " "), v.s.OpenID
}

// fields finds out what the token says. It is genuine when there is no error.
func (v *Validator) fields(ctx context.Context, r *auth.Request, token string) (fields, error) {
	if v.s.Mode == "local" {
		return v.verify(token)
	}
	if v.s.TokeninfoURL == "" {
		return v.introspect(ctx, r, token)
	}
	f, err := v.tokeninfo(ctx, r, token)
	if err != nil || v.s.IntrospectionURL == "" {
		return f, err
	}
	complete := f.has(v.s.UsernameAttribute) && (v.s.ActiveAttribute == "" || f.has(v.s.ActiveAttribute))
	if complete && !v.s.ForceIntrospection {
		return f, nil
	}
	if err := v.active(f); err != nil {
		return nil, err
	}
	more, err := v.introspect(ctx, r, token)
	if err != nil {
		return nil, err
	}
	for name, values := range f { // what introspection says counts
		if !more.has(name) {
			more[name] = values
		}
	}
	return more, nil
}

// judge decides whether a genuine token lets user in.
func (v *Validator) judge(f fields, user string) error {
	if err := v.active(f); err != nil {
		return err
	}
	if err := v.times(f); err != nil {
		return err
	}
	if kind := f.one("token_type"); kind != "" && !strings.EqualFold(kind, "bearer") {
		return refusal("not a bearer token")
	}
	if iss := f.one("iss"); len(v.s.Issuers) > 0 && iss != "" && !slices.Contains(v.s.Issuers, iss) {
		return refusal("the token is of another issuer")
	}
	names := f[v.s.UsernameAttribute]
	if len(names) == 0 {
		return fmt.Errorf("the token has no %s", v.s.UsernameAttribute) // as in Dovecot: somebody has set it wrong
	}
	if len(names) > 1 || v.format.expand(names[0]) != v.format.expand(user) {
		return refusal("the token is somebody else's")
	}
	has := f.words("scope")
	if !f.has("scope") {
		has = f.words("aud")
	}
	for _, scope := range v.s.Scope {
		if !slices.Contains(has, scope) {
			return fmt.Errorf("%w: the token lacks the scope %s", auth.ErrUserDisabled, scope)
		}
	}
	return nil
}

func (v *Validator) active(f fields) error {
	if v.s.ActiveAttribute == "" || v.s.ActiveValue == "" || !v.s.activeSet && !f.has(v.s.ActiveAttribute) {
		return nil
	}
	if f.one(v.s.ActiveAttribute) != v.s.ActiveValue {
		return refusal("the token is not active")
	}
	return nil
}

// refusal is a proven no.
func refusal(why string) error { return fmt.Errorf("%w: %s", auth.ErrPasswordMismatch, why) }

// addrPort words an address for send_auth_headers.
func addrPort(ip netip.Addr, port uint16) string { return netip.AddrPortFrom(ip, port).String() }

var errAnswer = errors.New("the token server's answer cannot be understood")
