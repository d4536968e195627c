package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"dovepost/auth"
	"dovepost/auth/dovecot"
	"dovepost/cmd/internal/daemon"
	"dovepost/cmd/internal/daemon/daemontest"
	"dovepost/cmd/internal/faultproxy"
)

// The tests run this binary as authd.
func TestMain(m *testing.M) { daemontest.Main(m, main) }

func TestSettings(t *testing.T) {
	tests := []struct {
		name string
		args []string
		err  string // empty: they are good
	}{
		{"the least", []string{"--mysql=f"}, ""},
		{"Dovecot's own words", []string{"--sql=f", "--auth_mechanisms=login plain", "--auth_failure_delay=2 secs", "--auth_verbose=yes", "--auth_username_format=%Ln@%d"}, ""},
		{"neither file", nil, "--sql and --mysql"},
		{"both files", []string{"--sql=f", "--mysql=f"}, "--sql and --mysql"},
		{"an unknown mechanism", []string{"--mysql=f", "--auth_mechanisms=plain gssapi"}, "GSSAPI"},
		{"an unknown scheme", []string{"--mysql=f", "--default_pass_scheme=NOSUCH"}, "NOSUCH"},
		{"a broken format", []string{"--mysql=f", "--auth_username_format=%q"}, "auth_username_format"},
		{"odd translation", []string{"--mysql=f", "--auth_username_translation=abc"}, "auth_username_translation"},
		{"a delay without end", []string{"--mysql=f", "--auth_failure_delay=1h"}, "auth_failure_delay"},
		{"no connection", []string{"--mysql=f", "--mysql_max_connections=0"}, "mysql_max_connections"},
	}
	for _, tt := range tests {
		var s settings
		fs := pflag.NewFlagSet("authd", pflag.ContinueOnError)
		s.flags(fs)
		if err := fs.Parse(tt.args); err != nil {
			t.Errorf("it handles %s: %v", tt.name, err)
			continue
		}
		_, err := s.check()
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("it handles %s: %v, want %q", tt.name, err, tt.err)
		}
	}
}

// TestManual: the manual names every setting of the program's own kinds of sockets.
func TestManual(t *testing.T) {
	text := daemon.Manual(source)
	for _, word := range []string{"login ", "client ", "master ", "userdb ", "--sql", "--mysql", "SIGHUP"} {
		if !strings.Contains(text, word) {
			t.Errorf("the manual does not mention %q", word)
		}
	}
}

func TestExitCodes(t *testing.T) {
	port := faultproxy.ClosedPort(t)
	sql := fmt.Sprintf("driver = mysql\nconnect = host=127.0.0.1 port=%d dbname=d user=u password=s3cret\n", port)
	good := daemontest.WriteFile(t, "good.conf", sql+"password_query = SELECT password FROM users WHERE email='%u'\n")
	bad := daemontest.WriteFile(t, "bad.conf", sql+"password_query = SELECT '%{nosuch}'\n")
	scheme := daemontest.WriteFile(t, "scheme.conf", sql+"default_pass_scheme = SHA-512\npassword_query = SELECT password FROM users WHERE email='%u'\n")
	listen := "--listen=login:unix:" + filepath.Join(t.TempDir(), "s")
	for _, tt := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"no file", []string{"--check"}, 78, "one of --sql and --mysql"},
		{"a file that is not there", []string{"--check", "--sql=/nonexistent/a.conf"}, 78, "/nonexistent/a.conf"},
		{"a query that cannot be", []string{"--check", "--sql=" + bad}, 78, "bad.conf"},
		{"a scheme that does not exist", []string{"--check", listen, "--sql=" + scheme}, 78, "default_pass_scheme: unknown scheme"},
		{"no listener", []string{"--sql=" + good}, 78, "nothing to listen on"},
		{"an unknown kind", []string{"--sql=" + good, "--listen=auth:unix:/nonexistent/s"}, 78, "auth"},
		{"an unknown flag", []string{"--password=x"}, 64, "unknown flag"},
		{"a value that is none", []string{"--sql=" + good, "--auth_verbose=perhaps"}, 64, "auth_verbose"},
		{"--check without a server", []string{"--check", listen, "--sql=" + good}, 75, "connect"},
	} {
		t.Run("it handles "+tt.name, func(t *testing.T) {
			daemontest.Exits(t, tt.code, tt.says, tt.args...)
		})
	}
}

// A database that is away is no obstacle at start, never an unknown user and never
// a wrong password; SIGHUP with a bad file changes nothing; SIGTERM is a good end.
func TestAway(t *testing.T) {
	file := daemontest.WriteFile(t, "sql.conf", fmt.Sprintf("driver = mysql\nconnect = host=127.0.0.1 port=%d dbname=d user=u password=s3cret\npassword_query = SELECT password FROM users WHERE email = '%%u'\n", faultproxy.ClosedPort(t)))
	dir := t.TempDir()
	socket := func(kind string) string { return filepath.Join(dir, kind) }
	args := []string{"--sql=" + file}
	for _, kind := range []string{"login", "client", "master", "userdb"} {
		args = append(args, "--listen="+kind+":unix:"+socket(kind)+",mode=0600")
	}
	a := daemontest.Start(t, daemontest.Command(t, args...))
	a.WaitFor("does not answer yet")
	a.WaitFor("msg=ready")

	client := &dovecot.Client{Network: "unix", Address: socket("client"), Timeout: time.Minute}
	users := &dovecot.Userdb{Network: "unix", Address: socket("userdb"), Timeout: time.Minute}
	defer users.Close()
	ask := func() {
		t.Helper()
		r := &auth.Request{Login: "alice@example.com", Service: "imap"}
		if _, err := client.AuthPlain(t.Context(), r, []byte("s3cret")); err == nil || auth.Refused(err) {
			t.Errorf("login: %v, want a temporary error", err)
		}
		if _, err := users.LookupUser(t.Context(), r); err == nil || auth.Refused(err) {
			t.Errorf("lookup: %v, want a temporary error", err)
		}
		var last error
		for _, err := range users.Users(t.Context(), "*") {
			last = err
		}
		if last == nil {
			t.Error("list: no error")
		}
	}
	ask()
	a.WaitFor("result=temp user=alice@example.com service=imap mech=PLAIN")
	if err := os.WriteFile(file, []byte("password_query = x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.Signal(syscall.SIGHUP)
	a.WaitFor("the old state stays")
	ask()
	a.Stop()
}
