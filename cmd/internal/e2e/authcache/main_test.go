// Package authcache tests what authd remembers, and what it writes: with the real
// Postfix, Dovecot and MariaDB, while the database goes away and its rows change.
package authcache

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
	"dovepost/cmd/internal/stack/mailclient"
)

var mail *stack.Stack

// users are logged in as, each by the test that has its name.
var users = []string{"seen", "unseen", "changed", "disabled", "old", "swapped", "login", "app", "denied"}

func address(name string) string { return name + "@example.net" }

// more is what this site has beside the seed schema: a flag, which a view hides from
// the site's queries, mailcow's app passwords, and iRedMail's last logins.
const more = `
USE maildb;
RENAME TABLE users TO accounts;
ALTER TABLE accounts ADD active TINYINT NOT NULL DEFAULT 1;
CREATE VIEW users AS SELECT email, password, quota FROM accounts WHERE active = 1;
CREATE TABLE app_passwd (id INT NOT NULL, name VARCHAR(255) NOT NULL, mailbox VARCHAR(255) NOT NULL, domain VARCHAR(255) NOT NULL,
  password VARCHAR(255) NOT NULL, imap_access TINYINT NOT NULL DEFAULT 1, smtp_access TINYINT NOT NULL DEFAULT 1, dav_access TINYINT NOT NULL DEFAULT 1,
  eas_access TINYINT NOT NULL DEFAULT 1, pop3_access TINYINT NOT NULL DEFAULT 1, sieve_access TINYINT NOT NULL DEFAULT 1,
  active TINYINT NOT NULL DEFAULT 1, until DATETIME NULL, PRIMARY KEY (id));
CREATE TABLE last_login (username VARCHAR(255) NOT NULL DEFAULT '', domain VARCHAR(255) NOT NULL DEFAULT '', imap INT DEFAULT NULL,
  pop3 INT DEFAULT NULL, lda INT DEFAULT NULL, PRIMARY KEY (username));
GRANT UPDATE (password) ON maildb.users TO mailuser@'127.0.0.1';
GRANT INSERT, UPDATE ON maildb.last_login TO mailuser@'127.0.0.1';
`

const settings = `
auth_failure_delay = 0
auth_verbose = yes
auth_app_password_query = SELECT id, name, password, UNIX_TIMESTAMP(until) AS expires,
  CONCAT_WS(',', IF(imap_access, 'imap', NULL), IF(smtp_access, 'smtp', NULL), IF(pop3_access, 'pop3', NULL), IF(sieve_access, 'sieve', NULL)) AS services
  FROM app_passwd WHERE mailbox = '%u' AND active = 1
auth_last_login_query = INSERT INTO last_login (username, domain, %Ls) VALUES ('%u', '%d', %{time})
  ON DUPLICATE KEY UPDATE %Ls = VALUES(%Ls)
auth_last_login_services = imap pop3
auth_last_login_interval = 500ms
auth_rehash_scheme = BLF-CRYPT
auth_rehash_query = UPDATE users SET password = '%{new_password}' WHERE email = '%u' AND password = '%{old_password}' AND password LIKE '{SSHA}%%'
`

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	dir, err := os.MkdirTemp("", "authcache")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	config := dir + "/authd.cf"
	o := stack.Options{Dir: dir, Domains: []string{"example.net"}, DaemonArgs: map[string][]string{"authd": {"--config=" + config}}}
	for _, name := range users {
		o.Users = append(o.Users, stack.User{Email: address(name), Password: "secret-" + name})
	}
	steps := []func() error{
		func() error { return os.WriteFile(config, nil, 0o644) },
		func() (err error) { mail, err = stack.Start(o); return err },
		func() error { return mail.DB.Exec(more) },
		func() error { return os.WriteFile(config, []byte(settings), 0o644) },
		func() error { return mail.RestartDaemon("authd") },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	code = m.Run()
	if err := mail.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if code == 0 {
		os.RemoveAll(dir)
	} else {
		fmt.Fprintf(os.Stderr, "logs are in %s\n", dir)
	}
	return code
}

// What a client may be told.
const (
	ok    = "ok"
	no    = "no"    // a wrong password
	later = "later" // [UNAVAILABLE], [SYS/TEMP], 454
)

var services = []string{"imap", "pop3", "smtp"}

// login tries to log in and returns what the client is told.
func login(service, user, password string) string {
	text, err := "", error(nil)
	switch service {
	case "imap":
		var c *mailclient.IMAP
		if c, err = mailclient.DialIMAP(mail.IMAPAddr, mail.Roots); err == nil {
			defer c.Close()
			var a mailclient.Answer
			a, err = c.Login(user, password)
			text = a.String()
		}
	case "pop3":
		var c *mailclient.POP3
		if c, err = mailclient.DialPOP3(mail.POP3Addr, mail.Roots); err == nil {
			defer c.Close()
			text, err = c.Login(user, password)
		}
	default:
		var c *mailclient.SMTP
		if c, err = submission(); err == nil {
			defer c.Close()
			var reply mailclient.Reply
			reply, err = c.AuthPlain(user, password)
			text = reply.String()
		}
	}
	if err != nil {
		return err.Error()
	}
	for prefix, verdict := range map[string]string{
		"OK ": ok, "+OK": ok, "235 ": ok,
		"NO [AUTHENTICATIONFAILED]": no, "-ERR [AUTH]": no, "535 ": no,
		"NO [UNAVAILABLE]": later, "-ERR [SYS/TEMP]": later, "454 ": later,
	} {
		if strings.HasPrefix(text, prefix) {
			return verdict
		}
	}
	return text
}

func submission() (*mailclient.SMTP, error) {
	c, err := mailclient.DialSMTP(mail.SubmissionAddr)
	if err == nil {
		if err = c.StartTLS(mail.Roots); err != nil {
			c.Close()
		}
	}
	return c, err
}

// expect logs in over all services at the same time.
func expect(t *testing.T, what, name, password, want string) {
	t.Helper()
	answers := make(chan string, len(services))
	for _, service := range services {
		go func() {
			if got := login(service, address(name), password); got != want {
				answers <- fmt.Sprintf("%s: %s over %s: %q, want %q", what, name, service, got, want)
				return
			}
			answers <- ""
		}()
	}
	for range services {
		if text := <-answers; text != "" {
			t.Error(text)
		}
	}
}

// eventually tries until ok returns nil, for as long as limit.
func eventually(t *testing.T, limit time.Duration, what string, ok func() error) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after %v: %v", what, limit, err)
		}
	}
}

func query(t *testing.T, sql string) string {
	t.Helper()
	rows, err := mail.DB.Query("USE maildb; " + sql)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(rows, "\n")
}

// hash is what doveadm makes of a password.
func hash(t *testing.T, scheme, password string) string {
	t.Helper()
	out, err := mail.Doveadm("pw", "-s", scheme, "-p", password)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func setPassword(t *testing.T, name, stored string) {
	t.Helper()
	query(t, "UPDATE accounts SET password = "+stack.Quote(stored)+" WHERE email = "+stack.Quote(address(name)))
}
