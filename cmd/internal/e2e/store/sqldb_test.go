package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dovepost/auth"
	"dovepost/auth/sqldb"
	"dovepost/lookup/mysql"
)

// openSQL opens testdata/NAME with the server's host in it.
func openSQL(t testing.TB, name, host string) (*sqldb.DB, *mysql.Pool) {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), "@HOST@", host)), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := sqldb.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pool := mysql.OpenPool(file.Config(), 2)
	t.Cleanup(func() { pool.Close() })
	d, err := sqldb.Open(file, pool)
	if err != nil {
		t.Fatal(err)
	}
	return d, pool
}

// show writes down what a lookup gave.
func show(v any, err error) string {
	switch {
	case auth.Refused(err):
		return "no"
	case err != nil:
		return "error"
	}
	var b strings.Builder
	list := func(fields auth.Fields) {
		for _, f := range fields {
			fmt.Fprintf(&b, " %s=%s", f.Name, f.Value)
		}
	}
	switch v := v.(type) {
	case *auth.Credentials:
		fmt.Fprintf(&b, "%s %.12s %v", v.User, v.Password, v.NoPassword)
		list(v.Fields)
		b.WriteString(" |")
		list(v.Userdb)
	case *auth.User:
		fmt.Fprintf(&b, "%s home=%s mail=%s uid=%s gid=%s", v.Name, v.Home, v.Mail, v.UID, v.GID)
		list(v.Fields)
	}
	return b.String()
}

func users(d *sqldb.DB, mask string) string {
	var names []string
	for name, err := range d.Users(context.Background(), mask) {
		if err != nil {
			return "error"
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// the mail server's own file works as it is.
func TestSQLSeedFile(t *testing.T) {
	ctx := context.Background()
	for _, host := range []string{db.Socket(), "127.0.0.1 port=" + fmt.Sprint(db.Port())} {
		d, _ := openSQL(t, "dovecot-seed.conf.ext", host)
		if err := d.Prepare(ctx); err != nil {
			t.Fatal(err)
		}
		for user, want := range map[string][2]string{
			"alice@example.com":   {"alice@example.com {SHA512-CRYP false |", "alice@example.com home=/home/vmail/example.com/alice mail=maildir:~/Maildir uid=5000 gid=5000 quota_rule=*:storage=1048576"},
			"bob@example.com":     {"Bob@Example.com {SHA512-CRYP false |", "bob@example.com home=/home/vmail/example.com/bob mail=maildir:~/Maildir uid=5000 gid=5000 quota_rule=*:storage=0"},
			"o'brien@example.com": {"o'brien@example.com {PLAIN}obrie false |", "o'brien@example.com home=/home/vmail/example.com/o'brien mail=maildir:~/Maildir uid=5000 gid=5000 quota_rule=*:storage=2048"},
			"nobody@example.com":  {"no", "no"}, "' OR '1'='1": {"no", "no"}, `\`: {"no", "no"}, "%": {"no", "no"}, "alice\x00@example.com": {"no", "no"}, "": {"no", "no"},
		} {
			r := &auth.Request{User: user, Service: "imap"}
			if got := show(d.LookupPass(ctx, r)); got != want[0] {
				t.Errorf("passdb %q:\n got %s\nwant %s", user, got, want[0])
			}
			if got := show(d.LookupUser(ctx, r)); got != want[1] {
				t.Errorf("userdb %q:\n got %s\nwant %s", user, got, want[1])
			}
		}
		// The collation takes jorg@ for jörg@; his home is not jorg's.
		r := &auth.Request{User: "jorg@müller.example", Service: "lmtp"}
		if _, err := d.LookupUser(ctx, r); !errors.Is(err, auth.ErrUnknownUser) {
			t.Errorf("userdb of a name that is only alike: %v, want unknown user", err)
		}
		r.User = "JÖRG@müller.example"
		if u, err := d.LookupUser(ctx, r); err != nil || u.Home != "/home/vmail/müller.example/JÖRG" {
			t.Errorf("userdb of a name in capitals: %+v, %v", u, err)
		}
		if got, want := users(d, "?o*"), "Bob@Example.com"; got != want {
			t.Errorf("without iterate_query: got %s, want %s", got, want)
		}
	}
}

// columns that depend on the service, prefetch, renaming, two rows.
func TestSQLServices(t *testing.T) {
	ctx := context.Background()
	d, _ := openSQL(t, "dovecot-services.conf.ext", db.Socket())
	if err := d.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		user, service, pass, userdb string
		tls                         bool
	}{
		{"anna@example.com", "imap", "Anna@example.com {PLAIN}clear false | home=/h/anna uid=5000 quota_rule=*:bytes=100", "Anna@example.com home=/h/anna mail= uid= gid= quota=100 protocol=imap", false},
		{"anna@example.com", "imap", "Anna@example.com {PLAIN}clear false | home=/h/anna uid=5000 quota_rule=*:bytes=100", "Anna@example.com home=/h/anna mail= uid= gid= quota=100 protocol=imap", true},
		{"anna@example.com", "smtp", "no", "no", false},
		{"anna@example.com", "pop3", "error", "error", false},
		{"anna@example.com", "imap=1 or 1", "error", "error", false},
		{"anna@example.com", "indexer-worker", "error", "error", false},
		{"BERTA@EXAMPLE.COM", "lmtp", "Berta@example.com  true allow_nets=10.0.0.0/8 | home=/h/berta uid=5000", "Berta@example.com home=/h/berta mail= uid= gid= protocol=lmtp", false},
		{"carla@example.com", "imap", "no", "Carla@example.com home=/h/carla mail= uid= gid= quota=0 protocol=imap", false},
		{"dora@example.com", "imap", "error", "Dora@example.com home=/h/dora1 mail= uid= gid= quota=1 protocol=imap", false},
		{"emil@example.com", "imap", "no", "Emil@example.com home=/h/emil mail= uid= gid= quota=1 protocol=imap", false},
	} {
		r := &auth.Request{User: tt.user, Service: tt.service, TLS: tt.tls, Secured: tt.tls}
		if got := show(d.LookupPass(ctx, r)); got != tt.pass {
			t.Errorf("passdb %s %s:\n got %s\nwant %s", tt.service, tt.user, got, tt.pass)
		}
		if got := show(d.LookupUser(ctx, r)); got != tt.userdb {
			t.Errorf("userdb %s %s:\n got %s\nwant %s", tt.service, tt.user, got, tt.userdb)
		}
	}
	if got, want := users(d, "?[an]*"), ""; got != want {
		t.Errorf("a bracket is no glob: got %s", got)
	}
	if got, want := users(d, "*a@example.com"), "Anna@example.com Berta@example.com Carla@example.com Dora@example.com Dora@example.com"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for range d.Users(ctx, "") {
		break // leaves a result set that is not read
	}
	if got := users(d, "emil*"); got != "" {
		t.Errorf("got %s", got)
	}
}

// the built-in layout, with an account that may not read passwords.
func TestSQLSeed(t *testing.T) {
	ctx := context.Background()
	if err := db.Exec(`CREATE USER IF NOT EXISTS narrow@localhost IDENTIFIED BY 'x'; GRANT SELECT (email, quota) ON mail.users TO narrow@localhost`); err != nil {
		t.Fatal(err)
	}
	file, err := mysql.ReadFile(cfFile(t, account(socket())))
	if err != nil {
		t.Fatal(err)
	}
	pool := mysql.OpenPool(file.Config(), 2)
	defer pool.Close()
	options := sqldb.SeedOptions{Home: "/home/vmail/%d/%n", Mail: "maildir:~/Maildir", UID: "5000", GID: "5000"}
	d, err := sqldb.Seed(pool, options)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	for user, want := range map[string]string{
		"alice@example.com": "alice@example.com home=/home/vmail/example.com/alice mail=maildir:~/Maildir uid=5000 gid=5000 quota_rule=*:storage=1048576",
		"bob@example.com":   "Bob@Example.com home=/home/vmail/Example.com/Bob mail=maildir:~/Maildir uid=5000 gid=5000",
		"../x@example.com":  "no", "nobody@example.com": "no",
	} {
		if got := show(d.LookupUser(ctx, &auth.Request{User: user})); got != want {
			t.Errorf("%s:\n got %s\nwant %s", user, got, want)
		}
	}
	if got := show(d.LookupPass(ctx, &auth.Request{User: "BOB@example.com"})); got != "Bob@Example.com {SHA512-CRYP false |" {
		t.Errorf("got %s", got)
	}
	if got := users(d, "*@example.com"); !strings.Contains(got, "alice@example.com") || strings.Contains(got, "jörg") {
		t.Errorf("got %s", got)
	}

	config := file.Config()
	config.User, config.Password = "narrow", "x"
	narrowPool := mysql.OpenPool(config, 1)
	defer narrowPool.Close()
	narrow, err := sqldb.Seed(narrowPool, options)
	if err != nil {
		t.Fatal(err)
	}
	if err := narrow.PrepareUserdb(ctx); err != nil {
		t.Errorf("an account that may read email and quota: %v", err)
	}
	if err := narrow.Prepare(ctx); err == nil || mysql.Unreachable(err) {
		t.Errorf("an account that may not read passwords: %v", err)
	}
	if _, err := narrow.LookupPass(ctx, &auth.Request{User: "alice@example.com"}); err == nil || auth.Refused(err) || errors.Is(err, auth.ErrUnknownUser) {
		t.Errorf("got %v, want a temporary error", err)
	}
}
