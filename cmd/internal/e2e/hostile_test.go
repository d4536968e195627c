package e2e

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"dovepost/cmd/internal/stack"
	"dovepost/cmd/internal/stack/mailclient"
)

// injections are keys that would mean something to a database if they got into
// the text of a statement, or to a careless reader of the protocol.
var injections = []string{
	`'`, `"`, "`", `\`, `''`, `\'`,
	`x' OR '1'='1`,
	`x' OR '1'='1@example.net`,
	`x" OR "1"="1@example.net`,
	`x'; DROP TABLE users; -- @example.net`,
	`x' UNION SELECT password FROM users -- @example.net`,
	`alice@example.net' -- `,
	`alice@example.net'#`,
	`alice@example.net\`,
	`alice\@example.net`,
	`%`, `_`, `*`, `%@example.net`, `_lice@example.net`, `alic_@example.net`, `al%`, `*@example.net`, `?lice@example.net`,
	`alice@example.net alice@example.net`, `alice@example.net,bob@example.net`,
	` alice@example.net`, "alice@example.net\t",
	`?`, `$1`, `:1`, `{}`, `%s`, `%%`, `%d`, `%n`, `@`, `@@`, `@example.net@`, `a@b@example.net`,
	"gr\u00fc\u00dfe@example.net", "\xff\xfe@example.net", "alice\x80@example.net",
	strings.Repeat("a", 10_000), strings.Repeat("a", 9_000) + "@example.net", "a@" + strings.Repeat("b.", 4_999),
	strings.Repeat("@", 5_000), strings.Repeat("+", 5_000) + "@example.net",
}

// TestHostileKeys asks the tables for keys that nobody has: the answer is "no
// such key", nothing is found and nothing breaks.
func TestHostileKeys(t *testing.T) {
	for _, parameter := range []string{"virtual_mailbox_domains", "virtual_mailbox_maps", "virtual_alias_maps", "smtpd_sender_login_maps"} {
		for _, key := range injections {
			if value, err := mail.Postmap(parameter, key); !errors.Is(err, stack.ErrNoKey) {
				t.Errorf("postmap -q %q %s: %q, %v; want no such key", short(key), parameter, value, err)
			}
		}
	}
	// A key that is longer than any address may be put off, but it is not found, and
	// the server goes on.
	for _, key := range []string{strings.Repeat("a", 100_000), strings.Repeat("a", 12_000) + "@example.net"} {
		if value, err := mail.Postmap("virtual_mailbox_maps", key); err == nil {
			t.Errorf("postmap -q %q: found %q", short(key), value)
		}
	}
	// An empty key never reaches a table from the command line, but does from stdin.
	values, err := mail.PostmapAll("virtual_mailbox_maps", "", "alice@example.net", "", "'", "bob@example.net")
	if want := "alice@example.net\t1\nbob@example.net\t1"; err != nil || values != want {
		t.Errorf("postmap -q -: %q, %v; want %q", values, err, want)
	}
	if err := works(); err != nil {
		t.Error(err)
	}
}

func short(s string) string {
	if len(s) > 60 {
		return s[:60] + "..."
	}
	return s
}

// TestHostileRecipients says the same things to Postfix: 5xx for what is not an
// address or nobody's, never 250, and never 4xx.
func TestHostileRecipients(t *testing.T) {
	for _, key := range injections {
		if len(key) > 1000 {
			continue // smtpd(8) cuts lines that are longer
		}
		if key == ` alice@example.net` || key == `alice\@example.net` {
			continue // Postfix itself takes the blank and the backslash away: this is alice
		}
		local := strings.TrimSuffix(key, "@example.net")
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local) + `"@example.net`
		for _, to := range []string{quoted, local + "@example.net"} {
			reply, err := rcpt(to)
			if err != nil {
				t.Errorf("RCPT TO:<%q>: %v", to, err)
				continue
			}
			if reply.Code < 500 || reply.Code > 559 {
				t.Errorf("RCPT TO:<%q>: %v; want 5xx", to, reply)
			}
		}
	}
	if err := works(); err != nil {
		t.Error(err)
	}
}

// TestHostileLogins: a user name that is a piece of SQL, a pattern or a path logs
// nobody in, with a password that is right for somebody.
func TestHostileLogins(t *testing.T) {
	names := []string{
		`' OR '1'='1`, `alice@example.net' -- `, `%`, `alic_@example.net`, `*`,
		`../alice@example.net`, `alice@example.net/`, `alice@example.net/../alice@example.net`,
		strings.Repeat("a", 900) + "@example.net", // Dovecot closes the connection when it is much longer
	}
	answers := make(chan error, len(names)+2)
	for _, name := range names {
		go func() {
			text, err := imapLogin(name, password("alice"))
			answers <- begins(fmt.Sprintf("IMAP LOGIN %q", short(name)), text, err, "NO [AUTHENTICATIONFAILED] ")
		}()
	}
	// Only SASL can say NUL: in the name, or with a second password.
	for _, message := range []string{
		"\x00alice@example.net\x00\x00" + password("alice"),
		"\x00alice@example.net\x00x\x00" + password("alice"),
	} {
		go func() {
			c, err := mailclient.DialSMTP(mail.SubmissionAddr)
			if err != nil {
				answers <- err
				return
			}
			defer c.Close()
			if err := c.StartTLS(mail.Roots); err != nil {
				answers <- err
				return
			}
			reply, err := c.Cmd("AUTH PLAIN %s", base64.StdEncoding.EncodeToString([]byte(message)))
			answers <- begins(fmt.Sprintf("AUTH PLAIN %q", message), reply.String(), err, "535 ")
		}()
	}
	for range cap(answers) {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	if err := works(); err != nil {
		t.Error(err)
	}
}

// TestPathTraversal puts rows into the database whose names would lead out of the
// mail root, and delivers to them: wherever a message ends up, it is in a mailbox
// of its own below the root, or nowhere.
func TestPathTraversal(t *testing.T) {
	subject := unique("traversal")
	names := []string{
		"..", ".", "../evil", "../../evil", "../../../../evil", "a/../../evil", "/evil", "//", "a/b", "a/./b",
		"../alice", "./alice", "alice/.", "alice//", "alice/Maildir", "..@..", "evil\\", "%2e%2e", "evil%00", "~", "~root", "-rf",
	}
	for _, local := range names {
		address := local + "@example.net"
		err := mail.DB.Exec(fmt.Sprintf("REPLACE INTO maildb.users (email, password, quota) VALUES (%s, '{PLAIN}x', 0)", stack.Quote(address)))
		if err != nil {
			t.Fatal(err)
		}
		defer mail.DB.Exec("DELETE FROM maildb.users WHERE email = " + stack.Quote(address))
	}
	// A domain that is a path as well; Postfix would not take it, an LMTP client can say it.
	addresses := []string{`"x"@..`, `"x"@../../evil`, `"x"@/`}
	for _, local := range names {
		quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local)
		addresses = append(addresses, local+"@example.net", `"`+quoted+`"@example.net`, `bob+`+local+"@example.net", `"bob+`+quoted+`"@example.net`)
	}
	accepted := 0
	for _, to := range addresses {
		ok, err := lmtpDeliver(to, subject)
		if err != nil {
			t.Errorf("LMTP RCPT TO:<%s>: %v", to, err)
		}
		if ok {
			accepted++
		}
	}
	t.Logf("%d of %d addresses took the message", accepted, len(addresses))
	found := 0
	walkFiles(t, mail.Dir, func(path string) {
		dir := filepath.Dir(filepath.Dir(path))
		if base := filepath.Base(filepath.Dir(path)); base != "new" && base != "cur" && base != "tmp" {
			return
		}
		rel, err := filepath.Rel(mail.MailRoot(), dir)
		if err != nil {
			t.Fatal(err)
		}
		parts := strings.Split(rel, "/")
		if strings.HasPrefix(rel, "../postfix/spool/") {
			return
		}
		if len(parts) < 3 || parts[0] != "example.net" || strings.Trim(parts[1], ".") == "" || parts[2] != "Maildir" {
			t.Errorf("a message is in %s", rel)
		}
		found++
	})
	if found == 0 {
		t.Error("no mailbox was looked at")
	}
	// alice was named in a path only.
	if n, err := copies("alice@example.net", subject); err != nil || n != 0 {
		t.Errorf("alice has %d copies, %v; want 0", n, err)
	}
}

// lmtpDeliver tells the LMTP server to deliver, and returns whether it did. That
// it refuses or puts off the recipient is no error.
func lmtpDeliver(to, subject string) (bool, error) {
	c, err := mailclient.DialSMTP(mail.LMTPAddr)
	if err != nil {
		return false, err
	}
	defer c.Quit()
	if err := c.Must("LHLO test.client"); err != nil {
		return false, err
	}
	reply, err := c.Rcpt("sender@remote.example", to)
	if err == nil && reply.Code == 250 {
		reply, err = c.Data("Subject: " + subject + "\n\ntraversal\n")
	}
	return err == nil && reply.Code == 250, err
}

// walkFiles calls visit with every regular file below root.
func walkFiles(t *testing.T, root string, visit func(path string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.Type().IsRegular() {
			visit(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
