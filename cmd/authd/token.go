package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"dovepost/auth/dovecot"
)

// tokenSettings are the flags that concern the tokens of imap sessions.
type tokenSettings struct {
	tokenSecret string
}

func (s *tokenSettings) tokenFlags(fs *pflag.FlagSet) {
	fs.StringVar(&s.tokenSecret, "auth_token_secret", "", "`FILE` with the secret behind the tokens of URLAUTH, made if it is not there; empty: tokens end with this process")
}

// tokens reads the secret, or makes one. With create the file is made where it is
// not there, as Dovecot does.
func (s *tokenSettings) tokens(create bool) (*dovecot.Tokens, error) {
	secret := make([]byte, dovecot.TokenSecretSize)
	rand.Read(secret) // never fails: it ends the process instead
	if s.tokenSecret == "" {
		return dovecot.NewTokens(secret)
	}
	read, err := os.ReadFile(s.tokenSecret)
	switch {
	case err == nil:
		secret = read
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("auth_token_secret: %w", err)
	case create:
		if err := writeSecret(s.tokenSecret, secret); err != nil {
			return nil, fmt.Errorf("auth_token_secret: %w", err)
		}
	}
	t, err := dovecot.NewTokens(secret)
	if err != nil {
		return nil, fmt.Errorf("auth_token_secret: %s: %w", s.tokenSecret, err)
	}
	return t, nil
}

// writeSecret makes a file that is whole from the first moment on.
func writeSecret(path string, secret []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".secret") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(secret)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
