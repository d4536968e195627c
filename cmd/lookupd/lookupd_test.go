package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dovepost/cmd/internal/faultproxy"
	"dovepost/lookup/socketmap"
)

// The tests run this binary as lookupd.
func TestMain(m *testing.M) {
	if os.Getenv("RUN_LOOKUPD") != "" {
		main()
	}
	os.Exit(m.Run())
}

// command returns lookupd with arguments.
func command(t *testing.T, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), "RUN_LOOKUPD=1")
	return cmd
}

// running is lookupd, and what it logs.
type running struct {
	*exec.Cmd
	t   *testing.T
	log *bufio.Scanner
}

// start starts lookupd, which has a minute: then the log ends, and so does the waiting.
func start(t *testing.T, cmd *exec.Cmd) *running {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	t.Cleanup(func() { limit.Stop() })
	return &running{cmd, t, bufio.NewScanner(stderr)}
}

// waitFor waits for words in the log.
func (r *running) waitFor(words string) {
	r.t.Helper()
	for r.log.Scan() {
		if strings.Contains(r.log.Text(), words) {
			return
		}
	}
	r.t.Fatalf("the log ended without %q", words)
}

// stop ends lookupd, in good order.
func (r *running) stop() {
	r.t.Helper()
	r.Process.Signal(syscall.SIGTERM)
	r.waitFor("msg=stopped")
	if err := r.Wait(); err != nil {
		r.t.Errorf("exit: %v", err)
	}
}

func writeFile(t *testing.T, name, text string) string {
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExitCodes(t *testing.T) {
	server := fmt.Sprintf("hosts = 127.0.0.1:%d\nuser = u\npassword = p\ndbname = d\n", faultproxy.ClosedPort(t))
	good := writeFile(t, "good.cf", server+"query = SELECT 1 FROM t WHERE k='%s'\n")
	noQuery := writeFile(t, "noquery.cf", server)
	badQuery := writeFile(t, "badquery.cf", server+"query = SELECT '%Y'\n")
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
			out, err := command(t, tt.args...).CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != tt.code || !strings.Contains(string(out), tt.says) {
				t.Errorf("%v: %v, %s; want exit %d that says %q", tt.args, err, out, tt.code, tt.says)
			}
			if strings.Contains(string(out), "password") {
				t.Errorf("says the password: %s", out)
			}
		})
	}
}

// A database that is away is no obstacle at start and never a "not found"; SIGHUP
// brings new maps to open connections, and a bad file changes nothing; SIGTERM is a
// good end.
func TestAway(t *testing.T) {
	dir := t.TempDir()
	server := fmt.Sprintf("hosts = 127.0.0.1:%d\nuser = u\npassword = p\ndbname = d\n", faultproxy.ClosedPort(t))
	mysql := writeFile(t, "mysql.cf", server)
	table := writeFile(t, "table.cf", server+"query = SELECT 1 FROM t WHERE k='%s'\n")
	config := writeFile(t, "lookupd.cf", "mysql = "+mysql+"\nmap = extra=exact:"+table+"\n")
	socket := filepath.Join(dir, "s")
	l := start(t, command(t, "--config="+config, "--listen=socketmap:unix:"+socket))
	l.waitFor("does not answer yet")
	l.waitFor("msg=ready")

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
		l.Process.Signal(syscall.SIGHUP)
		l.waitFor(words)
		check("extra", "TEMP lookup failed")
	}
	hangUp("this is no table\n", "the old state stays")
	hangUp(server+"query = SELECT 2 FROM t WHERE k='%s'\n", "msg=reloaded")

	l.stop()
}

// SIGUSR1 tells how the cache fares, and the file of the cache is there after the end.
func TestCacheFile(t *testing.T) {
	dir := t.TempDir()
	table := writeFile(t, "table.cf", fmt.Sprintf("hosts = 127.0.0.1:%d\ndbname = d\nquery = SELECT 1 FROM t WHERE k='%%s'\n", faultproxy.ClosedPort(t)))
	socket := filepath.Join(dir, "s")
	cmd := command(t, "--map=m=exact:"+table, "--listen=socketmap:unix:"+socket)
	cmd.Env = append(cmd.Env, "STATE_DIRECTORY="+dir)
	if err := os.WriteFile(filepath.Join(dir, "cache"), []byte("no cache"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := start(t, cmd)
	l.waitFor("cache of the last run is not used")
	l.waitFor("msg=ready")
	client, err := socketmap.Dial(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Lookup(t.Context(), "m", "a"); err == nil {
		t.Error("there is an answer without a database")
	}
	l.Process.Signal(syscall.SIGUSR1)
	l.waitFor("msg=cache hits=0 stale=0 misses=1 entries=0 bytes=0 limit=67108864")
	l.stop()
	if info, err := os.Stat(filepath.Join(dir, "cache")); err != nil || info.Size() < 50 || info.Mode() != 0o600 {
		t.Errorf("the file is %v, %v", info, err)
	}
}
