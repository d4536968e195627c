// Package lookup tests lookupd with a real Postfix and a real MariaDB: the same
// answers as Postfix's own mysql: tables for the layouts that mail servers really
// have, and what it answers while the database fails.
//
// More layouts than those in testdata/layouts are tested with
//
//	DOVEPOST_LAYOUTS=dir[:dir...] go test ./cmd/internal/e2e/lookup
//
// where dir is a layout or holds layouts. DOVEPOST_LONG=1 lets the outages last as
// long as a restart of a large database takes.
package lookup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"dovepost/cmd/internal/stack"
)

var (
	db      *stack.MariaDB // has all layouts, each in a database of its own
	scratch string         // a directory that the user postfix may enter
	lookupd string         // the program
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	err := setUp()
	if err == nil {
		code = m.Run()
	}
	if db != nil {
		err = errors.Join(err, db.Stop())
	}
	if code != 0 {
		fmt.Fprintf(os.Stderr, "logs are in %s\n", scratch)
	} else {
		err = errors.Join(err, os.RemoveAll(scratch))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func setUp() (err error) {
	if scratch, err = os.MkdirTemp("", "lookup-"); err != nil {
		return err
	}
	if err := os.Chmod(scratch, 0o755); err != nil {
		return err
	}
	if err := stack.Build(filepath.Join(scratch, "bin")); err != nil {
		return err
	}
	lookupd = filepath.Join(scratch, "bin/lookupd")
	if db, err = stack.StartMariaDB(scratch); err != nil {
		return err
	}
	return os.Chmod(filepath.Dir(db.Socket()), 0o755) // the user postfix may enter
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newDir makes a directory in scratch.
func newDir(t testing.TB, pattern string) string {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, pattern)
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	return dir
}

// start starts lookupd with a socketmap at path.
func start(t testing.TB, dir, path string, args ...string) *stack.Daemon {
	t.Helper()
	d, err := startDaemon(dir, path, args...)
	must(t, err)
	t.Cleanup(func() { stop(t, d) })
	return d
}

func startDaemon(dir, path string, args ...string) (*stack.Daemon, error) {
	return stack.StartDaemon(lookupd, dir, "socketmap", path, args...)
}

// stop ends what start started. It must not have died meanwhile.
func stop(t testing.TB, d *stack.Daemon) {
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
	if n := d.Starts(); n != 1 {
		t.Errorf("lookupd was started %d times: it has died", n)
	}
	if t.Failed() {
		t.Logf("%s", lastLines(d.Log(), 30))
	}
}

// lastLines returns the end of a log.
func lastLines(path string, n int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := splitLines(string(text))
	return path + ":\n" + joinLines(lines[max(0, len(lines)-n):])
}

// numbers is a table with the column seq, from 0 to n-1.
func numbers(n int) string {
	const digits = "(SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4" +
		" UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)"
	sum, from := "d0.d", digits+" AS d0"
	for place, unit := 1, 10; unit < n; place, unit = place+1, unit*10 {
		sum += fmt.Sprintf("+%d*d%d.d", unit, place)
		from += fmt.Sprintf(" CROSS JOIN %s AS d%d", digits, place)
	}
	return fmt.Sprintf("(SELECT %s AS seq FROM %s HAVING seq < %d) AS numbers", sum, from, n)
}
