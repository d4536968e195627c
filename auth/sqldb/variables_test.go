package sqldb

import (
	"errors"
	"strings"
	"testing"

	"dovepost/auth"
	"dovepost/lookup/mysql"
)

// variables in the queries of real sites end up bound, or checked as names.
func TestTemplates(t *testing.T) {
	r := &auth.Request{User: "o'Brien@example.com", Service: "imap", Secured: true, TLS: true}
	for _, tt := range []struct{ query, text, args string }{
		{"SELECT '/var/vmail/%d/%n' AS home FROM u WHERE e = '%Lu'", "SELECT ? AS home FROM u WHERE e = ?", "/var/vmail/example.com/o'Brien|o'brien@example.com"},
		{"SELECT a FROM m WHERE m.enable%Ls%Lc=1 AND u='%u'", "SELECT a FROM m WHERE m.enableimaptls=1 AND u=?", "o'Brien@example.com"},
		{"SELECT a FROM m WHERE %Ls = 'Y' AND LOCATE('%Us', r) > 0", "SELECT a FROM m WHERE imap = 'Y' AND LOCATE(?, r) > 0", "IMAP"},
		{"SELECT a FROM m WHERE disable%Ls = 'n' AND '%s' IN ('imap', 'pop3') AND x LIKE '%%a'", "SELECT a FROM m WHERE disableimap = 'n' AND ? IN ('imap', 'pop3') AND x LIKE '%a'", "imap"},
	} {
		q := &query{}
		c, err := mysql.Compile(tt.query, new(File).scan(q))
		if err != nil {
			t.Errorf("%s: %v", tt.query, err)
			continue
		}
		values, err := q.values(r)
		if err != nil {
			t.Fatal(err)
		}
		text, args, err := c.Expand(values)
		var got []string
		for _, arg := range args {
			got = append(got, arg.(string))
		}
		if err != nil || text != tt.text || strings.Join(got, "|") != tt.args {
			t.Errorf("%s:\n got %s %q, %v\nwant %s %s", tt.query, text, got, err, tt.text, tt.args)
		}
	}
	for _, text := range []string{"SELECT enable%u FROM t", "SELECT a FROM t WHERE %u = 'x'", "SELECT a FROM t WHERE b = %n"} {
		q := &query{}
		c, err := mysql.Compile(text, new(File).scan(q))
		if err != nil {
			t.Fatal(err)
		}
		values, err := q.values(r)
		if err != nil {
			t.Fatal(err)
		}
		if got, _, err := c.Expand(values); err == nil {
			t.Errorf("%s: got %s, want an error", text, got)
		}
	}
}

// the password in clear is given to a password_query where that is allowed, and else
// only who asks it hears of it.
func TestClearPassword(t *testing.T) {
	f := &File{PasswordQuery: "SELECT NULL AS password, 'Y' AS nopassword FROM u WHERE e='%u' AND p='%w'", UserQuery: "SELECT 1 AS home FROM u WHERE e='%u' AND '%w' = ''"}
	for _, allowed := range []bool{false, true} {
		f.ClearPassword = allowed
		db, err := Open(f, nil)
		if err != nil {
			t.Fatal(err)
		}
		if (db.password.refused == nil) != allowed || db.user.refused != nil {
			t.Errorf("allowed %v: %v, %v", allowed, db.password.refused, db.user.refused)
		}
		if allowed {
			continue
		}
		if _, err := db.LookupPass(t.Context(), &auth.Request{User: "a@b"}); !errors.Is(err, errClear) {
			t.Errorf("LookupPass: %v", err)
		}
	}
}
