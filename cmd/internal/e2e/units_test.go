package e2e

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dovepost/cmd/internal/stack/mailclient"
)

// root is the repository.
const root = "../../.."

// install runs "make install" into a directory of the stack, once, and makes the
// installed settings fit there: the port of the database, and where they are.
var install = sync.OnceValues(func() (dest string, err error) {
	dest = filepath.Join(mail.Dir, "install")
	out, err := exec.Command("make", "-s", "-C", root, "install", "DESTDIR="+dest, "PREFIX=/usr/local").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("make install: %w\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(dest, "etc/dovepost/*"))
	if err != nil {
		return "", err
	}
	fit := strings.NewReplacer("hosts = 127.0.0.1", "hosts = "+mail.DB.Addr(), "/etc/dovepost/", dest+"/etc/dovepost/")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(file, []byte(fit.Replace(string(text))), 0o640); err != nil {
			return "", err
		}
	}
	grants, err := os.ReadFile(filepath.Join(dest, "usr/local/share/doc/dovepost/mysql/grants.sql"))
	if err != nil {
		return "", err
	}
	return dest, mail.DB.Exec("USE maildb; " + string(grants))
})

// installed returns the directory of install.
func installed(t *testing.T) string {
	t.Helper()
	dest, err := install()
	if err != nil {
		t.Fatal(err)
	}
	return dest
}

// TestUnits has systemd look at the installed units: it finds nothing wrong, and
// rates what a daemon could do at 2.0 at most.
func TestUnits(t *testing.T) {
	dest := installed(t)
	files, err := filepath.Glob(filepath.Join(dest, "usr/local/lib/systemd/system/*"))
	if err != nil {
		t.Fatal(err)
	}
	// systemd-analyze looks for the programs where the units say.
	dir := t.TempDir()
	var units []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		unit := filepath.Join(dir, filepath.Base(file))
		text = []byte(strings.ReplaceAll(string(text), "/usr/local/libexec/", dest+"/usr/local/libexec/"))
		if err := os.WriteFile(unit, text, 0o644); err != nil {
			t.Fatal(err)
		}
		units = append(units, unit)
	}
	out, err := exec.Command("systemd-analyze", append([]string{"verify", "--man=no"}, units...)...).CombinedOutput()
	// It also says what it thinks of the machine's own units.
	foreign := regexp.MustCompile(`(?m)^/(usr/lib|lib|etc|run)/systemd/.*\n`)
	if out := foreign.ReplaceAll(out, nil); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	services := 0
	for _, unit := range units {
		if filepath.Ext(unit) != ".service" {
			continue
		}
		services++
		out, err := exec.Command("systemd-analyze", "security", "--no-pager", "--offline=yes", "--threshold=20", unit).CombinedOutput()
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		t.Log(lines[len(lines)-1])
		if err != nil || !strings.Contains(lines[len(lines)-1], "Overall exposure level") {
			t.Errorf("systemd-analyze security %s: %v\n%s", filepath.Base(unit), err, out)
		}
	}
	if services != 4 {
		t.Errorf("%d services, want 4", services)
	}
}

// TestSchema makes the installed schema in a database of its own, with the grants.
func TestSchema(t *testing.T) {
	dir := filepath.Join(installed(t), "usr/local/share/doc/dovepost/mysql")
	defer mail.DB.Exec("DROP DATABASE IF EXISTS schemacheck")
	for _, name := range []string{"schema.sql", "schema.sql", "grants.sql", "grants.sql"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		sql := strings.ReplaceAll(string(text), "maildb", "schemacheck")
		if name == "grants.sql" {
			sql = "USE schemacheck; " + sql
		}
		if err := mail.DB.Exec(sql); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestGrants starts each daemon with its own account of grants.sql. Each finds
// what it may read enough; with somebody else's account, authd does not start.
func TestGrants(t *testing.T) {
	dest := installed(t)
	check := func(name string, args ...string) (string, int) {
		cmd := exec.Command(filepath.Join(dest, "usr/local/libexec/dovepost", name), append([]string{"--check"}, args...)...)
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	for _, name := range []string{"lookupd", "authd", "lmtpd", "policyd"} {
		config := filepath.Join(dest, "etc/dovepost", name+".cf")
		if out, code := check(name, "--config="+config); code != 0 {
			t.Errorf("%s --check: exit %d\n%s", name, code, out)
		}
	}
	for _, other := range []string{"lookupd", "lmtpd"} {
		out, code := check("authd", "--mysql="+filepath.Join(dest, "etc/dovepost/mysql-"+other+".cf"))
		if code != 78 || !strings.Contains(out, "denied") {
			t.Errorf("authd --check with the account of %s: exit %d, want 78\n%s", other, code, out)
		}
		if strings.Contains(out, "change-me") {
			t.Errorf("a password is in the log: %s", out)
		}
	}
}

// activated starts an installed daemon through systemd-socket-activate, with a
// unix socket for each kind, and returns their paths. At the end of the test it
// is told to stop, and must obey.
func activated(t *testing.T, name string, kinds []string, args ...string) map[string]string {
	t.Helper()
	dest := installed(t)
	dir, err := os.MkdirTemp(mail.Dir, "sa-")
	if err != nil {
		t.Fatal(err)
	}
	paths := map[string]string{}
	argv := []string{"--fdname=" + strings.Join(kinds, ":")}
	for _, kind := range kinds {
		paths[kind] = filepath.Join(dir, kind)
		argv = append(argv, "--listen="+paths[kind])
	}
	argv = append(argv, filepath.Join(dest, "usr/local/libexec/dovepost", name), "--config="+filepath.Join(dest, "etc/dovepost", name+".cf"))
	cmd := exec.Command("systemd-socket-activate", append(argv, args...)...)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s ended with %v", name, err)
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", name, &log)
		}
	})
	for _, path := range paths {
		eventually(t, time.Minute, "socket of "+name, func() error {
			_, err := os.Stat(path)
			return err
		})
	}
	return paths
}

// TestSocketActivation has each daemon serve on sockets that
// systemd-socket-activate has opened, with the installed settings.
func TestSocketActivation(t *testing.T) {
	t.Run("lookupd", func(t *testing.T) {
		path := activated(t, "lookupd", []string{"socketmap"})["socketmap"]
		for key, want := range map[string]string{
			"virtual_mailbox_domains example.net":    "example.net",
			"virtual_mailbox_maps alice@example.net": "alice@example.net",
			"virtual_alias_maps anybody@example.org": "carol@example.net",
		} {
			name, key, _ := strings.Cut(key, " ")
			value, err := mail.PostmapTable("socketmap:unix:"+path+":"+name, key)
			if err != nil || value != want {
				t.Errorf("%s %s: %q, %v; want %q", name, key, value, err, want)
			}
		}
	})
	t.Run("authd", func(t *testing.T) {
		paths := activated(t, "authd", []string{"client", "client=login plain", "userdb"})
		response := base64.StdEncoding.EncodeToString([]byte("\x00alice@example.net\x00" + password("alice@example.net")))
		err := dialogue(paths["client"], "DONE", "VERSION\t1\t2\nCPID\t77\nAUTH\t1\tPLAIN\tservice=smtp\tresp="+response+"\n", "OK\t1\tuser=alice@example.net")
		if err != nil {
			t.Error(err)
		}
		// FileDescriptorName= may name the mechanisms of the socket.
		err = dialogue(paths["client=login plain"], "MECH\tPLAIN", "", "SPID\t")
		if err != nil {
			t.Error(err)
		}
		err = dialogue(paths["userdb"], "SPID\t", "VERSION\t1\t1\nUSER\t1\talice@example.net\tservice=lmtp\n", "USER\t1\talice@example.net\t")
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("lmtpd", func(t *testing.T) {
		subject := unique("activated")
		path := activated(t, "lmtpd", []string{"lmtp"}, "--mail_home="+mail.MailRoot()+"/%d/%n")["lmtp"]
		c, err := mailclient.DialSMTP(path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Must("LHLO test.client"); err != nil {
			t.Fatal(err)
		}
		if err := c.Send("sender@remote.example", "alice@example.net", "Subject: "+subject+"\n\nactivated\n"); err != nil {
			t.Fatal(err)
		}
		if n, err := copies("alice@example.net", subject); err != nil || n != 1 {
			t.Errorf("%d copies, %v; want 1", n, err)
		}
	})
	t.Run("policyd", func(t *testing.T) {
		path := activated(t, "policyd", []string{"policy"})["policy"]
		err := dialogue(path, "", "request=smtpd_access_policy\nprotocol_state=RCPT\nsender=a@remote.example\nrecipient=alice@example.net\n\n", "action=DUNNO")
		if err != nil {
			t.Error(err)
		}
	})
}

// dialogue connects, reads up to a line that begins with greeting, says text, and
// wants a line that begins with want.
func dialogue(path, greeting, text, want string) error {
	c, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	lines := bufio.NewScanner(c)
	for greeting != "" {
		if !lines.Scan() {
			return fmt.Errorf("no line %q: %w", greeting, lines.Err())
		}
		if strings.HasPrefix(lines.Text(), greeting) {
			break
		}
	}
	if _, err := c.Write([]byte(text)); err != nil {
		return err
	}
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), want) {
		return fmt.Errorf("answer is %q, %v; want %q", lines.Text(), lines.Err(), want)
	}
	return nil
}
