package sasl

import (
	"bytes"
	"context"

	"dovepost/auth"
)

// plain is PLAIN, RFC 4616.
type plain struct{}

func (plain) Name() string    { return "PLAIN" }
func (plain) Flags() []string { return []string{"plaintext"} }

func (plain) Start(r *auth.Request, v auth.Verifier) auth.Exchange {
	return &plainExchange{r, v}
}

type plainExchange struct {
	r *auth.Request
	v auth.Verifier
}

// Next takes authzid NUL authcid NUL password. Errors: auth.ErrMalformed, the verifier's.
func (x *plainExchange) Next(ctx context.Context, response []byte) ([]byte, *auth.Credentials, error) {
	if response == nil {
		return []byte{}, nil, nil
	}
	authzid, rest, ok1 := bytes.Cut(response, []byte{0})
	authcid, password, ok2 := bytes.Cut(rest, []byte{0})
	if !ok1 || !ok2 || hasNUL(password) {
		return nil, nil, auth.ErrMalformed
	}
	x.r.Login = string(authcid)
	if !bytes.Equal(authzid, authcid) {
		x.r.Authzid = string(authzid)
	}
	row, err := x.v.VerifyPlain(ctx, x.r, password)
	return nil, row, err
}
