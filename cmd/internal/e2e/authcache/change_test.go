package authcache

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
)

// fresh is how long a row may be used after it has changed.
const fresh = 2 * time.Second

// TestPasswordChanged: with warm caches, the new password counts at once, and the old
// one two seconds later not any more.
func TestPasswordChanged(t *testing.T) {
	password := "secret-changed"
	for round := range 3 {
		expect(t, "before", "changed", password, ok)
		next := fmt.Sprintf("next-%d", round)
		stored := hash(t, "SHA512-CRYPT", next)
		expect(t, "caches warm", "changed", password, ok)
		setPassword(t, "changed", stored)
		changed := time.Now()
		expect(t, "at once", "changed", next, ok)
		time.Sleep(time.Until(changed.Add(fresh)))
		expect(t, "two seconds later", "changed", password, no)
		expect(t, "two seconds later", "changed", next, ok)
		password = next
	}
}

// TestDisabled: a user who is disabled is refused two seconds later, and with the old
// password welcome at once when he is enabled again.
func TestDisabled(t *testing.T) {
	expect(t, "before", "disabled", "secret-disabled", ok)
	query(t, "UPDATE accounts SET active = 0 WHERE email = 'disabled@example.net'")
	disabled := time.Now()
	expect(t, "another password", "disabled", "another", no)
	time.Sleep(time.Until(disabled.Add(fresh)))
	expect(t, "disabled", "disabled", "secret-disabled", no)
	query(t, "UPDATE accounts SET active = 1 WHERE email = 'disabled@example.net'")
	expect(t, "enabled", "disabled", "secret-disabled", ok)
}

// TestFlush: doveadm auth cache flush forgets rows.
func TestFlush(t *testing.T) {
	expect(t, "before", "changed", "wrong", no)
	for _, args := range [][]string{{"changed@example.net"}, {"nobody@example.net"}, nil} {
		login("imap", address("login"), "secret-login")
		out, err := mail.Doveadm(append([]string{"auth", "cache", "flush", "-a", mail.DovecotRun() + "/auth-master"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(strings.Fields(out)[0])
		if err != nil || (n == 0) != (len(args) == 1 && args[0] == "nobody@example.net") {
			t.Errorf("flush %q: %q", args, out)
		}
	}
}

// TestRehash: a login with an old hash makes a new one of the same password.
func TestRehash(t *testing.T) {
	setPassword(t, "old", hash(t, "SSHA", "secret-old"))
	if got := login("imap", address("old"), "wrong"); got != no {
		t.Fatal(got)
	}
	if got := login("imap", address("old"), "secret-old"); got != ok {
		t.Fatal(got)
	}
	var stored string
	eventually(t, time.Minute, "rehash", func() error {
		if stored = query(t, "SELECT password FROM users WHERE email = 'old@example.net'"); !strings.HasPrefix(stored, "{BLF-CRYPT}$2y$05$") {
			return errors.New(stored)
		}
		return nil
	})
	if out, err := mail.Doveadm("pw", "-t", stored, "-p", "secret-old"); err != nil || !strings.Contains(out, "(verified)") {
		t.Errorf("doveadm pw -t: %q, %v", out, err)
	}
	time.Sleep(fresh)
	expect(t, "with the new hash", "old", "secret-old", ok)
	expect(t, "with the new hash", "old", "wrong", no)
	if again := query(t, "SELECT password FROM users WHERE email = 'old@example.net'"); again != stored {
		t.Errorf("a hash as it should be was replaced: %s", again)
	}
}

// TestRehashSwaps: a hash that is not the one that was compared stays.
func TestRehashSwaps(t *testing.T) {
	first, newer := hash(t, "SHA512-CRYPT", "secret-swapped"), hash(t, "SSHA", "secret-swapped")
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(fresh) {
		setPassword(t, "swapped", first) // which auth_rehash_query leaves alone
		began := time.Now()
		if got := login("imap", address("swapped"), "secret-swapped"); got != ok {
			t.Fatal(got)
		}
		setPassword(t, "swapped", newer)
		login("imap", address("swapped"), "secret-swapped") // over the cached row
		if time.Since(began) < fresh {
			break // later it may not have been over the cached row
		}
	}
	waitLog(t, "the row has changed", address("swapped"))
	if stored := query(t, "SELECT password FROM users WHERE email = 'swapped@example.net'"); stored != newer {
		t.Errorf("%s was replaced by %s", newer, stored)
	}
}

// TestLastLogin: logins are noted, of the services that the settings name.
func TestLastLogin(t *testing.T) {
	began := time.Now().Unix()
	if got := login("smtp", address("login"), "secret-login"); got != ok {
		t.Fatal(got)
	}
	if got := login("pop3", address("login"), "wrong"); got != no {
		t.Fatal(got)
	}
	for range 5 {
		if got := login("imap", address("login"), "secret-login"); got != ok {
			t.Fatal(got)
		}
	}
	eventually(t, time.Minute, "last login", func() error {
		row := query(t, "SELECT domain, imap >= "+strconv.FormatInt(began, 10)+", pop3, lda FROM last_login WHERE username = 'login@example.net'")
		if row != "example.net\t1\tNULL\tNULL" {
			return errors.New(row)
		}
		return nil
	})
}

// TestAppPasswords: mailcow's table.
func TestAppPasswords(t *testing.T) {
	insert := func(id int, name, password, columns string) {
		t.Helper()
		query(t, fmt.Sprintf("INSERT INTO app_passwd (id, name, mailbox, domain, password, imap_access, pop3_access, smtp_access, active, until) VALUES (%d, '%s', 'app@example.net', 'example.net', '%s', %s)",
			id, name, hash(t, "SSHA256", password), columns))
	}
	insert(1, "phone", "phone-1", "1, 0, 1, 1, NULL")
	insert(2, "scanner", "scanner-2", "0, 0, 1, 1, NOW() + INTERVAL 1 DAY")
	insert(3, "lost", "lost-3", "1, 1, 1, 0, NULL")
	insert(4, "expired", "expired-4", "1, 1, 1, 1, NOW() - INTERVAL 1 SECOND")
	check := func(password string, want ...string) {
		t.Helper()
		for i, service := range services {
			if got := login(service, address("app"), password); got != want[i] {
				t.Errorf("%s over %s: %q, want %q", password, service, got, want[i])
			}
		}
	}
	check("secret-app", ok, ok, ok)
	check("phone-1", ok, no, ok)
	waitLog(t, `name=phone user=app@example.net service=imap`, `app password`)
	check("scanner-2", no, no, ok)
	check("lost-3", no, no, no)
	check("expired-4", no, no, no)
	check("nothing", no, no, no)
	query(t, "UPDATE app_passwd SET active = 0 WHERE id = 1")
	changed := time.Now()
	insert(5, "new", "new-5", "1, 1, 1, 1, NULL")
	check("new-5", ok, ok, ok)
	time.Sleep(time.Until(changed.Add(fresh)))
	check("phone-1", no, no, no)
	query(t, "UPDATE accounts SET active = 0 WHERE email = 'app@example.net'")
	time.Sleep(fresh)
	check("new-5", no, no, no)
	noSecrets(t, "phone-1", "scanner-2", "new-5", "{SSHA256}")
}

// TestContrib: authd starts with what contrib/etc/authd.cf suggests, over the tables and
// the rights of contrib/mysql, and does what it says.
func TestContrib(t *testing.T) {
	dir := t.TempDir()
	const contrib = "../../../../contrib/"
	for _, name := range []string{"schema.sql", "grants.sql", "extras.sql"} {
		text, err := os.ReadFile(contrib + "mysql/" + name)
		if err != nil {
			t.Fatal(err)
		}
		sql := strings.ReplaceAll("USE contrib; "+string(text), "maildb", "contrib")
		if name == "schema.sql" {
			sql = strings.TrimPrefix(sql, "USE contrib; ")
		}
		if err := mail.DB.Exec(sql); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if err := mail.DB.Exec("USE contrib; INSERT INTO users VALUES ('alice@example.net', '{PLAIN}main', 0); INSERT INTO app_passwords (email, name, password, services, expires) VALUES ('alice@example.net', 'phone', '{PLAIN}phone', 'imap', NOW() + INTERVAL 1 DAY)"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(contrib + "etc/authd.cf")
	if err != nil {
		t.Fatal(err)
	}
	_, extras, found := strings.Cut(string(text), "extras.sql:\n")
	if !found {
		t.Fatal("authd.cf has no part about extras.sql")
	}
	config := "auth_last_login_interval = 100ms\nmysql = " + dir + "/mysql.cf\n" + strings.ReplaceAll("\n"+extras, "\n#", "\n")
	server := fmt.Sprintf("hosts = 127.0.0.1:%d\nuser = dovepost_authd\npassword = change-me-authd\ndbname = contrib\n", mail.DB.Port())
	for name, text := range map[string]string{"authd.cf": config, "mysql.cf": server} {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, err := stack.StartDaemon(mail.Dir+"/bin/authd", dir, "client", dir+"/auth-client", "--config="+dir+"/authd.cf")
	if err != nil {
		log, _ := os.ReadFile(dir + "/authd.log")
		t.Fatalf("%v\n%s", err, log)
	}
	defer d.Stop()
	for _, tt := range []struct{ service, password, want string }{
		{"pop3", "phone", "auth failed"}, {"imap", "phone", "auth succeeded"}, {"imap", "main", "auth succeeded"}, {"imap", "wrong", "auth failed"},
	} {
		out, _ := mail.Doveadm("auth", "test", "-a", dir+"/auth-client", "-x", "service="+tt.service, "-x", "rip=192.0.2.7", "alice@example.net", tt.password)
		if !strings.Contains(out, tt.want) {
			t.Errorf("%s over %s: %q, want %q", tt.password, tt.service, out, tt.want)
		}
	}
	eventually(t, time.Minute, "notes", func() error {
		rows, err := mail.DB.Query("USE contrib; SELECT u.password LIKE '{ARGON2ID}%', l.service, l.rip, TIMESTAMPDIFF(SECOND, l.at, NOW()) < 60 FROM users u JOIN last_login l USING (email)")
		if err == nil && strings.Join(rows, ";") != "1\timap\t192.0.2.7\t1" {
			err = errors.New(strings.Join(rows, ";"))
		}
		return err
	})
}

// logText is what authd has written.
func logText(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(mail.Dir + "/dovepost/authd.log")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// waitLog waits for a line with all the words.
func waitLog(t *testing.T, words ...string) {
	t.Helper()
	eventually(t, time.Minute, "log", func() error {
		for line := range strings.SplitSeq(logText(t), "\n") {
			all := true
			for _, word := range words {
				all = all && strings.Contains(line, word)
			}
			if all {
				return nil
			}
		}
		return fmt.Errorf("no line with %q", words)
	})
}

func noSecrets(t *testing.T, secrets ...string) {
	t.Helper()
	text := logText(t)
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			t.Errorf("the log has %q", secret)
		}
	}
}
