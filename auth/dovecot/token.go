package dovecot

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"strings"

	"dovepost/auth"
)

// Tokens are what an imap session gets at its hand-off, to prove later to the
// imap-urlauth service who it is. They need no table: a token is a digest of the
// session under a secret.
type Tokens struct{ secret []byte }

// TokenSecretSize is the size of the secret, as in Dovecot's auth-token-secret.dat.
const TokenSecretSize = 32

// NewTokens returns the tokens of a secret, which has to outlive the sessions.
func NewTokens(secret []byte) (*Tokens, error) {
	if len(secret) != TokenSecretSize {
		return nil, fmt.Errorf("a token secret of %d octets, %d are needed", len(secret), TokenSecretSize)
	}
	return &Tokens{secret: secret}, nil
}

// token is computed as Dovecot's auth_token_get does.
func (t *Tokens) token(service, sessionPID, user, sessionID string) string {
	mac := hmac.New(sha1.New, []byte(user))
	mac.Write([]byte(sessionPID))
	mac.Write([]byte(sessionID))
	mac.Write([]byte(service))
	mac.Write(t.secret)
	return hex.EncodeToString(mac.Sum(nil))
}

// Mechanism returns DOVECOT-TOKEN, the only mechanism of the kind token-login.
func (t *Tokens) Mechanism() auth.Mechanism { return tokenMechanism{t} }

type tokenMechanism struct{ tokens *Tokens }

func (tokenMechanism) Name() string    { return "DOVECOT-TOKEN" }
func (tokenMechanism) Flags() []string { return []string{"private"} } // imap-urlauth-login aborts without it

func (m tokenMechanism) Start(r *auth.Request, _ auth.Verifier) auth.Exchange {
	return &tokenExchange{tokens: m.tokens, r: r}
}

type tokenExchange struct {
	tokens *Tokens
	r      *auth.Request
}

// Next takes service NUL session_pid NUL user NUL session_id NUL token. The token is
// proof for exactly the name that the session got from us.
func (x *tokenExchange) Next(_ context.Context, response []byte) ([]byte, *auth.Credentials, error) {
	if response == nil {
		return []byte{}, nil, nil
	}
	parts := strings.Split(string(response), "\x00")
	if len(parts) != 5 || parts[2] == "" {
		return nil, nil, auth.ErrMalformed
	}
	service, pid, user, session, token := parts[0], parts[1], parts[2], parts[3], parts[4]
	x.r.Login = user
	if subtle.ConstantTimeCompare([]byte(token), []byte(x.tokens.token(service, pid, user, session))) != 1 {
		return nil, nil, auth.ErrPasswordMismatch
	}
	x.r.User = user
	return nil, &auth.Credentials{User: user, Userdb: auth.Fields{{Name: "client_service", Value: service, HasValue: true}}}, nil
}
