package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"dovepost/cmd/internal/daemon/daemontest"
	"dovepost/cmd/internal/faultproxy"
	"dovepost/lookup/socketmap"
)

// The tests run this binary as lookupd.
func TestMain(m *testing.M) { daemontest.Main(m, main) }

func TestExitCodes(t *testing.T) {
	server := fmt.Sprintf("hosts = 127.0.0.1:%d\nuser = u\npassword = s3cret\ndbname = d\n", faultproxy.ClosedPort(t))
	good := daemontest.WriteFile(t, "good.cf", server+"query = SELECT 1 FROM t WHERE k='%s'\n")
	noQuery := daemontest.WriteFile(t, "noquery.cf", server)
	badQuery := daemontest.WriteFile(t, "badquery.cf", server+"query = SELECT '%Y'\n")
	listen := "--listen=socketmap:unix:" + filepath.Join(t.TempDir(), "s")
	for _, tt := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"no map", []string{"--check"}, 78, "no map to serve"},
		{"an unknown flag", []string{"--maps=x"}, 64, "unknown flag"},
		{"no listener", []string{"--map=m=exact:" + good}, 78, "nothing to listen on"},
		{"a file that is not there", []string{"--check", "--map=m=exact:/nonexistent/a.cf"}, 78, "/nonexistent/a.cf"},
		{"a file without a query", []string{"--check", "--map=m=exact:" + noQuery}, 78, "query"},
		{"a query that cannot be", []string{"--check", "--map=m=exact:" + badQuery}, 78, "badquery.cf"},
		{"a map without a kind", []string{"--check", "--map=m=" + good}, 78, "want NAME=KIND:FILE"},
		{"an unknown class", []string{"--check", "--propagate_unmatched_extensions=all", "--map=m=exact:" + good}, 78, "unknown class"},
		{"a timeout beyond Postfix's", []string{"--check", "--lookup_timeout=100s", "--map=m=exact:" + good}, 78, "lookup_timeout"},
		{"tcp_table without a map", []string{"--map=m=exact:" + good, "--listen=tcp_table:inet:127.0.0.1:0"}, 78, "tcp_table=NAME"},
		{"tcp_table of a map that is not there", []string{"--map=m=exact:" + good, "--listen=tcp_table=x:inet:127.0.0.1:0"}, 78, "there is no map"},
		{"--check without a server", []string{"--check", listen, "--mysql=" + noQuery}, 75, "connect"},
	} {
		t.Run("it handles "+tt.name, func(t *testing.T) {
			daemontest.Exits(t, tt.code, tt.says, tt.args...)
		})
	}
}

// A database that is away is no obstacle at start and never a "not found"; SIGHUP
// brings new maps to open connections, and a bad file changes nothing; SIGTERM is a
// good end.
func TestAway(t *testing.T) {
	dir := t.TempDir()
	server := fmt.Sprintf("hosts = 127.0.0.1:%d\nuser = u\npassword = s3cret\ndbname = d\n", faultproxy.ClosedPort(t))
	mysql := daemontest.WriteFile(t, "mysql.cf", server)
	table := daemontest.WriteFile(t, "table.cf", server+"query = SELECT 1 FROM t WHERE k='%s'\n")
	config := daemontest.WriteFile(t, "lookupd.cf", "mysql = "+mysql+"\nmap = extra=exact:"+table+"\n")
	socket := filepath.Join(dir, "s")
	l := daemontest.Start(t, daemontest.Command(t, "--config="+config, "--listen=socketmap:unix:"+socket))
	l.WaitFor("does not answer yet")
	l.WaitFor("msg=ready")

	client, err := socketmap.Dial(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	check := func(name, want string) {
		t.Helper()
		var reply *socketmap.ReplyError
		if value, err := client.Lookup(t.Context(), name, "user+x@example.com"); !errors.As(err, &reply) || reply.Reply != want {
			t.Errorf("%s: %q, %v; want %q", name, value, err, want)
		}
	}
	for _, name := range []string{"virtual_mailbox_domains", "virtual_mailbox_maps", "virtual_alias_maps", "smtpd_sender_login_maps", "extra"} {
		check(name, "TEMP lookup failed")
	}
	check("nosuch", "TEMP unknown map")

	hangUp := func(text, words string) {
		t.Helper()
		if err := os.WriteFile(table, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		l.Signal(syscall.SIGHUP)
		l.WaitFor(words)
		check("extra", "TEMP lookup failed")
	}
	hangUp("this is no table\n", "the old state stays")
	hangUp(server+"query = SELECT 2 FROM t WHERE k='%s'\n", "msg=reloaded")

	l.Stop()
}

// SIGUSR1 tells how the cache fares, and the file of the cache is there after the end.
func TestCacheFile(t *testing.T) {
	dir := t.TempDir()
	table := daemontest.WriteFile(t, "table.cf", fmt.Sprintf("hosts = 127.0.0.1:%d\ndbname = d\nquery = SELECT 1 FROM t WHERE k='%%s'\n", faultproxy.ClosedPort(t)))
	socket := filepath.Join(dir, "s")
	cmd := daemontest.Command(t, "--map=m=exact:"+table, "--listen=socketmap:unix:"+socket)
	cmd.Env = append(cmd.Env, "STATE_DIRECTORY="+dir)
	if err := os.WriteFile(filepath.Join(dir, "cache"), []byte("no cache"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := daemontest.Start(t, cmd)
	l.WaitFor("cache of the last run is not used")
	l.WaitFor("msg=ready")
	client, err := socketmap.Dial(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Lookup(t.Context(), "m", "a"); err == nil {
		t.Error("there is an answer without a database")
	}
	l.Signal(syscall.SIGUSR1)
	l.WaitFor("msg=cache hits=0 stale=0 misses=1 entries=0 bytes=0 limit=67108864")
	l.Stop()
	if info, err := os.Stat(filepath.Join(dir, "cache")); err != nil || info.Size() < 50 || info.Mode() != 0o600 {
		t.Errorf("the file is %v, %v", info, err)
	}
}
