package main

import (
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"dovepost/auth"
	"dovepost/auth/sqldb"
	"dovepost/cmd/internal/daemon"
	"dovepost/cmd/internal/database"
	"dovepost/lookup/mysql"
)

func TestShape(t *testing.T) {
	for stored, want := range map[string]string{
		"{SHA512-CRYPT}$6$salt$hash":                             "$6",
		"{CRYPT}$6$salt$hash":                                    "$6",
		"{SHA512-CRYPT}$6$rounds=9000$salt$hash":                 "$6$rounds=9000",
		"{BLF-CRYPT}$2y$12$saltandhash":                          "$2y$12",
		"{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$c2FsdA$aGFzaA": "$argon2id$v=19$m=65536,t=3,p=1",
		"{CRYPT}$y$j9T$salt$hash":                                "$y$j9T",
		"{PBKDF2}$1$salt$5000$hash":                              "PBKDF2 5000",
		"{SCRAM-SHA-256}4096,c2FsdA==,YQ==,Yg==":                 "SCRAM-SHA-256 4096",
		"{ssha512.b64}abc":                                       "SSHA512",
		"{PLAIN}$6$salt$hash":                                    "PLAIN",
		"{SHA512-CRYPT}$6$":                                      "$6",
		"{PLAIN}":                                                "PLAIN",
		"":                                                       "",
	} {
		if got := shape(stored); got != want {
			t.Errorf("shape(%q) = %q, want %q", stored, got, want)
		}
	}
}

// testAuthd is a daemon whose database is not there.
func testAuthd(t *testing.T, s extraSettings) *authd {
	a := &authd{env: &daemon.Env{Log: slog.New(slog.NewTextHandler(io.Discard, nil))}}
	a.extraSettings = s
	pool := mysql.OpenPool(mysql.Config{Hosts: "unix:/nonexistent"}, 1)
	db, err := sqldb.Seed(pool, sqldb.SeedOptions{})
	if err != nil {
		t.Fatal(err)
	}
	state := &state{Users: database.Users{DB: db, Pool: pool}}
	if _, err := a.openExtras(state); err != nil {
		t.Fatal(err)
	}
	a.state.Store(state)
	return a
}

func TestRehashWhom(t *testing.T) {
	a := testAuthd(t, extraSettings{rehashScheme: "SHA512-CRYPT", rehashQuery: "UPDATE users SET password = '%{new_password}' WHERE password = '%{old_password}'"})
	like, err := a.newHash([]byte("x"), "u")
	if err != nil {
		t.Fatal(err)
	}
	old := auth.Credentials{User: "u", Password: "{SSHA}eA==", Stored: "{SSHA}eA=="}
	for _, tt := range []struct {
		name   string
		change func(*auth.Request, *auth.Credentials)
		rehash bool
	}{
		{"an old hash", func(*auth.Request, *auth.Credentials) {}, true},
		{"another cost", func(_ *auth.Request, row *auth.Credentials) { row.Password = "{SHA512-CRYPT}$6$rounds=9000$s$h" }, true},
		{"authzid of oneself", func(r *auth.Request, _ *auth.Credentials) { r.User, r.Authzid = "u", "u" }, true},
		{"DES, which has seen eight octets of it", func(_ *auth.Request, row *auth.Credentials) { row.Password = "{CRYPT}aaG4Xz2wzCAxY" }, false},
		{"a hash as it should be", func(_ *auth.Request, row *auth.Credentials) { row.Password = like }, false},
		{"nopassword", func(_ *auth.Request, row *auth.Credentials) { row.NoPassword = true }, false},
		{"an app password", func(_ *auth.Request, row *auth.Credentials) { row.AppPassword = "phone" }, false},
		{"an old row", func(_ *auth.Request, row *auth.Credentials) { row.Stale = true }, false},
		{"a master user", func(r *auth.Request, _ *auth.Credentials) { r.MasterUser = "root" }, false},
		{"authzid of another", func(r *auth.Request, _ *auth.Credentials) { r.User, r.Authzid = "u", "v" }, false},
	} {
		h := &rehasher{authd: a, like: like, queue: make(chan rehash, 2), pending: map[string]bool{}}
		r, row := auth.Request{}, old
		tt.change(&r, &row)
		for range 3 {
			h.add(&r, &row, []byte("secretly"))
		}
		want := 0
		if tt.rehash {
			want = 1
		}
		if len(h.queue) != want {
			t.Errorf("it handles %s: %d to be hashed, want %d", tt.name, len(h.queue), want)
		}
	}
	h := &rehasher{authd: a, like: like, queue: make(chan rehash, 1), pending: map[string]bool{}}
	for _, user := range []string{"a", "b", "c"} {
		row := old
		row.User = user
		h.add(&auth.Request{}, &row, []byte("secret"))
	}
	if h.dropped.Load() != 2 || len(h.pending) != 1 {
		t.Errorf("a full queue: %d dropped, %d pending; want 2, 1", h.dropped.Load(), len(h.pending))
	}
}

func TestWithout(t *testing.T) {
	err := errors.New("auth_rehash_query: Error 1062 (23000): Duplicate entry '{SSHA512}new' for key 'password', not 'old'")
	want := "auth_rehash_query: Error 1062 (23000): Duplicate entry '...' for key 'password', not '...'"
	if got := without(err, "{SSHA512}new", "new", "old", ""); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A database that is away costs a login nothing, and a shutdown little.
func TestExtrasWithoutADatabase(t *testing.T) {
	a := testAuthd(t, extraSettings{
		rehashScheme: "SSHA512", rehashQuery: "UPDATE users SET password = '%{new_password}' WHERE password = '%{old_password}'",
		lastLoginQuery: "UPDATE users SET last = %{time} WHERE email = '%u'", lastLoginServices: "imap pop3", lastLoginInterval: time.Hour,
	})
	l, h := a.newLastLogins(), a.newRehasher()
	var all sync.WaitGroup
	start := time.Now()
	for _, user := range []string{"a", "b"} {
		for _, service := range []string{"imap", "IMAP", "pop3", "smtp"} {
			all.Go(func() {
				r := auth.Request{Login: user, Service: service}
				row := &auth.Credentials{User: user, Password: "{PLAIN}secret", Stored: "{PLAIN}secret"}
				l.add(&r, row)
				h.add(&r, row, []byte("secret"))
				row.Fields = auth.Fields{{Name: "nologin"}}
				l.add(&auth.Request{Login: user, Service: "imap-" + service}, row)
			})
		}
	}
	all.Wait()
	if n := len(l.notes); n != 4 {
		t.Errorf("%d logins to be noted, want 4: of one user and service the latest", n)
	}
	l.close()
	h.close()
	if l.dropped.Load() != 4 {
		t.Errorf("%d dropped, want 4", l.dropped.Load())
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	(*lastLogins)(nil).close()
	(*rehasher)(nil).close()
}

func TestLastLoginsAreBounded(t *testing.T) {
	a := testAuthd(t, extraSettings{lastLoginQuery: "UPDATE users SET last = %{time} WHERE email = '%u'", lastLoginInterval: time.Hour})
	l := a.newLastLogins()
	defer l.close()
	for i := range maxNotes + 5 {
		l.add(&auth.Request{Service: "imap"}, &auth.Credentials{User: time.Duration(i).String()})
	}
	if len(l.notes) != maxNotes || l.dropped.Load() != 5 {
		t.Errorf("%d notes, %d dropped; want %d, 5", len(l.notes), l.dropped.Load(), maxNotes)
	}
}

func TestExtraSettings(t *testing.T) {
	interval := 10 * time.Second
	for name, s := range map[string]extraSettings{
		"a scheme without a query":        {rehashScheme: "SSHA512", lastLoginInterval: interval},
		"a query without a scheme":        {rehashQuery: "UPDATE '%{old_password}'", lastLoginInterval: interval},
		"a query that does not compare":   {rehashScheme: "SSHA512", rehashQuery: "UPDATE '%{new_password}'", lastLoginInterval: interval},
		"an unknown scheme":               {rehashScheme: "NOSUCH", rehashQuery: "UPDATE '%{old_password}'", lastLoginInterval: interval},
		"a scheme that is no hash":        {rehashScheme: "plain", rehashQuery: "UPDATE '%{old_password}'", lastLoginInterval: interval},
		"a cost that is too high":         {rehashScheme: "BLF-CRYPT", rehashRounds: 99, rehashQuery: "UPDATE '%{old_password}'", lastLoginInterval: interval},
		"no time between the last logins": {},
	} {
		if err := s.checkExtras(); err == nil {
			t.Errorf("it handles %s: no error", name)
		}
	}
	if err := errors.Join((&extraSettings{lastLoginInterval: interval}).checkExtras(),
		(&extraSettings{rehashScheme: "BLF-CRYPT", rehashRounds: 5, rehashQuery: "UPDATE '%{old_password}'", lastLoginInterval: interval}).checkExtras()); err != nil {
		t.Error(err)
	}
}
