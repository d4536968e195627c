package sasl

import (
	"context"
	"errors"

	"dovepost/auth"
)

// external is EXTERNAL, RFC 4422 appendix A: the user is whom the verified client
// certificate names. His row has to exist; its password plays no part.
type external struct{}

func newExternal(o *Options, _ []string) (auth.Mechanism, error) {
	if !o.UsernameFromCert {
		return nil, errors.New("nobody has a name without auth_ssl_username_from_cert")
	}
	return external{}, nil
}

func (external) Name() string    { return "EXTERNAL" }
func (external) Flags() []string { return nil }

func (external) Start(r *auth.Request, v auth.Verifier) auth.Exchange {
	return &externalExchange{r, v}
}

type externalExchange struct {
	r *auth.Request
	v auth.Verifier
}

// Next takes the authzid, which may be empty. Errors: auth.ErrMalformed,
// auth.ErrPasswordMismatch without a certificate that names somebody, the verifier's.
func (x *externalExchange) Next(ctx context.Context, response []byte) ([]byte, *auth.Credentials, error) {
	switch {
	case response == nil:
		return []byte{}, nil, nil
	case hasNUL(response):
		return nil, nil, auth.ErrMalformed
	case !x.r.ClientCert || x.r.CertUsername == "":
		return nil, nil, auth.ErrPasswordMismatch
	}
	claim(x.r, x.r.CertUsername, string(response))
	row, err := x.v.LookupCredentials(ctx, x.r, "")
	return nil, row, err
}

// certified puts the client's certificate before another mechanism:
// auth_ssl_username_from_cert and auth_ssl_require_client_cert.
type certified struct {
	auth.Mechanism
	name, require bool
}

func (m certified) Start(r *auth.Request, v auth.Verifier) auth.Exchange {
	if m.require && (!r.ClientCert || m.name && r.CertUsername == "") {
		return refusing{auth.ErrPasswordMismatch}
	}
	if m.name && r.ClientCert && r.CertUsername != "" {
		v = named{v}
	}
	return m.Mechanism.Start(r, v)
}

// named is a Verifier that knows better than the client who he is.
type named struct{ auth.Verifier }

func (n named) VerifyPlain(ctx context.Context, r *auth.Request, password []byte) (*auth.Credentials, error) {
	r.Login = r.CertUsername
	return n.Verifier.VerifyPlain(ctx, r, password)
}

func (n named) LookupCredentials(ctx context.Context, r *auth.Request, scheme string) (*auth.Credentials, error) {
	r.Login = r.CertUsername
	return n.Verifier.LookupCredentials(ctx, r, scheme)
}

// refusing is the exchange of somebody who may not have one.
type refusing struct{ err error }

func (x refusing) Next(context.Context, []byte) ([]byte, *auth.Credentials, error) {
	return nil, nil, x.err
}
