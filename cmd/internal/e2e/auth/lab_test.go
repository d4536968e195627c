package auth

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// schema is a table with every column that a row may get wrong. The account may
// read it all.
const schema = `
CREATE USER reader@127.0.0.1 IDENTIFIED BY 'secret2';
CREATE DATABASE mail CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
GRANT SELECT ON mail.* TO reader@127.0.0.1;
USE mail;
CREATE TABLE odd (
	name VARCHAR(255) NOT NULL, password VARCHAR(1000), nopassword VARCHAR(10), allow_nets VARCHAR(255), nologin VARCHAR(10), reason VARCHAR(255),
	home VARCHAR(255) DEFAULT '/vmail/x', uid VARCHAR(20) DEFAULT '5000', gid VARCHAR(20) DEFAULT '5000', mail VARCHAR(255), quota_rule VARCHAR(255), extra VARCHAR(255),
	KEY (name));
CREATE TABLE many (name VARCHAR(100) NOT NULL);
`

// dovecotVersion is what is installed: "2.3.19.1".
var dovecotVersion = sync.OnceValue(func() string {
	out, _ := exec.Command("dovecot", "--version").Output()
	version, _, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	version, _, _ = strings.Cut(version, "-")
	return version
})

// isModern reports whether Dovecot is 2.4 or later, with other names of settings and fields.
func isModern() bool { return !strings.HasPrefix(dovecotVersion(), "2.3.") }

// head is what all dovecot-sql.conf.ext files begin with.
func head() string {
	return fmt.Sprintf("driver = mysql\nconnect = host=127.0.0.1 port=%d dbname=mail user=reader password=secret2\n", db.Port())
}

// side is one auth service: Dovecot's own, or authd.
type side struct {
	conf                 string // dovecot.conf, for doveadm
	client, userdb, base string // sockets
	log                  string
	proc                 *exec.Cmd
}

// start runs a program until the test ends.
func start(t testing.TB, log string, name string, args ...string) *exec.Cmd {
	t.Helper()
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	return cmd
}

// appear waits for a socket that answers.
func appear(t testing.TB, path, log string) { appearAt(t, "unix", path, log) }

// appearTCP does so for host:port.
func appearTCP(t testing.TB, addr, log string) { appearAt(t, "tcp", addr, log) }

func appearAt(t testing.TB, network, path, log string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial(network, path); err == nil {
			c.Close()
			return
		}
	}
	text, _ := os.ReadFile(log)
	t.Fatalf("%s does not appear\n%s", path, text)
}

// directory makes one that other accounts may enter.
func directory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "auth")
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o755)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// native starts Dovecot's own auth service over a dovecot-sql.conf.ext.
func native(t testing.TB, sql, settings string) *side {
	t.Helper()
	dir := directory(t)
	s := &side{conf: dir + "/dovecot.conf", base: dir + "/run", log: dir + "/log"}
	s.client, s.userdb = s.base+"/auth-client", s.base+"/auth-userdb"
	os.Mkdir(s.base, 0o755)
	file := dir + "/sql.conf"
	conf := fmt.Sprintf(`protocols =
base_dir = %[1]s/run
state_dir = %[1]s
log_path = %[1]s/log
instance_name = auth-lab
ssl = no
auth_mechanisms = plain login
auth_failure_delay = 0
auth_verbose = yes
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
passdb {
  driver = sql
  args = %[2]s
}
userdb {
  driver = prefetch
}
userdb {
  driver = sql
  args = %[2]s
}
%[3]s
`, dir, file, settings)
	if isModern() {
		conf = modernConf(dir, sql) + settings
	}
	write(t, file, sql, 0o644)
	write(t, s.conf, conf, 0o644)
	s.proc = start(t, s.log, "dovecot", "-F", "-c", s.conf)
	appear(t, s.client, s.log)
	return s
}

// modernConf is what native makes of a dovecot-sql.conf.ext for Dovecot 2.4.
func modernConf(dir, sql string) string {
	value := map[string]string{}
	for line := range strings.Lines(sql) {
		name, v, _ := strings.Cut(strings.TrimSpace(line), " = ")
		value[name] = strings.ReplaceAll(v, "%u", "%{user}")
	}
	conf := fmt.Sprintf(`dovecot_config_version = %[2]s
dovecot_storage_version = %[2]s
protocols =
base_dir = %[1]s/run
state_dir = %[1]s
log_path = %[1]s/log
instance_name = auth-lab
ssl = no
auth_mechanisms = plain login
auth_failure_delay = 0
auth_verbose = yes
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
userdb prefetch {
}
`, dir, dovecotVersion())
	if strings.Contains(sql, "\npassdb sql {") { // it is in 2.4's form already
		return conf + "auth_allow_weak_schemes = yes\n" + sql
	}
	return conf + fmt.Sprintf(`sql_driver = mysql
mysql 127.0.0.1 {
  port = %[1]d
  user = reader
  password = secret2
  dbname = mail
}
passdb_default_password_scheme = %[2]s
passdb sql {
  query = %[3]s
}
userdb sql {
  query = %[4]s
  iterate_query = %[5]s
}
`, db.Port(), value["default_pass_scheme"], value["password_query"], value["user_query"], value["iterate_query"])
}

// ours starts authd over the same file; beside is whose dovecot.conf doveadm reads.
func ours(t testing.TB, sql string, beside *side, args ...string) *side {
	t.Helper()
	dir := directory(t)
	s := &side{base: dir, log: dir + "/log", client: dir + "/auth-client", userdb: dir + "/auth-userdb"}
	if beside != nil {
		s.conf = beside.conf
	}
	file := dir + "/sql.conf"
	write(t, file, sql, 0o600)
	args = append([]string{"--sql=" + file, "--listen=client:unix:" + s.client, "--listen=userdb:unix:" + s.userdb,
		"--listen=login:unix:" + dir + "/auth-login", "--listen=master:unix:" + dir + "/auth-master", "--auth_failure_delay=0", "--auth_verbose"}, args...)
	s.proc = start(t, s.log, filepath.Join(bin, "authd"), args...)
	appear(t, s.client, s.log)
	return s
}

func write(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// doveadm runs doveadm; the answer ends with its exit code.
func (s *side) doveadm(args ...string) string {
	out, err := exec.Command("doveadm", append([]string{"-c", s.conf}, args...)...).CombinedOutput()
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		return err.Error()
	}
	text := strings.ReplaceAll(string(out), s.client, "SOCKET")
	text = strings.ReplaceAll(text, s.userdb, "SOCKET")
	return fmt.Sprintf("%s[%d]", text, code)
}

func (s *side) auth(user, password, service string, more ...string) string {
	args := append([]string{"auth", "test", "-a", s.client, "-x", "service=" + service}, more...)
	return s.doveadm(append(args, user, password)...)
}

func (s *side) user(user string) string { return s.doveadm("user", "-a", s.userdb, user) }
