package main

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dovepost/auth"
	"dovepost/auth/dovecot"
	"dovepost/auth/sasl"
	"dovepost/lookup"
	"dovepost/lookup/socketmap"
)

// listen serves every connection to a new socket and returns its path.
func listen(t *testing.T, serve func(ctx context.Context, c net.Conn) error) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(t.Context(), c)
			}()
		}
	}()
	return socket
}

// site is a database of two users.
type site struct{}

func (site) Lookup(_ context.Context, key string) ([]string, error) {
	switch key {
	case "a@example.com":
		return []string{"b@example.com", "c@example.com"}, nil
	case "broken":
		return nil, errors.New("the database is away")
	}
	return nil, lookup.ErrNotFound
}

func (site) VerifyPlain(_ context.Context, r *auth.Request, password []byte) (*auth.Credentials, error) {
	switch {
	case r.Login == "broken":
		return nil, errors.New("the database is away")
	case r.Login == "closed":
		return nil, &auth.Refusal{Err: auth.ErrUserDisabled, Reason: "pay first"}
	case r.Login != "alice" || string(password) != "geheim":
		return nil, auth.ErrPasswordMismatch
	}
	return &auth.Credentials{User: "alice@example.com"}, nil
}

func (site) LookupCredentials(context.Context, *auth.Request, string) (*auth.Credentials, error) {
	return nil, auth.ErrUnknownUser
}

func (site) LookupPass(_ context.Context, r *auth.Request) (*auth.Credentials, error) {
	switch r.Login {
	case "alice":
		return &auth.Credentials{User: "alice@example.com", Password: "{PLAIN}geheim", Fields: auth.Fields{
			{Name: "proxy"}, {Name: "host", Value: "192.0.2.1", HasValue: true}, {Name: "pass", Value: "geheim", HasValue: true}}}, nil
	case "broken":
		return nil, errors.New("the database is away")
	}
	return nil, auth.ErrUnknownUser
}

func (site) LookupUser(_ context.Context, r *auth.Request) (*auth.User, error) {
	switch r.Login {
	case "alice":
		return &auth.User{Name: "alice@example.com", Home: "/mail/alice", UID: "5000", GID: "5000", Mail: "maildir:~/Maildir",
			Fields: auth.Fields{{Name: "quota_rule", Value: "*:storage=1G", HasValue: true}}}, nil
	case "broken":
		return nil, errors.New("the database is away")
	}
	return nil, auth.ErrUnknownUser
}

func (site) Users(_ context.Context, mask string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, name := range []string{"alice@example.com", "bob@example.com"} {
			if !yield(name, nil) {
				return
			}
		}
		if mask == "b*" {
			yield("", errors.New("the database is away"))
		}
	}
}

// sockets serves the site as lookupd and authd do.
func sockets(t *testing.T) (lookupd, client, userdb string) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	mechanisms, err := sasl.New("plain", sasl.Options{})
	if err != nil {
		t.Fatal(err)
	}
	maps := lookup.Maps{"m": site{}}
	instance := dovecot.NewInstance()
	return listen(t, (&socketmap.Handler{Maps: func() lookup.Maps { return maps }, Log: quiet}).ServeConn),
		listen(t, (&dovecot.ClientHandler{Instance: instance, Mechanisms: mechanisms, Verifier: site{}, Log: quiet}).ServeConn),
		listen(t, (&dovecot.MasterHandler{Instance: instance, UserdbOnly: true, Passdb: site{}, Userdb: site{}, Log: quiet}).ServeConn)
}

// dovepost runs a command line with in as its standard input.
func dovepost(t *testing.T, in string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		io.WriteString(w, in)
		w.Close()
	}()
	var out, errs strings.Builder
	code = run(&call{t.Context(), r, &out, &errs}, args)
	return code, out.String(), errs.String()
}

func TestCommands(t *testing.T) {
	lookupd, client, userdb := sockets(t)
	nobody := filepath.Join(t.TempDir(), "nobody")
	for _, tt := range []struct {
		name, args, in string
		code           int
		stdout, stderr string // stderr: a part of it
	}{
		{"nothing", "", "", exitUsage, "", "dovepost lookup MAP KEY"},
		{"a command that is none", "auth frobnicate", "", exitUsage, "", `no command "auth frobnicate"`},
		{"a flag that is none", "pw --nonsense", "", exitUsage, "", "unknown flag"},
		{"too few arguments", "lookup m", "", exitUsage, "", "usage: dovepost lookup [flags] MAP KEY ..."},
		{"too many arguments", "auth test a b", "", exitUsage, "", "usage: dovepost auth test"},
		{"a socket that is none", "lookup --socket nonsense m k", "", exitUsage, "", "want unix:PATH"},

		{"a key", "lookup --socket LOOKUPD m a@example.com", "", exitOK, "b@example.com,c@example.com\n", ""},
		{"a key that is not there", "lookup --socket LOOKUPD m x@example.com", "", exitNotFound, "", ""},
		{"several keys", "lookup --socket LOOKUPD m x@example.com a@example.com", "", exitNotFound, "a@example.com\tb@example.com,c@example.com\n", ""},
		{"keys on standard input", "lookup --socket LOOKUPD m -", "a@example.com\n", exitOK, "a@example.com\tb@example.com,c@example.com\n", ""},
		{"a database that is away", "lookup --socket LOOKUPD m broken x a@example.com", "", exitTemp, "a@example.com\tb@example.com,c@example.com\n", "broken: socketmap server says"},
		{"a map that is none", "lookup --socket LOOKUPD n a@example.com", "", exitTemp, "", "socketmap server says"},
		{"no lookupd", "lookup --socket NOBODY m a@example.com", "", exitTemp, "", "no such file"},

		{"a login", "auth test --socket CLIENT alice", "geheim\n", exitOK, "logged in\nuser\talice@example.com\noriginal_user\talice\n", ""},
		{"a login without a line end", "auth test --socket CLIENT alice", "geheim", exitOK, "logged in\nuser\talice@example.com\noriginal_user\talice\n", ""},
		{"a wrong password", "auth test --socket CLIENT alice", "Geheim\n", exitRefused, "", "refused"},
		{"a refusal with a text", "auth test --socket CLIENT closed", "x\n", exitRefused, "", "refused: pay first"},
		{"a login while the database is away", "auth test --socket CLIENT broken", "x\n", exitTemp, "", "temp_fail"},
		{"a login without a password", "auth test --socket CLIENT alice", "", exitUsage, "", "no password"},
		{"a login from an address that is none", "auth test --socket CLIENT --rip x alice", "geheim\n", exitUsage, "", "no IP address"},
		{"no authd", "auth test --socket NOBODY alice", "x\n", exitTemp, "", "no such file"},
		{"the wrong socket", "user --socket CLIENT alice", "", exitTemp, "", "auth-client socket"},

		{"what is known of a login", "auth lookup --socket USERDB alice", "", exitOK, "user\talice@example.com\nproxy\nhost\t192.0.2.1\npass\t(not shown)\n", ""},
		{"an unknown login", "auth lookup --socket USERDB mallory", "", exitNoUser, "", "mallory: unknown user"},
		{"a lookup while the database is away", "auth lookup --socket USERDB broken", "", exitTemp, "", "broken: "},

		{"a user", "user --socket USERDB alice", "", exitOK, "user\talice@example.com\nuid\t5000\ngid\t5000\nhome\t/mail/alice\nmail\tmaildir:~/Maildir\nquota_rule\t*:storage=1G\n", ""},
		{"a field of a user", "user --socket USERDB -f home alice", "", exitOK, "/mail/alice\n", ""},
		{"a field that is not there", "user --socket USERDB -f nonsense alice", "", exitNoUser, "", "no field"},
		{"an unknown user", "user --socket USERDB mallory alice", "", exitNoUser, "user\talice@example.com\nuid\t5000\ngid\t5000\nhome\t/mail/alice\nmail\tmaildir:~/Maildir\nquota_rule\t*:storage=1G\n", "mallory: unknown user"},
		{"all users", "user --socket USERDB", "", exitOK, "alice@example.com\nbob@example.com\n", ""},
		{"users of a mask, in any case", "user --socket USERDB A*", "", exitOK, "alice@example.com\n", ""},
		{"a list that breaks off", "user --socket USERDB b*", "", exitTemp, "", "could not list"},

		{"a right password", "pw -t {SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "secret\n", exitOK, "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ= (verified)\n", ""},
		{"a password that does not match", "pw -t {SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "Secret\n", exitTemp, "", "does not match"},
		{"a hash of no scheme", "pw -t secret", "secret\n", exitTemp, "", "unknown password scheme"},
		{"a scheme that needs a name", "pw -s digest-md5", "secret\n", exitUsage, "", "name is needed"},
		{"a hash with a name", "pw -s digest-md5 -u test@example.com", "secret\n", exitOK, "{DIGEST-MD5}e02f7ac200bc57887c7f0fa03bd4eeb2\n", ""},
		{"a cost out of bounds", "pw -s BLF-CRYPT -r 99", "secret\n", exitUsage, "", "too much work"},
		{"an empty password", "pw -s PLAIN", "\n", exitOK, "{PLAIN}\n", ""},
		{"a password with blanks", "pw -s PLAIN", "  a b \r\n", exitOK, "{PLAIN}  a b \r\n", ""},
		{"no password", "pw -s PLAIN", "", exitUsage, "", "no password"},
		{"a password that is too long", "pw -s PLAIN", strings.Repeat("x", maxPassword+1), exitUsage, "", "longer than"},
	} {
		args := strings.Fields(strings.NewReplacer("LOOKUPD", "unix:"+lookupd, "CLIENT", "unix:"+client, "USERDB", userdb, "NOBODY", nobody).Replace(tt.args))
		code, stdout, stderr := dovepost(t, tt.in, args...)
		if code != tt.code || stdout != tt.stdout || !strings.Contains(stderr, tt.stderr) || tt.stderr == "" && stderr != "" {
			t.Errorf("it handles %s: dovepost %s: %d, %q, %q; want %d, %q, %q", tt.name, tt.args, code, stdout, stderr, tt.code, tt.stdout, tt.stderr)
		}
	}
}

func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		mask, name string
		want       bool
	}{
		{"*", "", true}, {"*", "a@b", true}, {"a*", "ab", true}, {"a*", "ba", false}, {"*@b", "a@b", true}, {"*@b", "a@bb", false},
		{"*b*c", "abbcbc", true}, {"*b*c", "abbcb", false}, {"?", "", false}, {"?", "a", true}, {"a?c*", "abc", true}, {"", "a", false},
		{"a**", "a", true}, {"[a]*", "a", false}, {"[a]*", "[a]b", true},
	} {
		if got := matches(tt.mask, tt.name); got != tt.want {
			t.Errorf("matches(%q, %q) = %v, want %v", tt.mask, tt.name, got, tt.want)
		}
	}
}

func TestHelpIsTheDocComment(t *testing.T) {
	for _, cmd := range commands {
		for _, args := range [][]string{append(strings.Fields(cmd.name), "--help"), append([]string{"help"}, strings.Fields(cmd.name)...)} {
			code, stdout, stderr := dovepost(t, "", args...)
			if code != exitOK || !strings.HasPrefix(stdout, "dovepost "+cmd.name) || strings.Contains(stdout, "//") || stderr != "" {
				t.Errorf("dovepost %s: %d, %q, %q", args, code, stdout, stderr)
			}
		}
		if _, stdout, _ := dovepost(t, "", "help"); !strings.Contains(stdout, "dovepost "+cmd.name) {
			t.Errorf("dovepost help does not name %s", cmd.name)
		}
	}
}

func TestAHashMadeHereIsVerifiedHere(t *testing.T) {
	code, stored, stderr := dovepost(t, "geheim\n", "pw")
	if code != exitOK || !strings.HasPrefix(stored, "{SHA512-CRYPT}$6$") {
		t.Fatalf("%d, %q, %q", code, stored, stderr)
	}
	stored = strings.TrimSpace(stored)
	if code, stdout, stderr := dovepost(t, "geheim\n", "pw", "-t", stored); code != exitOK || stdout != stored+" (verified)\n" {
		t.Errorf("%d, %q, %q", code, stdout, stderr)
	}
}

func TestNoFlagTakesAPassword(t *testing.T) {
	if code, stdout, _ := dovepost(t, "", "pw", "-p", "secret"); code != exitUsage || stdout != "" {
		t.Errorf("-p: %d, %q", code, stdout)
	}
}
