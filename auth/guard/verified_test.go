package guard

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"dovepost/auth"
	"dovepost/lookup"
	"dovepost/lookup/cache"
)

func TestVerified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := NewVerified(time.Hour, 1<<20)
		secret := []byte("secret")
		check := func(user, stored, password string, want bool) {
			t.Helper()
			if got := v.Knows(user, stored, []byte(password)); got != want {
				t.Errorf("Knows(%q, %q, %q) = %v, want %v", user, stored, password, got, want)
			}
		}
		check("u", "{X}1", "secret", false)
		v.Keep("u", "{X}1", secret)
		check("u", "{X}1", "secret", true)
		check("u", "{X}1", "Secret", false)
		check("u", "{X}1", "", false)
		check("u", "{X}2", "secret", false)
		check("u{", "X}1", "secret", false)
		check("w", "{X}1", "secret", false)
		time.Sleep(59 * time.Minute)
		check("u", "{X}1", "secret", true) // which does not make it live longer
		time.Sleep(time.Minute)
		check("u", "{X}1", "secret", false)
		v.Keep("u", "{X}1", secret)
		v.Forget()
		check("u", "{X}1", "secret", false)

		var none *Verified
		none.Keep("u", "{X}1", secret)
		none.Forget()
		if none.Knows("u", "{X}1", secret) || NewVerified(0, 1<<20) != nil || NewVerified(time.Hour, 0) != nil {
			t.Error("nothing remembers something")
		}
	})
}

func TestVerifiedIsBounded(t *testing.T) {
	v := NewVerified(time.Hour, 100*proofSize)
	often := []byte("often")
	v.Keep("often", "{X}", often)
	for i := range 10_000 {
		v.Keep(fmt.Sprint(i), "{X}", []byte("x"))
		if !v.Knows("often", "{X}", often) {
			t.Fatalf("what is used all the time is forgotten after %d others", i)
		}
		if _, _, _, entries, bytes := v.Stats(); entries > 101 || bytes > 101*proofSize {
			t.Fatalf("%d entries, %d octets", entries, bytes)
		}
	}
}

// away is a database that may be away. It is an auth.Passdb with a cache before it.
type away struct {
	rows    map[string]string // hashes by user
	gone    error
	asked   int
	rowsMap *cache.Map
}

func newAway() *away {
	c := cache.New(2*time.Second, 1<<20)
	c.Stale, c.Log = 24*time.Hour, quiet
	a := &away{rows: map[string]string{}}
	a.rowsMap = c.Map("rows", a).Positive()
	return a
}

func (a *away) Lookup(_ context.Context, user string) ([]string, error) {
	a.asked++
	stored, ok := a.rows[user]
	switch {
	case a.gone != nil:
		return nil, a.gone
	case !ok:
		return nil, lookup.ErrNotFound
	}
	return []string{stored}, nil
}

func (a *away) LookupPass(ctx context.Context, r *auth.Request) (*auth.Credentials, error) {
	var values []string
	var origin cache.Origin
	var err error
	if r.NoCache {
		values, err = a.rowsMap.Anew(ctx, r.User)
	} else {
		values, origin, err = a.rowsMap.Find(ctx, r.User)
	}
	if errors.Is(err, lookup.ErrNotFound) {
		return nil, auth.ErrUnknownUser
	}
	if err != nil {
		return nil, err
	}
	row := &auth.Credentials{User: r.User, Password: values[0], Cached: origin != cache.Asked, Stale: origin == cache.Old}
	if values[0] == "{PLAIN}disabled" {
		row.Fields = auth.Fields{{Name: "allow_nets", Value: "192.0.2.0/24", HasValue: true}}
	}
	return row, nil
}

// login tries a password through the gate and the verifier, and returns what the
// client is told: "ok", "no" or "later".
func login(t *testing.T, g *Gate, v *Verifier, user, password string) string {
	r := &auth.Request{Login: user, Service: "imap"}
	x := g.Mechanisms([]auth.Mechanism{asking{password}})[0].Start(r, v)
	_, row, err := x.Next(t.Context(), nil)
	switch {
	case row != nil:
		return "ok"
	case auth.Refused(err):
		return "no"
	}
	return "later"
}

// asking is a mechanism that has a password from the start.
type asking struct{ password string }

func (asking) Name() string    { return "ASKING" }
func (asking) Flags() []string { return nil }
func (m asking) Start(r *auth.Request, v auth.Verifier) auth.Exchange {
	return askingExchange{m, r, v}
}

type askingExchange struct {
	asking
	r *auth.Request
	v auth.Verifier
}

func (x askingExchange) Next(ctx context.Context, _ []byte) ([]byte, *auth.Credentials, error) {
	row, err := x.v.VerifyPlain(ctx, x.r, []byte(x.password))
	return nil, row, err
}

func newLab(t *testing.T) (*away, *Gate, *Verifier) {
	db := newAway()
	v := &Verifier{Passdb: db, Names: defaults(t), DefaultScheme: "PLAIN", Workers: NewWorkers(1, 0, nil), Log: quiet, Verified: NewVerified(time.Hour, 1<<16)}
	return db, NewGate(Policy{Off: true}, nil, NewDelay(0)), v
}

func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, g, v := newLab(t)
		check := func(user, password, want string) {
			t.Helper()
			if got := login(t, g, v, user, password); got != want {
				t.Errorf("%s with %q: %s, want %s", user, password, got, want)
			}
		}
		db.rows["seen"], db.rows["unseen"] = "{PLAIN}old", "{PLAIN}old"
		check("seen", "old", "ok")
		check("seen", "wrong", "no")
		db.gone = errors.New("away")
		check("seen", "old", "ok")
		check("seen", "new", "later") // within the two seconds
		time.Sleep(time.Minute)
		check("seen", "old", "ok")
		check("seen", "new", "later")
		check("unseen", "old", "later")
		check("nobody", "old", "later")
		db.rows["seen"] = "{PLAIN}new"
		db.gone = nil
		check("seen", "old", "no")
		check("seen", "new", "ok")
		check("nobody", "old", "no")
		db.rows["seen"] = "{PLAIN}newer"
		check("seen", "newer", "ok") // at once, though the cache is warm
		check("seen", "new", "no")
	})
}

// A mechanism that compares by itself gets the present row, and while there is none
// its refusals are no refusals.
func TestPresent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _, v := newLab(t)
		get := func(want string, stale bool) {
			t.Helper()
			r := &auth.Request{Login: "u"}
			row, err := v.LookupCredentials(t.Context(), r, "PLAIN")
			if err != nil || row.Password != want || r.Stale != stale || r.NoCache {
				t.Errorf("%v, %v, stale %v; want %s, stale %v", row, err, r.Stale, want, stale)
			}
		}
		db.rows["u"] = "{PLAIN}1"
		get("{PLAIN}1", false)
		db.rows["u"] = "{PLAIN}2"
		get("{PLAIN}2", false)
		db.gone = errors.New("away")
		get("{PLAIN}2", true)
		time.Sleep(time.Minute)
		get("{PLAIN}2", true)
		db.gone = nil
		delete(db.rows, "u")
		if row, err := v.LookupCredentials(t.Context(), &auth.Request{Login: "u"}, "PLAIN"); !errors.Is(err, auth.ErrUnknownUser) {
			t.Errorf("%v, %v; want unknown", row, err)
		}
	})
}

// TestModel has logins, changes of passwords, outages and time at random. While the
// database answers, the password of now is always right, one that was changed more
// than two seconds ago is never, and everything else is "no". While it does not, no
// password is called wrong.
func TestModel(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) { model(t, rand.New(rand.NewPCG(seed, 11))) })
	}
}

func model(t *testing.T, random *rand.Rand) {
	db, g, v := newLab(t)
	users := []string{"a", "b", "c"}
	ended := map[string]time.Time{} // when user and password last were a pair
	passwords := []string{"1", "2", "3", "disabled"}
	end := func(user string) {
		if stored, ok := db.rows[user]; ok {
			ended[user+stored] = time.Now()
		}
	}
	for range 400 {
		user := users[random.IntN(len(users))]
		switch n := random.IntN(10); {
		case n == 0:
			end(user)
			db.rows[user] = "{PLAIN}" + passwords[random.IntN(len(passwords))]
		case n == 1:
			end(user)
			delete(db.rows, user)
		case n == 2:
			db.gone = nil
			if random.IntN(3) == 0 {
				db.gone = errors.New("away")
			}
		case n < 5:
			time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
		case n == 5:
			v.Verified.Forget()
		default:
			password := passwords[random.IntN(len(passwords))]
			got := login(t, g, v, user, password)
			right := db.rows[user] == "{PLAIN}"+password && password != "disabled"
			last, was := ended[user+"{PLAIN}"+password]
			lately := was && time.Since(last) < 2*time.Second
			at := fmt.Sprintf("%s with %q: %s; rows %v, ended %v ago, away %v", user, password, got, slices.Sorted(maps.Keys(db.rows)), time.Since(last), db.gone)
			switch {
			case password == "disabled" && got == "ok":
				t.Fatalf("disabled: %s", at)
			case db.gone != nil:
				if got == "no" {
					t.Fatalf("called wrong while the database is away: %s", at)
				}
			case right && got != "ok", !right && got == "ok" && !lately, got == "later":
				t.Fatal(at)
			}
		}
	}
}

// apps returns the same app passwords for everybody.
func apps(found AppPasswords, err error) func(context.Context, *auth.Request) (AppPasswords, error) {
	return func(context.Context, *auth.Request) (AppPasswords, error) { return found, err }
}

func TestAppPasswords(t *testing.T) {
	list := []AppPassword{{"phone", "{PLAIN}p1"}, {"laptop", "{PLAIN}p2"}}
	outage := errors.New("away")
	for _, tt := range []struct {
		name     string
		row      auth.Credentials
		found    AppPasswords
		err      error
		password string
		app      string
		want     error
	}{
		{"the main password", auth.Credentials{Password: "{PLAIN}main"}, AppPasswords{List: list}, nil, "main", "", nil},
		{"the main password while app passwords cannot be had", auth.Credentials{Password: "{PLAIN}main"}, AppPasswords{}, outage, "main", "", nil},
		{"the first app password", auth.Credentials{Password: "{PLAIN}main"}, AppPasswords{List: list}, nil, "p1", "phone", nil},
		{"the last app password", auth.Credentials{Password: "{PLAIN}main"}, AppPasswords{List: list}, nil, "p2", "laptop", nil},
		{"a wrong password", auth.Credentials{Password: "{PLAIN}main"}, AppPasswords{List: list}, nil, "p3", "", auth.ErrPasswordMismatch},
		{"an empty password", auth.Credentials{Password: "{PLAIN}main"}, AppPasswords{List: append(list, AppPassword{"none", "{PLAIN}"})}, nil, "", "", auth.ErrPasswordMismatch},
		{"no app passwords", auth.Credentials{Password: "{PLAIN}main"}, AppPasswords{}, nil, "p1", "", auth.ErrPasswordMismatch},
		{"app passwords that cannot be had", auth.Credentials{Password: "{PLAIN}main"}, AppPasswords{}, outage, "p1", "", outage},
		{"an app password of a locked row", auth.Credentials{Password: "{SHA512-CRYPT}!"}, AppPasswords{List: list}, nil, "p2", "", auth.ErrPasswordMismatch},
		{"an app password of a locked row where only these count", auth.Credentials{Password: "{SHA512-CRYPT}!", AppPasswordOnly: true}, AppPasswords{List: list}, nil, "p2", "laptop", nil},
		{"an app password of a row without a password of its own", auth.Credentials{Password: "{SHA512-CRYPT}"}, AppPasswords{List: list}, nil, "p2", "laptop", nil},
		{"the main password where only others count", auth.Credentials{Password: "{PLAIN}main", AppPasswordOnly: true}, AppPasswords{List: list}, nil, "main", "", auth.ErrPasswordMismatch},
		{"an app password where only these count", auth.Credentials{Password: "{PLAIN}main", AppPasswordOnly: true}, AppPasswords{List: list}, nil, "p2", "laptop", nil},
		{"an app password from where the row lets nobody in", auth.Credentials{Password: "{PLAIN}main",
			Fields: auth.Fields{{Name: "allow_nets", Value: "192.0.2.0/24", HasValue: true}}}, AppPasswords{List: list}, nil, "p1", "", auth.ErrPasswordMismatch},
	} {
		for _, verified := range []*Verified{nil, NewVerified(time.Hour, 1<<20)} {
			v := &Verifier{Passdb: &passdb{row: tt.row}, Names: defaults(t), Log: quiet, Verified: verified, AppPasswords: apps(tt.found, tt.err)}
			for range 2 {
				row, err := v.VerifyPlain(t.Context(), &auth.Request{Login: "u@example.com"}, []byte(tt.password))
				if !errors.Is(err, tt.want) || row != nil && row.AppPassword != tt.app || (row == nil) != (tt.want != nil) {
					t.Errorf("it handles %s: %v, %v; want app password %q, %v", tt.name, row, err, tt.app, tt.want)
				}
			}
		}
	}
}

// Whoever fails spends the time of as many app passwords as anybody has had.
func TestAppPasswordsDoNotShowInTheTime(t *testing.T) {
	list := []AppPassword{{"a", "{PLAIN}a"}, {"b", "{PLAIN}b"}, {"c", "{PLAIN}c"}}
	db := &passdb{row: auth.Credentials{Password: "{PLAIN}main"}}
	v := &Verifier{Passdb: db, Names: defaults(t), Log: quiet, AppPasswords: apps(AppPasswords{List: list}, nil)}
	for _, tt := range []struct {
		password string
		found    []AppPassword
		spent    int
	}{{"wrong", list[:1], 1}, {"wrong", list, 3}, {"wrong", nil, 3}, {"a", list, 3}, {"c", list, 3}, {"a", list[:1], 3}} {
		v.AppPasswords = apps(AppPasswords{List: tt.found}, nil)
		trial := &trial{v: v, r: &auth.Request{User: "u"}, password: []byte(tt.password)}
		if _, _, err := trial.app(t.Context(), &db.row); err != nil || trial.spent != tt.spent {
			t.Errorf("%q with %d app passwords: %v, the time of %d; want %d", tt.password, len(tt.found), err, trial.spent, tt.spent)
		}
	}
	unknown := &trial{v: v, r: &auth.Request{User: "nobody"}, password: []byte("a")}
	if err := v.spendApps(t.Context(), unknown); err != nil || unknown.spent != 3 {
		t.Errorf("nobody: %v, the time of %d; want 3", err, unknown.spent)
	}
}

func BenchmarkVerified(b *testing.B) {
	v := NewVerified(time.Hour, 1<<20)
	v.Keep("alice@example.com", "{SHA512-CRYPT}$6$salt$hash", []byte("secret"))
	b.ReportAllocs()
	for b.Loop() {
		if !v.Knows("alice@example.com", "{SHA512-CRYPT}$6$salt$hash", []byte("secret")) {
			b.Fatal("forgotten")
		}
	}
}
