// Package dovepost tests the administrator's command with Dovecot's own auth
// service, which speaks what authd speaks.
package dovepost

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const conf = `base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
protocols =
ssl = no
disable_plaintext_auth = no
auth_failure_delay = 0
passdb {
  driver = passwd-file
  args = %[1]s/passwd
}
userdb {
  driver = passwd-file
  args = %[1]s/passwd
}
`

// run runs a program and returns its exit code and what it printed.
func run(t *testing.T, in, name string, args ...string) (code int, stdout string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(in)
	out, err := cmd.Output()
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode(), string(out)
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return 0, string(out)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// startDovecot starts the auth service with users whose passwords dovepost pw hashed.
func startDovecot(t *testing.T, command string) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "dovepost-e2e-") // t.TempDir is closed to Dovecot's users
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	must(t, os.Mkdir(filepath.Join(dir, "run"), 0o755))
	must(t, os.Mkdir(filepath.Join(dir, "state"), 0o755))
	var passwd strings.Builder
	for i, scheme := range []string{"ARGON2ID", "SHA512-CRYPT", "BLF-CRYPT", "SSHA512", "PBKDF2", "SCRAM-SHA-256"} {
		code, stored := run(t, "gehäim\n", command, "pw", "-s", scheme)
		if code != 0 {
			t.Fatalf("dovepost pw -s %s: exit code %d", scheme, code)
		}
		fmt.Fprintf(&passwd, "user%d@example.com:%s:5000:5000::/mail/%d::userdb_quota_rule=*:storage=1G\n", i, strings.TrimSpace(stored), i)
	}
	must(t, os.WriteFile(filepath.Join(dir, "passwd"), []byte(passwd.String()), 0o644))
	config := filepath.Join(dir, "dovecot.conf")
	must(t, os.WriteFile(config, fmt.Appendf(nil, conf, dir), 0o644))

	dovecot := exec.Command("/usr/sbin/dovecot", "-F", "-c", config)
	dovecot.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	must(t, dovecot.Start())
	t.Cleanup(func() {
		dovecot.Process.Signal(syscall.SIGTERM)
		dovecot.Wait()
		if log, _ := os.ReadFile(filepath.Join(dir, "log")); t.Failed() {
			t.Logf("Dovecot's log:\n%s", log)
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, "run/auth-userdb")); err == nil {
			return dir
		}
		if time.Now().After(deadline) {
			t.Fatal("Dovecot does not start")
		}
	}
}

func TestWithDovecotsAuthService(t *testing.T) {
	command := filepath.Join(t.TempDir(), "dovepost")
	if out, err := exec.Command("go", "build", "-o", command, "dovepost/cmd/dovepost").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	dir := startDovecot(t, command)
	client, userdb := filepath.Join(dir, "run/auth-client"), "unix:"+filepath.Join(dir, "run/auth-userdb")
	all := ""
	for i := range 6 {
		name := fmt.Sprintf("user%d@example.com", i)
		all += name + "\n"
		if code, out := run(t, "gehäim\n", command, "auth", "test", "--socket", client, name); code != 0 || out != "logged in\nuser\t"+name+"\n" {
			t.Errorf("login of %s: %d, %q", name, code, out)
		}
	}
	for _, tt := range []struct {
		name, in string
		args     []string
		code     int
		stdout   string
	}{
		{"a wrong password", "Gehäim\n", []string{"auth", "test", "--socket", client, "user1@example.com"}, 77, ""},
		{"a login of nobody", "gehäim\n", []string{"auth", "test", "--socket", client, "nobody@example.com"}, 77, ""},
		{"all users", "", []string{"user", "--socket", userdb}, 0, all},
		{"a mask", "", []string{"user", "--socket", userdb, "*3@*"}, 0, "user3@example.com\n"},
		{"a user", "", []string{"user", "--socket", userdb, "user2@example.com"}, 0, "user\tuser2@example.com\nuid\t5000\ngid\t5000\nhome\t/mail/2\nquota_rule\t*:storage=1G\n"},
		{"a field", "", []string{"user", "--socket", userdb, "-f", "quota_rule", "user2@example.com"}, 0, "*:storage=1G\n"},
		{"nobody", "", []string{"user", "--socket", userdb, "nobody@example.com"}, 67, ""},
		{"a login name", "", []string{"auth", "lookup", "--socket", userdb, "user2@example.com"}, 0, "user\tuser2@example.com\n"},
		{"no login name", "", []string{"auth", "lookup", "--socket", userdb, "nobody@example.com"}, 67, ""},
		{"the wrong kind of socket", "", []string{"user", "--socket", client, "user2@example.com"}, 75, ""},
	} {
		if code, out := run(t, tt.in, command, tt.args...); code != tt.code || out != tt.stdout {
			t.Errorf("it handles %s: %d, %q; want %d, %q", tt.name, code, out, tt.code, tt.stdout)
		}
	}
}
