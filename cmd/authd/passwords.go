package main

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"dovepost/auth"
	"dovepost/cmd/internal/daemon"
)

// passwordSettings are about what becomes of passwords that clients type.
type passwordSettings struct {
	verbosePasswords string
	verboseDigits    int // of a wrong password's SHA-1 in the log
	clearPassword    bool
}

// maxVerboseDigits tell two passwords apart, and are too few to find one out.
const maxVerboseDigits = 6

func (s *passwordSettings) passwordFlags(fs *pflag.FlagSet) {
	fs.StringVar(&s.verbosePasswords, "auth_verbose_passwords", "no", "what the log has of wrong passwords: no, or sha1:`n`, the first n hexadecimal digits of their SHA-1, at most 6")
	daemon.BoolVar(fs, &s.clearPassword, "sql_clear_password", false, "let password_query have the password in clear, %w")
}

func (s *passwordSettings) checkPasswords() error {
	kind, digits, truncated := strings.Cut(s.verbosePasswords, ":")
	switch {
	case s.verbosePasswords == "no" || s.verbosePasswords == "":
		s.verboseDigits = 0
		return nil
	case kind == "plain":
		return fmt.Errorf("auth_verbose_passwords = %s: a password is never logged, say sha1:%d", s.verbosePasswords, maxVerboseDigits)
	case kind == "sha1" && !truncated:
		s.verboseDigits = maxVerboseDigits
		return nil
	}
	n, err := strconv.Atoi(digits)
	if kind != "sha1" || err != nil || n < 1 || n > maxVerboseDigits {
		return fmt.Errorf("auth_verbose_passwords = %s: it may be no, or sha1:1 to sha1:%d", s.verbosePasswords, maxVerboseDigits)
	}
	s.verboseDigits = n
	return nil
}

// traces is a Verifier that leaves a trace of wrong passwords in the log: whoever tries
// the same again and again, because a telephone remembers it, can be told from a guesser.
type traces struct {
	auth.Verifier
	digits int
	log    *slog.Logger
}

// VerifyPlain is auth.Verifier's.
func (v traces) VerifyPlain(ctx context.Context, r *auth.Request, password []byte) (*auth.Credentials, error) {
	row, err := v.Verifier.VerifyPlain(ctx, r, password)
	if auth.Refused(err) {
		sum := sha1.Sum(password)
		v.log.Info("auth refused", "sha1", hex.EncodeToString(sum[:])[:v.digits], "user", r.User, "login", r.Login,
			"service", r.Service, "rip", r.RemoteIP, "session", r.Session)
	}
	return row, err
}

// withPassword is a Verifier whose passdb may compare the password itself: %w.
type withPassword struct{ auth.Verifier }

// VerifyPlain is auth.Verifier's.
func (v withPassword) VerifyPlain(ctx context.Context, r *auth.Request, password []byte) (*auth.Credentials, error) {
	r.Password = string(password)
	defer func() { r.Password = "" }()
	return v.Verifier.VerifyPlain(ctx, r, password)
}
