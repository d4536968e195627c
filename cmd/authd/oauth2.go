package main

import (
	"context"
	"fmt"
	"sync/atomic"

	"dovepost/auth"
	"dovepost/auth/guard"
	"dovepost/auth/oauth2"
	"dovepost/auth/sasl"
)

// bearers decide about the tokens of users whose names have gone through the rules for
// user names. SIGHUP replaces the validator.
type bearers struct {
	names     *guard.Names
	validator atomic.Pointer[oauth2.Validator]
}

var _ sasl.Tokens = (*bearers)(nil)

// Validate is sasl.Tokens'.
func (b *bearers) Validate(ctx context.Context, r *auth.Request, token string) error {
	user, err := b.names.Canonical(r.Login)
	if err != nil {
		return fmt.Errorf("%w: %v", auth.ErrUnknownUser, err)
	}
	return b.validator.Load().Validate(ctx, r, user, token)
}

// Advice is sasl.Tokens'.
func (b *bearers) Advice() (scope, openID string) { return b.validator.Load().Advice() }

// readOAuth2 reads the file of --oauth2; nil: there is none.
func (s *mechanismSettings) readOAuth2() (*oauth2.Validator, error) {
	if s.oauth2 == "" {
		return nil, nil
	}
	settings, err := oauth2.ReadFile(s.oauth2)
	if err != nil {
		return nil, fmt.Errorf("oauth2: %w", err)
	}
	validator, err := oauth2.New(settings)
	if err != nil {
		return nil, fmt.Errorf("oauth2: %w", err)
	}
	return validator, nil
}
