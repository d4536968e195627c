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
	"slices"
	"strings"
	"sync"
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
	Workers       *Workers     // compute the hashes; nil: workers of its own
	Verbose       bool         // auth_verbose: say in the log why a login was refused
	Log           *slog.Logger // nil: slog.Default()

	// Verified spares right passwords the hash; may be nil.
	Verified *Verified

	// AppPasswords returns the further passwords of r.User that count for r; nil: there
	// are none. With r.NoCache as the database has them now. Errors are temporary.
	AppPasswords func(ctx context.Context, r *auth.Request) (AppPasswords, error)

	start sync.Once              // of workers of its own
	like  atomic.Pointer[string] // the latest row's hash: what an unknown user has to cost

	likeApp  atomic.Pointer[string] // the same of app passwords
	mostApps atomic.Int64           // how many of them a user has had
}

// VerifyPlain compares password with the row of the user. r.User is made from
// r.Login unless it is set, and is the final name afterwards; it stays empty when
// the rules refuse the name.
//
// A row that is from a cache refuses nobody: the database is asked again before. If it
// does not answer, r.Stale is set with the refusal, which then is temporary.
//
// Errors: a refusal (see auth.Refused), or temporary. A row whose hash cannot be
// understood refuses, as in Dovecot, and is logged as an error.
func (v *Verifier) VerifyPlain(ctx context.Context, r *auth.Request, password []byte) (*auth.Credentials, error) {
	limit := verifyTimeout
	if forMTA(r) {
		limit = mtaTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()

	if len(password) > maxPassword || bytes.IndexByte(password, 0) >= 0 {
		return nil, v.refused(r, auth.ErrMalformed, "password too long, or with NUL")
	}
	t := &trial{v: v, r: r, password: password}
	asked := r.User
	row, err := v.find(ctx, r)
	if auth.Refused(err) { // unknown, or a row without a password
		if err := v.spend(ctx, r, password); err != nil {
			return nil, err
		}
		if err := v.spendApps(ctx, t); err != nil {
			return nil, err
		}
		return nil, v.refused(r, err, err.Error())
	}
	if err != nil {
		return nil, err
	}
	proven, err := t.prove(ctx, row)
	if auth.Refused(err) && (row.Cached || t.cached) {
		return t.proveAnew(ctx, asked, row, err)
	}
	return proven, err
}

// LookupCredentials returns the row of the user with Password in the scheme name,
// or clear, as {PLAIN}, where it is stored so; its value is decoded. With an empty
// name, for users who are proven by other means than a password, any row will do,
// and it has none.
//
// Errors: as VerifyPlain; auth.ErrPasswordMismatch where the row cannot serve.
func (v *Verifier) LookupCredentials(ctx context.Context, r *auth.Request, name string) (*auth.Credentials, error) {
	row, err := v.present(ctx, r)
	if err != nil {
		return nil, err
	}
	found := *row
	if found.Password = ""; name != "" {
		stored, value, err := scheme.Decode(row.Password)
		switch {
		case row.NoPassword || len(value) == 0:
			return nil, v.refused(r, auth.ErrPasswordMismatch, "no password to compute with")
		case row.AppPasswordOnly:
			return nil, v.refused(r, auth.ErrPasswordMismatch, "only app passwords count for this user")
		case err != nil:
			v.log().Error("password of the row cannot be used", "user", r.User, "err", err)
			return nil, v.refused(r, auth.ErrPasswordMismatch, err.Error())
		case stored != name && stored != "PLAIN":
			return nil, v.refused(r, auth.ErrPasswordMismatch, fmt.Sprintf("the password is stored as %s, %s is needed", stored, name))
		}
		found.Password = "{" + stored + "}" + string(value)
	}
	return v.admit(r, &found)
}

// find normalises the name and returns its row.
func (v *Verifier) find(ctx context.Context, r *auth.Request) (*auth.Credentials, error) {
	lookup := Lookup{Names: v.Names, Passdb: v.Passdb}
	return lookup.find(ctx, r)
}

// compare computes the row's hash of password in a worker.
// The hash is stored in like when it has been computed.
func (v *Verifier) compare(ctx context.Context, r *auth.Request, row *auth.Credentials, password []byte, like *atomic.Pointer[string]) (ok bool, err error) {
	if row.NoPassword {
		return true, v.spend(ctx, r, password)
	}
	if isEmpty(row.Password) {
		// No password is stored: nothing matches it, the empty one neither.
		return false, v.spend(ctx, r, password)
	}
	if v.Verified.Knows(r.User, row.Password, password) {
		return true, nil
	}
	var hashErr error
	err = v.work(ctx, r, row.Password, func() {
		ok, hashErr = scheme.Verify(row.Password, password, r.User)
	})
	if err != nil {
		return false, err
	}
	if hashErr != nil {
		// Waiting mends no hash: as in Dovecot, this is a refusal that the
		// administrator hears of.
		v.log().Error("password of the row cannot be used", "user", r.User, "err", hashErr)
	}
	if hashErr != nil || scheme.Locked(row.Password) {
		return false, v.spendAs(ctx, r, like, password) // nothing has been computed
	}
	if ok {
		v.Verified.Keep(r.User, row.Password, password)
	}
	like.Store(&row.Password)
	return ok, nil
}

// spend takes the time of a comparison.
func (v *Verifier) spend(ctx context.Context, r *auth.Request, password []byte) error {
	return v.spendAs(ctx, r, &v.like, password)
}

// spendAs is spend, with the latest hash of those that latest is about.
func (v *Verifier) spendAs(ctx context.Context, r *auth.Request, latest *atomic.Pointer[string], password []byte) error {
	like := v.DefaultScheme
	if last := latest.Load(); last != nil {
		like = *last
	}
	if like == "" {
		like = "CRYPT"
	}
	return v.spendLike(ctx, r, like, password)
}

// spendLike is spend, with a hash or the name of a scheme that says how much.
func (v *Verifier) spendLike(ctx context.Context, r *auth.Request, like string, password []byte) error {
	return v.work(ctx, r, like, func() { scheme.Spend(like, password) })
}

// work has f computed, which takes what a comparison with stored does, when it is
// the turn of r's network. An error is temporary.
func (v *Verifier) work(ctx context.Context, r *auth.Request, stored string, f func()) error {
	v.start.Do(func() {
		if v.Workers == nil {
			v.Workers = NewWorkers(0, 0, nil)
		}
	})
	return v.Workers.Do(ctx, r, scheme.Memory(stored), f)
}

// admit applies the conditions of a row whose password was right.
func (v *Verifier) admit(r *auth.Request, row *auth.Credentials) (*auth.Credentials, error) {
	if r.Authzid != "" && r.Authzid != r.User {
		// No code= for this: it would tell that the password was right.
		return nil, v.refused(r, auth.ErrPasswordMismatch, "authorization as another user")
	}
	if why := checkRow(r, row); why != "" {
		return nil, v.refused(r, withNoDelay(row, auth.ErrPasswordMismatch), why)
	}
	return loginUser(r, row), nil
}

// loginUser makes the login one for somebody else, where the row says login_user: as
// Dovecot has it, the owner of the row is his master user then, and the row is the
// other's without a further look at the passdb.
func loginUser(r *auth.Request, row *auth.Credentials) *auth.Credentials {
	user, ok := row.Fields.Get("login_user")
	if !ok || user == "" {
		return row
	}
	as := *row
	as.Fields = slices.DeleteFunc(slices.Clone(row.Fields), func(f auth.Field) bool { return f.Name == "login_user" })
	r.MasterUser, r.User, as.User = row.User, user, user
	return &as
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

// isEmpty reports whether nothing is stored. In base64 blanks are nothing, too.
func isEmpty(stored string) bool {
	_, text := splitScheme(stored)
	if strings.TrimSpace(text) != "" {
		return false
	}
	_, value, err := scheme.Decode(stored)
	return err != nil || len(value) == 0
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
