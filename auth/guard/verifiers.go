package guard

import (
	"context"
	"errors"

	"dovepost/auth"
)

// Verifiers are several that are asked in order, as Dovecot asks its passdbs with
// result_success = return-ok, result_failure = continue, result_internalerror = continue:
// a password that one finds right is right. A failure of one is the answer if none of
// the rest finds it so; a user who is disabled is it at once.
type Verifiers []auth.Verifier // at least one

// VerifyPlain is auth.Verifier's.
func (c Verifiers) VerifyPlain(ctx context.Context, r *auth.Request, password []byte) (*auth.Credentials, error) {
	return c.ask(ctx, r, func(v auth.Verifier) (*auth.Credentials, error) { return v.VerifyPlain(ctx, r, password) })
}

// LookupCredentials is auth.Verifier's: of the first whose row can serve.
func (c Verifiers) LookupCredentials(ctx context.Context, r *auth.Request, scheme string) (*auth.Credentials, error) {
	return c.ask(ctx, r, func(v auth.Verifier) (*auth.Credentials, error) { return v.LookupCredentials(ctx, r, scheme) })
}

func (c Verifiers) ask(ctx context.Context, r *auth.Request, ask func(auth.Verifier) (*auth.Credentials, error)) (*auth.Credentials, error) {
	asked, stale := *r, false
	failure, refusal := error(nil), error(auth.ErrUnknownUser)
	for _, v := range c {
		*r = asked
		row, err := ask(v)
		stale = stale || r.Stale
		switch {
		case err == nil, errors.Is(err, auth.ErrUserDisabled), errors.Is(err, auth.ErrPassExpired),
			errors.Is(err, auth.ErrAuthzFailed), errors.Is(err, auth.ErrMalformed):
			return row, err
		case auth.Refused(err):
			if errors.Is(refusal, auth.ErrUnknownUser) {
				refusal = err
			}
		case failure == nil:
			failure = err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	r.Stale = stale
	if failure != nil {
		return nil, failure
	}
	return nil, refusal
}
