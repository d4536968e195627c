package guard

import (
	"context"
	"slices"
	"sync/atomic"

	"dovepost/auth"
	"dovepost/auth/scheme"
)

// AppPasswords are the further passwords of one user that count for a request: for
// its service, and not expired.
type AppPasswords struct {
	List          []AppPassword
	Cached, Stale bool // as in auth.Credentials
}

// AppPassword is one of them.
type AppPassword struct {
	Name     string // what the log calls it
	Password string // "{SCHEME}hash"
}

// trial is one password against the rows of one user.
type trial struct {
	v        *Verifier
	r        *auth.Request
	password []byte
	wrong    []string // hashes of which it is not the password
	begun    bool     // the time of a comparison with the row has been spent
	cached   bool     // app passwords from a cache were among them
	spent    int      // comparisons with app passwords
}

// prove compares the password with the row's, and then with the app passwords, and
// applies the conditions of the row. Errors: as VerifyPlain's.
func (t *trial) prove(ctx context.Context, row *auth.Credentials) (*auth.Credentials, error) {
	why := "password mismatch"
	var ok bool
	var err error
	if row.AppPasswordOnly {
		why = "only app passwords count for this user"
		if !t.begun {
			err = t.v.spend(ctx, t.r, t.password)
		}
	} else {
		ok, err = t.compare(ctx, row, &t.v.like)
	}
	t.begun = true
	if err == nil && !ok {
		// The time of the comparisons is spent on a locked row, too.
		if row, ok, err = t.app(ctx, row); ok && !row.AppPasswordOnly && isLocked(row.Password) {
			ok, why = false, "the password of the row is locked"
		}
	}
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, t.v.refused(t.r, withNoDelay(row, auth.ErrPasswordMismatch), why)
	}
	return t.v.admit(t.r, row)
}

// isLocked reports whether somebody has put ! or * before the hash of a row. An empty one
// is a row without a password of its own.
func isLocked(stored string) bool {
	_, value := splitScheme(stored)
	return value != "" && scheme.Locked(stored)
}

// compare is the verifier's, but no hash is computed twice.
func (t *trial) compare(ctx context.Context, row *auth.Credentials, like *atomic.Pointer[string]) (bool, error) {
	if !row.NoPassword && slices.Contains(t.wrong, row.Password) {
		return false, nil
	}
	ok, err := t.v.compare(ctx, t.r, row, t.password, like)
	if err == nil && !ok {
		t.wrong = append(t.wrong, row.Password)
	}
	return ok, err
}

// app compares the password with the app passwords of the user, and returns the row
// with the name of the one that it is. Which one it is does not show in the time, and
// neither does how many the user has: whoever fails pays for as many as anybody has.
func (t *trial) app(ctx context.Context, row *auth.Credentials) (*auth.Credentials, bool, error) {
	v := t.v
	if v.AppPasswords == nil {
		return row, false, nil
	}
	found, err := v.AppPasswords(ctx, t.r)
	if err != nil {
		return row, false, err
	}
	t.cached = t.cached || found.Cached
	t.r.Stale = t.r.Stale || found.Stale
	for _, a := range found.List {
		if v.Verified.Knows(t.r.User, a.Password, t.password) {
			return v.byApp(t.r, row, a.Name), true, nil
		}
	}
	var right *AppPassword
	for i, a := range found.List {
		ok, err := t.compare(ctx, &auth.Credentials{Password: a.Password}, &v.likeApp)
		if err != nil {
			return row, false, err
		}
		if ok && right == nil {
			right = &found.List[i]
		}
	}
	t.spent = max(t.spent, len(found.List))
	if err := v.spendApps(ctx, t); err != nil || right == nil {
		return row, false, err
	}
	return v.byApp(t.r, row, right.Name), true, nil
}

// spendApps takes the time of the comparisons that t has had less than others have.
func (v *Verifier) spendApps(ctx context.Context, t *trial) error {
	for most := v.mostApps.Load(); int64(t.spent) > most; most = v.mostApps.Load() {
		v.mostApps.CompareAndSwap(most, int64(t.spent))
	}
	like := v.likeApp.Load()
	for ; like != nil && int64(t.spent) < v.mostApps.Load(); t.spent++ {
		if err := v.spendLike(ctx, t.r, *like, t.password); err != nil {
			return err
		}
	}
	return nil
}

// byApp is the row of a login with the app password called name.
func (v *Verifier) byApp(r *auth.Request, row *auth.Credentials, name string) *auth.Credentials {
	v.log().Info("app password", "name", name, "user", r.User, "service", r.Service, "rip", r.RemoteIP, "session", r.Session)
	by := *row
	by.AppPassword = name
	return &by
}
