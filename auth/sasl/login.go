package sasl

import (
	"context"

	"dovepost/auth"
)

// login is LOGIN, draft-murchison-sasl-login-00.
type login struct{}

func (login) Name() string    { return "LOGIN" }
func (login) Flags() []string { return []string{"plaintext"} }

func (login) Start(r *auth.Request, v auth.Verifier) auth.Exchange {
	return &loginExchange{r: r, v: v}
}

type loginExchange struct {
	r     *auth.Request
	v     auth.Verifier
	asked bool // for the user name
	named bool
}

// Next takes the user name, then the password. The user name may be the initial
// response; an empty one there counts as none, because `doveadm auth test -A LOGIN`
// sends it. Errors: auth.ErrMalformed, the verifier's.
func (x *loginExchange) Next(ctx context.Context, response []byte) ([]byte, *auth.Credentials, error) {
	switch {
	case hasNUL(response):
		return nil, nil, auth.ErrMalformed
	case !x.asked && len(response) == 0:
		x.asked = true
		return []byte("Username:"), nil, nil
	case !x.named && len(response) == 0:
		return nil, nil, auth.ErrMalformed // nobody has this name, and Dovecot asks for no password then either
	case !x.named:
		x.asked, x.named = true, true
		x.r.Login = string(response)
		return []byte("Password:"), nil, nil
	}
	row, err := x.v.VerifyPlain(ctx, x.r, response)
	return nil, row, err
}
