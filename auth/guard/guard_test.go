package guard

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"dovepost/auth"
	"dovepost/auth/scheme"
)

// passdb answers with one row, or with an error.
type passdb struct {
	row   auth.Credentials
	err   error
	asked string
}

func (p *passdb) LookupPass(_ context.Context, r *auth.Request) (*auth.Credentials, error) {
	p.asked = r.User
	if p.err != nil {
		return nil, p.err
	}
	row := p.row
	if row.User == "" {
		row.User = r.User
	}
	return &row, nil
}

func mustNames(t testing.TB, realm, translation, chars, format string) *Names {
	t.Helper()
	n, err := NewNames(realm, translation, chars, format)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func defaults(t testing.TB) *Names {
	return mustNames(t, "", "", DefaultUsernameChars, DefaultUsernameFormat)
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func fields(pairs ...string) (f auth.Fields) {
	for i := 0; i < len(pairs); i += 2 {
		f = append(f, auth.Field{Name: pairs[i], Value: pairs[i+1], HasValue: true})
	}
	return f
}

func TestVerifyPlain(t *testing.T) {
	away := errors.New("the database is away")
	sha, err := scheme.Hash("SSHA256", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name            string
		row             auth.Credentials
		dbErr           error
		login, password string
		authzid         string
		rip             string
		want            error // nil: proven; away: temporary
		user            string
	}{
		{"the right password", auth.Credentials{Password: sha}, nil, "Alice@Example.com", "secret", "", "", nil, "alice@example.com"},
		{"a wrong one", auth.Credentials{Password: sha}, nil, "alice", "Secret", "", "", auth.ErrPasswordMismatch, "alice"},
		{"an empty one", auth.Credentials{Password: sha}, nil, "alice", "", "", "", auth.ErrPasswordMismatch, "alice"},
		{"an unknown user", auth.Credentials{}, auth.ErrUnknownUser, "alice", "secret", "", "", auth.ErrUnknownUser, "alice"},
		{"a name with strange characters", auth.Credentials{Password: sha}, nil, "al'ce", "secret", "", "", auth.ErrUnknownUser, ""},
		{"no name", auth.Credentials{Password: sha}, nil, "", "secret", "", "", auth.ErrUnknownUser, ""},
		{"the database away", auth.Credentials{}, away, "alice", "secret", "", "", away, "alice"},
		{"a row without a password", auth.Credentials{}, auth.ErrPasswordMismatch, "alice", "", "", "", auth.ErrPasswordMismatch, "alice"},
		{"an empty stored password", auth.Credentials{Password: "{PLAIN}"}, nil, "alice", "", "", "", auth.ErrPasswordMismatch, "alice"},
		{"an empty stored password that is a blank in base64", auth.Credentials{Password: "{PLAIN.b64} \n"}, nil, "alice", "", "", "", auth.ErrPasswordMismatch, "alice"},
		{"a password that is a blank", auth.Credentials{Password: "{PLAIN} "}, nil, "alice", " ", "", "", nil, "alice"},
		{"nothing stored", auth.Credentials{Password: ""}, nil, "alice", "", "", "", auth.ErrPasswordMismatch, "alice"},
		{"nopassword", auth.Credentials{NoPassword: true}, nil, "alice", "whatever", "", "", nil, "alice"},
		{"an unknown scheme", auth.Credentials{Password: "{NOSUCH}secret"}, nil, "alice", "secret", "", "", auth.ErrPasswordMismatch, "alice"},
		{"a broken hash", auth.Credentials{Password: "{SSHA256}secret"}, nil, "alice", "secret", "", "", auth.ErrPasswordMismatch, "alice"},
		{"a password with NUL", auth.Credentials{Password: "{PLAIN}secret"}, nil, "alice", "secret\x00", "", "", auth.ErrMalformed, ""},
		{"a password without end", auth.Credentials{Password: "{PLAIN}secret"}, nil, "alice", strings.Repeat("x", maxPassword+1), "", "", auth.ErrMalformed, ""},
		{"the row's own name", auth.Credentials{User: "Alice@Example.com", Password: sha}, nil, "a", "secret", "", "", nil, "Alice@Example.com"},
		{"a row with a name that nobody may type", auth.Credentials{User: "al ice", Password: sha}, nil, "a", "secret", "", "", nil, "al ice"},
		{"authzid of another", auth.Credentials{Password: sha}, nil, "alice", "secret", "bob", "", auth.ErrPasswordMismatch, "alice"},
		{"authzid of another, wrong password", auth.Credentials{Password: sha}, nil, "alice", "wrong", "bob", "", auth.ErrPasswordMismatch, "alice"},
		{"authzid in canonical form", auth.Credentials{Password: sha}, nil, "Alice", "secret", "alice", "", nil, "alice"},
		{"an address that may", auth.Credentials{Password: sha, Fields: fields("allow_nets", "10.0.0.0/8")}, nil, "alice", "secret", "", "10.1.2.3", nil, "alice"},
		{"an address that may not", auth.Credentials{Password: sha, Fields: fields("allow_nets", "10.0.0.0/8")}, nil, "alice", "secret", "", "192.0.2.1", auth.ErrPasswordMismatch, "alice"},
	}
	for _, tt := range tests {
		v := &Verifier{Passdb: &passdb{row: tt.row, err: tt.dbErr}, Names: defaults(t), DefaultScheme: "PLAIN", Log: quiet}
		r := &auth.Request{Login: tt.login, Authzid: tt.authzid, Service: "imap"}
		if tt.rip != "" {
			r.RemoteIP = netip.MustParseAddr(tt.rip)
		}
		row, err := v.VerifyPlain(t.Context(), r, []byte(tt.password))
		switch {
		case tt.want == away:
			if err == nil || auth.Refused(err) {
				t.Errorf("it handles %s: %v, want a temporary error", tt.name, err)
			}
		case !errors.Is(err, tt.want):
			t.Errorf("it handles %s: %v, want %v", tt.name, err, tt.want)
		}
		if (row != nil) != (tt.want == nil) || row != nil && row.User != tt.user {
			t.Errorf("it handles %s: row %+v, want the user %q", tt.name, row, tt.user)
		}
		if r.User != tt.user {
			t.Errorf("it handles %s: r.User = %q, want %q", tt.name, r.User, tt.user)
		}
	}
}

func TestLookupCredentials(t *testing.T) {
	const scram = "{SCRAM-SHA-256}4096,c2FsdA==,YQ==,Yg=="
	tests := []struct {
		name, stored, scheme string
		want                 string
		err                  error
	}{
		{"the scheme itself", scram, "SCRAM-SHA-256", scram, nil},
		{"the scheme in another encoding", "{DIGEST-MD5.b64}MDEyMzQ1Njc4OWFiY2RlZg==", "DIGEST-MD5", "{DIGEST-MD5}0123456789abcdef", nil},
		{"a clear password", "{cleartext}secret", "SCRAM-SHA-256", "{PLAIN}secret", nil},
		{"another scheme", "{SHA512}vSsar3708Jvp9Szi2NWZZ02Bqp1qRCFpbcTZPdBhnWgs5WtNZKnvCXdhztmeD2cmW192CF5bDufKRpayrW/isg==", "SCRAM-SHA-256", "", auth.ErrPasswordMismatch},
		{"a hash that is none", "{CRAM-MD5}00", "CRAM-MD5", "", auth.ErrPasswordMismatch},
		{"no password", "", "CRAM-MD5", "", auth.ErrPasswordMismatch},
		{"an empty password", "{PLAIN}", "CRAM-MD5", "", auth.ErrPasswordMismatch},
		{"a user who is proven otherwise", "{SHA512}x", "", "", nil},
	}
	for _, tt := range tests {
		v := &Verifier{Passdb: &passdb{row: auth.Credentials{Password: tt.stored}}, Names: defaults(t), Log: quiet}
		row, err := v.LookupCredentials(t.Context(), &auth.Request{Login: "alice@example.com"}, tt.scheme)
		if !errors.Is(err, tt.err) || (row == nil) == (tt.err == nil) {
			t.Errorf("it handles %s: %v, want %v", tt.name, err, tt.err)
			continue
		}
		if row != nil && row.Password != tt.want {
			t.Errorf("it handles %s: %q, want %q", tt.name, row.Password, tt.want)
		}
	}
}

// TestNoSecrets: passwords and hashes are in no log, however loud it is.
func TestNoSecrets(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for _, stored := range []string{"{PLAIN}s3cret-stored", "{NOSUCH}s3cret-stored", "{SSHA256}s3cret-stored"} {
		v := &Verifier{Passdb: &passdb{row: auth.Credentials{Password: stored}}, Names: defaults(t), Verbose: true, Log: log}
		if _, err := v.VerifyPlain(t.Context(), &auth.Request{Login: "alice"}, []byte("s3cret-typed")); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", stored, err)
		}
	}
	if strings.Contains(out.String(), "s3cret") || !strings.Contains(out.String(), "password mismatch") {
		t.Errorf("the log says %s", out.String())
	}
}

// busy returns how long the processor has worked for this process: others who are
// busy at the same time do not count.
func busy(t *testing.T) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// TestUnknownUserCosts: an unknown user takes as long as a wrong password does.
func TestUnknownUserCosts(t *testing.T) {
	hash, err := scheme.HashWith("SHA512-CRYPT", []byte("secret"), scheme.Options{Rounds: 50_000})
	if err != nil {
		t.Fatal(err)
	}
	db := &passdb{row: auth.Credentials{Password: hash}}
	v := &Verifier{Passdb: db, Names: defaults(t), Log: quiet}
	took := func(err error) time.Duration {
		db.err = err
		start := busy(t)
		v.VerifyPlain(t.Context(), &auth.Request{Login: "alice"}, []byte("wrong"))
		return busy(t) - start
	}
	known, unknown := time.Hour, time.Hour
	for range 5 {
		known, unknown = min(known, took(nil)), min(unknown, took(auth.ErrUnknownUser))
	}
	if unknown < known/3 || unknown > known*3 {
		t.Errorf("an unknown user took %v, a wrong password %v", unknown, known)
	}
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			name     string
			failure  time.Duration
			service  string
			spent    time.Duration // since the request began
			min, max time.Duration
		}{
			{"no delay", 0, "imap", 0, finest, finest + finest/4},
			{"no delay after 137 ms", 0, "imap", 137 * time.Millisecond, 3 * time.Millisecond, 3*time.Millisecond + finest/4},
			{"Dovecot's default", 2 * time.Second, "imap", 0, 2 * time.Second, 2*time.Second + flushInterval + shuffle},
			{"a long one", 15 * time.Second, "imap", 0, 15 * time.Second, 15*time.Second + flushInterval + shuffle},
			{"a long one for Postfix", 15 * time.Second, "smtp", 0, 7 * time.Second, maxMTADelay},
			{"a slow hash for Postfix", 2 * time.Second, "smtp", 7 * time.Second, 900 * time.Millisecond, time.Second},
			{"one that is over already", 2 * time.Second, "smtp", 9 * time.Second, 0, shuffle},
		} {
			for range 20 {
				d := NewDelay(tt.failure)
				time.Sleep(137 * time.Millisecond)
				start := time.Now()
				NewGate(Policy{}, nil, d).hold(t.Context(), d.until(tt.service == "smtp", start.Add(-tt.spent), 0))
				if took := time.Since(start); took < tt.min || took > tt.max {
					t.Errorf("it handles %s: waited %v, want %v to %v", tt.name, took, tt.min, tt.max)
				}
			}
		}
		// Refusals that were decided at different moments are told in one flush.
		d := NewDelay(2 * time.Second)
		a := d.due(false, d.start.Add(10*time.Millisecond), d.start)
		b := d.due(false, d.start.Add(490*time.Millisecond), d.start)
		if !a.Equal(b) {
			t.Errorf("flushes at %v and %v, want the same", a, b)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		start := time.Now()
		NewGate(Policy{}, nil, d).hold(ctx, d.until(false, start, 0))
		if took := time.Since(start); took != 0 {
			t.Errorf("a client that has gone was waited for, %v", took)
		}
	})
}

func TestNets(t *testing.T) {
	tests := []struct {
		name, list, ip string
		want           bool
	}{
		{"an address", "192.0.2.1", "192.0.2.1", true},
		{"another address", "192.0.2.1", "192.0.2.2", false},
		{"a network in a list", "10.0.0.0/8, 192.0.2.0/24", "192.0.2.7", true},
		{"a list with blanks only", "10.0.0.0/8 192.0.2.0/24", "192.0.2.7", true},
		{"an unaligned network", "192.0.2.77/24", "192.0.2.1", true},
		{"IPv6", "2001:db8::/32", "2001:db8::1", true},
		{"a mapped address", "192.0.2.0/24", "::ffff:192.0.2.1", true},
		{"a mapped network", "::ffff:192.0.2.0/120", "192.0.2.1", true},
		{"everything of one family", "0.0.0.0/0", "2001:db8::1", false},
		{"local, and no address", "local", "", true},
		{"local, and an address", "local", "127.0.0.1", false},
		{"no address", "0.0.0.0/0", "", false},
		{"an empty list", "", "192.0.2.1", false},
		{"rubbish", "x, 1.2.3.4/33, 1.2.3.4/-1, /8", "1.2.3.4", false},
	}
	for _, tt := range tests {
		ip, _ := netip.ParseAddr(tt.ip)
		if got := inNets(tt.list, ip); got != tt.want {
			t.Errorf("it handles %s: inNets(%q, %q) = %v, want %v", tt.name, tt.list, tt.ip, got, tt.want)
		}
	}
	row := &auth.Credentials{Fields: fields("allow_real_nets", "10.0.0.0/8")}
	r := &auth.Request{RemoteIP: netip.MustParseAddr("192.0.2.1"), RealRemoteIP: netip.MustParseAddr("10.0.0.1")}
	if why := checkNets(r, row); why != "" {
		t.Errorf("allow_real_nets behind a proxy: %s", why)
	}
	if why := checkNets(&auth.Request{RemoteIP: netip.MustParseAddr("192.0.2.1")}, row); why == "" {
		t.Error("allow_real_nets without a proxy is not applied to rip")
	}
}

func TestNames(t *testing.T) {
	tests := []struct {
		name, realm, translation, chars, format string
		login, want                             string
	}{
		{"the defaults", "", "", DefaultUsernameChars, DefaultUsernameFormat, "Alice@Example.COM", "alice@example.com"},
		{"a name without a domain", "", "", DefaultUsernameChars, DefaultUsernameFormat, "Alice", "alice"},
		{"a default realm", "Example.com", "", DefaultUsernameChars, DefaultUsernameFormat, "alice", "alice@example.com"},
		{"a realm that is there", "example.com", "", DefaultUsernameChars, DefaultUsernameFormat, "alice@x", "alice@x"},
		{"translation before the check", "", "#@/@", DefaultUsernameChars, "", "Alice#Example.com", "Alice@Example.com"},
		{"the realm before translation", "example.com", "%@", DefaultUsernameChars + "%", "", "a%b", "a@b@example.com"},
		{"a quote", "", "", DefaultUsernameChars, "", "o'brien@example.com", ""},
		{"a slash", "", "", DefaultUsernameChars, "", "../x", ""},
		{"8-bit octets", "", "", DefaultUsernameChars, "", "m\xc3\xbcller", ""},
		{"all characters", "", "", "", "%Lu", "M\xc3\x9cller X", "m\xc3\x9cller x"},
		{"NUL, which nothing allows", "", "", "", "", "a\x00b", ""},
		{"the local part", "", "", DefaultUsernameChars, "%n", "alice@a@b", "alice"},
		{"the domain", "", "", DefaultUsernameChars, "%d", "alice@a@b", "a@b"},
		{"a recombination", "", "", DefaultUsernameChars, "%Ln@%Ud", "Alice@Example.com", "alice@EXAMPLE.COM"},
		{"long names", "", "", DefaultUsernameChars, "%L{username}-%{domain}%%", "Alice@x", "alice-x%"},
		{"an empty result", "", "", DefaultUsernameChars, "%d", "alice", ""},
		{"an empty name with a realm", "example.com", "", DefaultUsernameChars, "%u", "", ""},
		{"an empty name", "", "", DefaultUsernameChars, "%u", "", ""},
	}
	for _, tt := range tests {
		n := mustNames(t, tt.realm, tt.translation, tt.chars, tt.format)
		got, err := n.Canonical(tt.login)
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("it handles %s: Canonical(%q) = %q, %v; want %q", tt.name, tt.login, got, err, tt.want)
		}
	}
	for _, bad := range [][2]string{{"", "%x"}, {"", "%"}, {"", "%{homes}"}, {"", "%{user"}, {"abc", ""}} {
		if _, err := NewNames("", bad[0], "", bad[1]); err == nil {
			t.Errorf("NewNames(%q, %q): no error", bad[0], bad[1])
		}
	}
}

type userdb struct{ user auth.User }

func (u userdb) LookupUser(_ context.Context, r *auth.Request) (*auth.User, error) {
	found := u.user
	if found.Name == "" {
		found.Name = r.User
	}
	return &found, nil
}

func (u userdb) Users(_ context.Context, mask string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) { yield(mask, nil) }
}

func TestLookup(t *testing.T) {
	l := Lookup{Names: defaults(t), Passdb: &passdb{}, Userdb: userdb{}}
	u, err := l.LookupUser(t.Context(), &auth.Request{Login: "Alice@Example.com"})
	if err != nil || u.Name != "alice@example.com" {
		t.Errorf("LookupUser = %+v, %v", u, err)
	}
	if _, err := l.LookupUser(t.Context(), &auth.Request{Login: "../alice"}); !errors.Is(err, auth.ErrUnknownUser) {
		t.Errorf("a name that is not allowed: %v, want ErrUnknownUser", err)
	}
	// A login that has been proven is not put through the rules again.
	if u, err := l.LookupUser(t.Context(), &auth.Request{User: "o'brien", Login: "x"}); err != nil || u.Name != "o'brien" {
		t.Errorf("a name that is set: %+v, %v", u, err)
	}
	// Nor is a name that a row gives: homes are named by it.
	l.Userdb = userdb{auth.User{Name: "B'ob@Example.COM"}}
	r := &auth.Request{Login: "alias"}
	if u, err := l.LookupUser(t.Context(), r); err != nil || u.Name != "B'ob@Example.COM" || r.User != u.Name {
		t.Errorf("a renamed user: %+v, %v, r.User = %q", u, err, r.User)
	}
	for name := range l.Users(t.Context(), "a*") {
		if name != "a*" {
			t.Errorf("Users: %q", name)
		}
	}
}

// FuzzNames checks that a canonical name has only characters that are allowed, and
// is its own canonical name.
func FuzzNames(f *testing.F) {
	f.Add("Alice@Example.com", "")
	f.Add("al#ice", "#@")
	f.Fuzz(func(t *testing.T, login, translation string) {
		n, err := NewNames("example.com", translation, DefaultUsernameChars, DefaultUsernameFormat)
		if err != nil {
			return
		}
		name, err := n.Canonical(login)
		if err != nil {
			return
		}
		for i := range len(name) {
			if !strings.Contains(DefaultUsernameChars, name[i:i+1]) {
				t.Fatalf("Canonical(%q) = %q", login, name)
			}
		}
		plain := mustNames(t, "", "", DefaultUsernameChars, DefaultUsernameFormat)
		if again, err := plain.Canonical(name); again != name {
			t.Fatalf("Canonical(%q) = %q, %v", name, again, err)
		}
	})
}
