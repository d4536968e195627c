package main

import (
	"context"
	"fmt"
	"strings"

	"dovepost/auth"
	"dovepost/auth/guard"
	"dovepost/auth/oauth2"
	"dovepost/auth/sasl"
)

// tokenValidator validates the tokens of users whose names have gone through the
// rules for user names.
type tokenValidator struct {
	names *guard.Names
	*oauth2.Validator
}

var _ sasl.Tokens = tokenValidator{}

// Validate is sasl.Tokens'.
func (t tokenValidator) Validate(ctx context.Context, r *auth.Request, token string) error {
	user, err := t.names.Canonical(r.Login)
	if err != nil {
		return fmt.Errorf("%w: %v", auth.ErrUnknownUser, err)
	}
	return t.Validator.Validate(ctx, r, user, token)
}

// readOAuth2 makes mechanisms with tokens possible.
func (s *mechanismSettings) readOAuth2(names *guard.Names) error {
	if s.oauth2 == "" {
		return nil
	}
	settings, err := oauth2.ReadFile(s.oauth2)
	if err != nil {
		return fmt.Errorf("oauth2: %w", err)
	}
	validator, err := oauth2.New(settings)
	if err != nil {
		return fmt.Errorf("oauth2: %w", err)
	}
	s.saslOptions.Tokens = tokenValidator{names, validator}
	s.saslOptions.OpenID = settings.OpenID
	s.saslOptions.Scope = strings.Join(settings.Scope, " ")
	return nil
}
