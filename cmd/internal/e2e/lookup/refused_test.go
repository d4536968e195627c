package lookup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"dovepost/lookup/socketmap"
)

// A statement that the server refuses, because a table is not there, costs the mail that needs it and no
// other, and that no more when the table has come.
func TestRefusedStatement(t *testing.T) {
	must(t, db.Exec(`DROP DATABASE IF EXISTS refused; CREATE DATABASE refused; USE refused; DROP USER IF EXISTS refused@127.0.0.1;
		CREATE USER refused@127.0.0.1 IDENTIFIED BY 'secret2'; GRANT SELECT ON refused.* TO refused@127.0.0.1;
		CREATE TABLE users (email VARCHAR(255) PRIMARY KEY); INSERT INTO users VALUES ('a@d')`))
	dir := newDir(t, "refused")
	file := func(table string) string {
		path := filepath.Join(dir, table+".cf")
		must(t, os.WriteFile(path, fmt.Appendf(nil, "hosts = %s\nuser = refused\npassword = secret2\ndbname = refused\nquery = SELECT email FROM %s WHERE email = '%%s'\n",
			db.Addr(), table), 0o600))
		return path
	}
	path := filepath.Join(dir, "socket")
	start(t, dir, path, "--cache_fresh=0", "--map=users=address:"+file("users"), "--map=later=address:"+file("later"))
	answers := func() string {
		c, err := socketmap.Dial(context.Background(), "unix", path)
		must(t, err)
		defer c.Close()
		users, err := ask(c, "users", "a@d")
		must(t, err)
		later, err := ask(c, "later", "a@d")
		must(t, err)
		return users + " | " + later
	}
	if got, want := answers(), "= a@d | "+answerError; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	must(t, db.Exec("CREATE TABLE refused.later LIKE refused.users"))
	if got, want := answers(), "= a@d | "+answerNo; got != want {
		t.Errorf("when the table has come: %s, want %s", got, want)
	}
}
