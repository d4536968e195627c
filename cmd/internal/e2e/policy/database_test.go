package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"dovepost/cmd/internal/stack"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if server != nil {
		server.Stop()
		os.RemoveAll(filepath.Dir(filepath.Dir(server.Socket())))
	}
	os.RemoveAll(binDir)
	os.Exit(code)
}

var (
	serverOnce sync.Once
	server     *stack.MariaDB // for all tests; nil before the first one wants it
	serverErr  error
	databases  atomic.Int32
)

// database is a database of one test, with the tables that contrib installs, and the account
// dovepost_policyd.
type database struct {
	t    *testing.T
	name string
}

// newDatabase makes a database with domain example.com in it.
func newDatabase(t *testing.T) *database {
	t.Helper()
	serverOnce.Do(func() {
		var dir string
		if dir, serverErr = os.MkdirTemp("", "policy-db-"); serverErr == nil {
			server, serverErr = stack.StartMariaDB(dir)
		}
	})
	must(t, serverErr)
	d := &database{t, fmt.Sprintf("policy%d", databases.Add(1))}
	var text strings.Builder
	for _, file := range []string{"schema.sql", "grants.sql", "policy.sql"} {
		sql, err := os.ReadFile(filepath.Join("../../../../contrib/mysql", file))
		must(t, err)
		text.WriteString(strings.ReplaceAll(string(sql), "maildb", d.name))
	}
	text.WriteString("INSERT INTO domains (domain) VALUES ('example.com');\n")
	must(t, server.Exec(text.String()))
	return d
}

// exec runs statements.
func (d *database) exec(sql string) {
	d.t.Helper()
	must(d.t, server.Exec("USE "+d.name+";\n"+sql))
}

// query returns the rows of a statement, columns separated by tabs.
func (d *database) query(sql string) []string {
	d.t.Helper()
	rows, err := server.Query("USE " + d.name + ";\n" + sql)
	must(d.t, err)
	return rows
}

// file writes what --mysql of policyd reads. addr is the server's, or that of a proxy before it.
func (d *database) file(addr string) string {
	d.t.Helper()
	return d.table(addr, "")
}

// table writes a mysql_table(5) file with a query.
func (d *database) table(addr, query string) string {
	d.t.Helper()
	f, err := os.CreateTemp(d.t.TempDir(), "mysql-*.cf")
	must(d.t, err)
	defer f.Close()
	if query != "" {
		query = "query = " + query + "\n"
	}
	_, err = fmt.Fprintf(f, "hosts = inet:%s\nuser = dovepost_policyd\npassword = change-me-policyd\ndbname = %s\n%s", addr, d.name, query)
	must(d.t, err)
	return f.Name()
}
