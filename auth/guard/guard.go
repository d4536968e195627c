// Package guard decides whether a login may pass: it normalises user names as
// Dovecot does, compares passwords in a bounded number of workers, applies the
// passdb's own conditions (allow_nets ...), and makes refusals late and alike.
//
// It sees passwords, and neither logs nor keeps them.
package guard

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"dovepost/auth"
	"dovepost/auth/scheme"
)

const (
	verifyTimeout = 30 * time.Second // for one verification, waiting included; login processes wait for 180 s

	// mtaTimeout is for service smtp. Postfix waits for 10 s in all.
	mtaTimeout = 8 * time.Second

	maxPassword = 4096 // octets; more is no password but an attack
)

// Verifier is an auth.Verifier over a Passdb. Set the fields before the first use.
type Verifier struct {
	Passdb        auth.Passdb
	Names         *Names       // nil: names are taken as they are
	DefaultScheme string       // whose cost an unknown user has, until a row has been seen; empty: CRYPT
	Workers       int          // hashes computed at a time; 0: the number of processors
	Verbose       bool         // auth_verbose: say in the log why a login was refused
	Log           *slog.Logger // nil: slog.Default()

	workers workers
	like    atomic.Pointer[string] // the latest row's hash: what an unknown user has to cost
}

// VerifyPlain compares password with the row of the user. r.User is made from
// r.Login unless it is set, and is the final name afterwards; it stays empty when
// the rules refuse the name.
//
// Errors: a refusal (see auth.Refused), or temporary. A row whose hash cannot be
// understood refuses, as in Dovecot, and is logged as an error.
func (v *Verifier) VerifyPlain(ctx context.Context, r *auth.Request, password []byte) (*auth.Credentials, error) {
	limit := verifyTimeout
	if r.Service == "smtp" {
		limit = mtaTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()

	if len(password) > maxPassword || bytes.IndexByte(password, 0) >= 0 {
		return nil, v.refused(r, auth.ErrMalformed, "password too long, or with NUL")
	}
	row, err := v.find(ctx, r)
	if auth.Refused(err) { // unknown, or a row without a password
		if err := v.spend(ctx, password); err != nil {
			return nil, err
		}
		return nil, v.refused(r, err, err.Error())
	}
	if err != nil {
		return nil, err
	}
	ok, err := v.compare(ctx, row, password, r.User)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, v.refused(r, withNoDelay(row, auth.ErrPasswordMismatch), "password mismatch")
	}
	return v.admit(r, row)
}

// LookupCredentials returns the row of the user with Password in the scheme name.
// A stored clear password serves every scheme.
//
// Errors: as VerifyPlain; auth.ErrPasswordMismatch where the row cannot serve.
func (v *Verifier) LookupCredentials(ctx context.Context, r *auth.Request, name string) (*auth.Credentials, error) {
	row, err := v.find(ctx, r)
	if err != nil {
		return nil, err
	}
	stored, value := splitScheme(row.Password)
	converted := *row
	switch {
	case row.NoPassword || value == "":
		return nil, v.refused(r, auth.ErrPasswordMismatch, "no password to compute with")
	case strings.EqualFold(stored, name):
	case isClear(stored):
		if converted.Password, err = scheme.HashWith(name, []byte(value), scheme.Options{User: r.User}); err != nil {
			return nil, v.refused(r, auth.ErrPasswordMismatch, err.Error())
		}
	default:
		return nil, v.refused(r, auth.ErrPasswordMismatch, fmt.Sprintf("the password is stored as %s, %s is needed", stored, name))
	}
	return v.admit(r, &converted)
}

// find normalises the name and returns its row.
func (v *Verifier) find(ctx context.Context, r *auth.Request) (*auth.Credentials, error) {
	lookup := Lookup{Names: v.Names, Passdb: v.Passdb}
	return lookup.LookupPass(ctx, r)
}

// compare computes the row's hash of password in a worker.
func (v *Verifier) compare(ctx context.Context, row *auth.Credentials, password []byte, user string) (ok bool, err error) {
	if row.NoPassword {
		return true, v.spend(ctx, password)
	}
	if _, value := splitScheme(row.Password); value == "" {
		// No password is stored: nothing matches it, the empty one neither.
		return false, v.spend(ctx, password)
	}
	var hashErr error
	err = v.workers.do(ctx, v.Workers, func() {
		ok, hashErr = scheme.Verify(row.Password, password, user)
	})
	if err != nil {
		return false, err
	}
	if hashErr != nil {
		// Waiting mends no hash: as in Dovecot, this is a refusal that the
		// administrator hears of.
		v.log().Error("password of the row cannot be used", "user", user, "err", hashErr)
		return false, nil
	}
	v.like.Store(&row.Password)
	return ok, nil
}

// spend takes the time of a comparison.
func (v *Verifier) spend(ctx context.Context, password []byte) error {
	like := v.DefaultScheme
	if last := v.like.Load(); last != nil {
		like = *last
	}
	if like == "" {
		like = "CRYPT"
	}
	return v.workers.do(ctx, v.Workers, func() { scheme.Spend(like, password) })
}

// admit applies the conditions of a row whose password was right.
func (v *Verifier) admit(r *auth.Request, row *auth.Credentials) (*auth.Credentials, error) {
	if r.Authzid != "" && r.Authzid != r.User {
		return nil, v.refused(r, auth.ErrAuthzFailed, "authorization as another user")
	}
	if why := checkNets(r, row); why != "" {
		return nil, v.refused(r, withNoDelay(row, auth.ErrPasswordMismatch), why)
	}
	return row, nil
}

func withNoDelay(row *auth.Credentials, err error) error {
	if _, ok := row.Fields.Get("nodelay"); ok {
		return &auth.Refusal{Err: err, NoDelay: true}
	}
	return err
}

// refused logs why, where the settings want it, and returns err.
func (v *Verifier) refused(r *auth.Request, err error, why string) error {
	level := slog.LevelDebug
	if v.Verbose {
		level = slog.LevelInfo
	}
	v.log().Log(context.Background(), level, "auth refused", "why", why, "user", r.User, "login", r.Login, "service", r.Service, "rip", r.RemoteIP, "session", r.Session)
	return err
}

func (v *Verifier) log() *slog.Logger {
	if v.Log != nil {
		return v.Log
	}
	return slog.Default()
}

// splitScheme cuts "{SCHEME}hash".
func splitScheme(stored string) (name, value string) {
	if rest, ok := strings.CutPrefix(stored, "{"); ok {
		if name, value, ok = strings.Cut(rest, "}"); ok {
			return name, value
		}
	}
	return "", stored
}

func isClear(name string) bool {
	switch strings.ToUpper(name) {
	case "PLAIN", "CLEAR", "CLEARTEXT":
		return true
	}
	return false
}

// workers bounds how many hashes are computed at a time: a storm of logins must
// not take the memory of as many ARGON2 hashes.
type workers struct {
	slots atomic.Pointer[chan struct{}]
}

// do runs f in one of n slots. An error says that none was free in time.
func (w *workers) do(ctx context.Context, n int, f func()) error {
	slots := w.get(n)
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("no free worker for a password hash: %w", context.Cause(ctx))
	}
	defer func() { <-slots }()
	f()
	return nil
}

func (w *workers) get(n int) chan struct{} {
	if p := w.slots.Load(); p != nil {
		return *p
	}
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	slots := make(chan struct{}, n)
	w.slots.CompareAndSwap(nil, &slots)
	return *w.slots.Load()
}
