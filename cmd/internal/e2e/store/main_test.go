// Package store tests lookup/mysql and auth/sqldb with a real MariaDB, and with
// the real postmap as the oracle.
package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
	"dovepost/lookup/mysql"
)

// What the tests share: the server, and the configuration directory of postmap.
var (
	db     *stack.MariaDB
	config string
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "store")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// A machine without a Postfix of its own has no main.cf, and postmap wants one.
	config = filepath.Join(dir, "postfix")
	if err := errors.Join(os.Mkdir(config, 0o755), os.WriteFile(filepath.Join(config, "main.cf"), []byte("compatibility_level = 3.6\n"), 0o644)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if db, err = stack.StartMariaDB(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer db.Stop()
	if err := load(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// load fills the server: the account "reader" may read and run all of the database "mail".
func load() error {
	schema, err := os.ReadFile("testdata/schema.sql")
	if err != nil {
		return err
	}
	return db.Exec(`SET GLOBAL sql_mode = 'NO_ENGINE_SUBSTITUTION'; SET sql_mode = 'NO_ENGINE_SUBSTITUTION';
		CREATE USER reader@localhost IDENTIFIED BY 'secret2';
		CREATE USER reader@127.0.0.1 IDENTIFIED BY 'secret2';
		CREATE DATABASE mail CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
		GRANT SELECT, EXECUTE, UPDATE ON mail.* TO reader@localhost;
		GRANT SELECT, EXECUTE, UPDATE ON mail.* TO reader@127.0.0.1;
		USE mail;
	` + string(schema))
}

// account is the part of a .cf file that says where to ask.
func account(host string) string {
	return "\nhosts = " + host + "\nuser = reader\npassword = secret2\ndbname = mail\n"
}

func socket() string { return "unix:" + db.Socket() }

// cfFile writes a .cf file and returns its path.
func cfFile(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "table.cf")
	if err := os.WriteFile(path, []byte(strings.TrimLeft(text, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	// Postfix waits until the file is older than a second or two.
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	return path
}

// table opens a .cf file with its own pool, of which lookups may have that many connections.
func table(t testing.TB, path string, conns int) (*mysql.Table, *mysql.Pool) {
	t.Helper()
	file, err := mysql.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if conns > 1 {
		conns++ // the pool keeps one for itself
	}
	pool := mysql.OpenPool(file.Config(), conns)
	t.Cleanup(func() { pool.Close() })
	m, err := mysql.NewTable(file, pool)
	if err != nil {
		t.Fatal(err)
	}
	return m, pool
}
