package sasl

import (
	"context"
	"errors"

	"dovepost/auth"
)

// maxTrace is RFC 4505's: 255 characters, of up to four octets each.
const maxTrace = 4 * 255

// anonymous is ANONYMOUS, RFC 4505: everybody is auth_anonymous_username. No
// passdb is asked; whether he has a mailbox is the userdb's affair.
type anonymous struct{ user string }

func newAnonymous(o *Options, _ []string) (auth.Mechanism, error) {
	if o.Anonymous == "" {
		return nil, errors.New("auth_anonymous_username is empty")
	}
	return anonymous{o.Anonymous}, nil
}

func (anonymous) Name() string    { return "ANONYMOUS" }
func (anonymous) Flags() []string { return []string{"anonymous"} }

func (m anonymous) Start(r *auth.Request, _ auth.Verifier) auth.Exchange {
	return &anonymousExchange{r, m.user}
}

type anonymousExchange struct {
	r    *auth.Request
	user string
}

// Next takes who the client says he is; it is not looked at. Errors: auth.ErrMalformed.
func (x *anonymousExchange) Next(_ context.Context, response []byte) ([]byte, *auth.Credentials, error) {
	if response == nil {
		return []byte{}, nil, nil
	}
	if len(response) > maxTrace {
		return nil, nil, auth.ErrMalformed
	}
	x.r.Login, x.r.User = x.user, x.user
	return nil, &auth.Credentials{User: x.user, Fields: auth.Fields{{Name: "anonymous"}}}, nil
}
