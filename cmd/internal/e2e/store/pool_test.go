package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dovepost/cmd/internal/faultproxy"
	"dovepost/cmd/internal/stack"
	"dovepost/lookup"
	"dovepost/lookup/mysql"
)

// logs are lines that a test may read while they are written.
type logs struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logs) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

// the server gives the account fewer connections than the pool may have: those that
// there are must do, and the log says so once.
func TestFewerConnectionsThanWanted(t *testing.T) {
	server := ownServer(t)
	// Errors 1226 and 1040.
	for name, limit := range map[string]string{
		"of the account": "ALTER USER reader@localhost WITH MAX_USER_CONNECTIONS 2",
		"of the server":  "ALTER USER reader@localhost WITH MAX_USER_CONNECTIONS 0; SET GLOBAL max_connections = 10",
	} {
		if err := server.Exec(limit); err != nil {
			t.Fatal(err)
		}
		m, pool := table(t, cfFile(t, "query = SELECT email, SLEEP(0.01) FROM users WHERE email = '%s'\n"+account("unix:"+server.Socket())), 20)
		var out logs
		pool.SetLog(slog.New(slog.NewTextHandler(&out, nil)))
		var clients sync.WaitGroup
		for range 40 {
			clients.Go(func() {
				if got := ours(m, "bob@example.com"); got != "= bob@example.com,0" {
					t.Errorf("%s: got %s", name, got)
				}
			})
		}
		clients.Wait()
		if n := out.count("no more connections"); n != 1 {
			t.Errorf("%s: %d lines, want 1: %s", name, n, out.buf.String())
		}
		for limit := time.Now().Add(time.Minute); pool.Stats().InUse > 0 && time.Now().Before(limit); {
			time.Sleep(time.Millisecond) // one more may still be asked for
		}
		if s := pool.Stats(); s.InUse != 0 || s.OpenConnections != s.Idle || s.OpenConnections > 12 || s.WaitDuration == 0 {
			t.Errorf("%s: got %+v", name, s)
		}
		pool.Close()
	}
}

// of several hosts the dead are passed over, and one that hangs costs half of the
// time once.
func TestHosts(t *testing.T) {
	first, second := newProxy(t, db.Addr()), newProxy(t, db.Addr())
	hosts := fmt.Sprintf("127.0.0.1:%d %s %s", faultproxy.ClosedPort(t), first.Addr(), second.Addr())
	m, pool := table(t, cfFile(t, usersQuery+"host_order = first\n"+account(hosts)), 8)
	const limit, soon = 4 * time.Second, 500 * time.Millisecond
	ask := func(when, want string, least, most time.Duration) (took time.Duration) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		start := time.Now()
		_, err := m.Lookup(ctx, "alice@example.com")
		got := "found"
		if errors.Is(err, lookup.ErrNotFound) {
			got = "no"
		} else if err != nil {
			got = "away"
		}
		if took = time.Since(start); got != want || took < least || took > most {
			t.Errorf("%s: got %s after %v, %v; want %s after %v to %v", when, got, took, err, want, least, most)
		}
		return took
	}
	ask("the first is dead", "found", 0, limit)
	first.mode.Store("close")
	ask("the second, too", "found", 0, limit)
	second.mode.Store("close")
	ask("all are", "away", 0, limit-soon)
	second.mode.Store("pass")
	ask("one is back", "found", 0, limit)
	second.mode.Store("hang")
	first.mode.Store("pass")
	ask("that hangs", "found", soon, limit)
	best := limit
	for range 5 {
		best = min(best, ask("the other is asked from then on", "found", 0, limit))
	}
	if best > soon {
		t.Errorf("the other is asked from then on, and answers after %v", best)
	}
	first.mode.Store("hang")
	ask("both hang", "away", limit-soon, 2*limit)
	ask("both hang, new connections, too", "away", 0, 2*limit)
	// Who asks meanwhile has an answer as soon as they are back.
	var clients sync.WaitGroup
	for range 50 {
		clients.Go(func() {
			if _, err := m.Lookup(context.Background(), "alice@example.com"); err != nil {
				t.Errorf("back after a while: got %v", err)
			}
		})
	}
	time.Sleep(time.Second)
	first.mode.Store("pass")
	second.mode.Store("pass")
	back := time.Now()
	if clients.Wait(); time.Since(back) > 8*time.Second { // the questions have 20 s
		t.Errorf("answers %v after they are back", time.Since(back))
	}
	if s := pool.Stats(); s.OpenConnections > 9 { // the one that it keeps for itself may not be given back yet
		t.Errorf("got %+v", s)
	}
}

// connections are spread over equal hosts.
func TestHostsRandom(t *testing.T) {
	a, b := newProxy(t, db.Addr()), newProxy(t, db.Addr())
	_, pool := table(t, cfFile(t, usersQuery+account(a.Addr().String()+" "+b.Addr().String())), 16)
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() { pool.Query(context.Background(), "SELECT SLEEP(0.3)") })
	}
	clients.Wait()
	// Those to a die: only they are dropped when one of them is noticed.
	a.mode.Store("close")
	for range 16 {
		clients.Go(func() {
			if _, err := pool.Query(context.Background(), "SELECT SLEEP(0.1)"); err != nil {
				t.Error(err)
			}
		})
	}
	clients.Wait()
	if s := pool.Stats(); s.OpenConnections == 0 || s.OpenConnections > 16 {
		t.Errorf("got %+v", s)
	}
}

// who gives up while he waits or while the server works frees his place at once.
func TestCancel(t *testing.T) {
	_, pool := table(t, cfFile(t, usersQuery+account(socket())), 1)
	for n := range int64(3) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		for range 2 {
			go func() { _, err := pool.Query(ctx, "SELECT SLEEP(10)"); done <- err }()
		}
		for pool.Stats().WaitCount == n {
			time.Sleep(time.Millisecond)
		}
		start := time.Now()
		cancel()
		for range 2 {
			if err := <-done; !errors.Is(err, context.Canceled) || time.Since(start) > 8*time.Second {
				t.Errorf("got %v after %v", err, time.Since(start))
			}
		}
		if rows, err := pool.Query(context.Background(), "SELECT 1"); err != nil || rows.Values[0][0].String != "1" {
			t.Errorf("got %v, %v", rows, err)
		}
	}
}

// idle connections are closed after idle_interval.
func TestIdle(t *testing.T) {
	_, pool := table(t, cfFile(t, usersQuery+"idle_interval = 1\n"+account(socket())), 3)
	var clients sync.WaitGroup
	for range 3 {
		clients.Go(func() { pool.Query(context.Background(), "SELECT SLEEP(0.1)") })
	}
	clients.Wait()
	if s := pool.Stats(); s.Idle < 1 || s.Idle > 3 {
		t.Errorf("got %+v", s)
	}
	for limit := time.Now().Add(time.Minute); pool.Stats().OpenConnections > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("got %+v", pool.Stats())
		}
	}
}

// a server that only reads, and a schema that changes and changes back, are
// temporary; nothing has to be started again.
func TestReadOnlyAndSchema(t *testing.T) {
	server := ownServer(t)
	if err := server.Exec("GRANT UPDATE ON mail.* TO reader@localhost"); err != nil {
		t.Fatal(err)
	}
	m, _ := table(t, cfFile(t, usersQuery+account("unix:"+server.Socket())), 2)
	update, _ := table(t, cfFile(t, "query = UPDATE users SET quota = 1 WHERE email = '%s'\nrequire_result_set = no\n"+account("unix:"+server.Socket())), 2)
	set := mysql.Set{m}
	for _, step := range []struct{ sql, reads, updates, both string }{
		{"SELECT 1", "works", answerNo, "1 [alice@example.com] <nil>"},
		{"SET GLOBAL read_only = 1", "works", answerError, "1 [alice@example.com] <nil>"},
		{"SET GLOBAL read_only = 0", "works", answerNo, "1 [alice@example.com] <nil>"},
		{"USE mail; ALTER TABLE users RENAME COLUMN email TO mail", "away", answerError, "error"},
		{"USE mail; ALTER TABLE users RENAME COLUMN mail TO email", "works", answerNo, "1 [alice@example.com] <nil>"},
		{"USE mail; RENAME TABLE users TO people", "away", answerError, "error"},
		{"USE mail; RENAME TABLE people TO users; ALTER TABLE users ADD COLUMN more INT FIRST", "works", answerNo, "1 [alice@example.com] <nil>"},
	} {
		if err := server.Exec(step.sql); err != nil {
			t.Fatal(err)
		}
		if got := state(m); got != step.reads {
			t.Errorf("%s: got %s, want %s", step.sql, got, step.reads)
		}
		if got := ours(update, "alice@example.com"); got != step.updates {
			t.Errorf("%s: the update gives %s, want %s", step.sql, got, step.updates)
		}
		i, values, err := set.First(context.Background(), []string{"x@example.com", "alice@example.com", "y@example.com"})
		got := fmt.Sprint(i, values, err)
		if err != nil && !errors.Is(err, lookup.ErrNotFound) {
			got = "error"
		}
		if got = strings.ReplaceAll(got, "1[", "1 ["); strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(step.both, " ", "") {
			t.Errorf("%s: three keys give %s, want %s", step.sql, got, step.both)
		}
	}
}

// the sql_mode that the server gives its sessions counts for us as for Postfix.
func TestSQLMode(t *testing.T) {
	server := ownServer(t)
	schema, err := os.ReadFile("testdata/schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Exec("SET GLOBAL sql_mode = ''; SET sql_mode = ''; DROP DATABASE mail; CREATE DATABASE mail CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci; USE mail;\n" + string(schema)); err != nil {
		t.Fatal(err)
	}
	queries := []string{
		"SELECT goto FROM alias WHERE address = '%s'",
		`SELECT "goto" FROM "alias" WHERE address = '%s'`,
		`SELECT goto FROM alias WHERE address = "%s"`,
		`SELECT '%s', 'a\\', '\\%u', "x"`,
		`SELECT N'%s', goto FROM alias`,
		`SELECT 'it\'s', goto FROM alias WHERE address = '%s'`,
		`SELECT address FROM alias WHERE address LIKE 'team\_%%' OR address LIKE '%%%u@%%' AND address = '%s'`,
		`SELECT '%u' || '%d'`,
	}
	keys := []string{"team@example.com", "nobody@example.com", "o'brien@example.com", `back\slash@example.com`, `'`, `\`, `\'`, "%", "a@b"}
	for _, mode := range []string{"", "ANSI_QUOTES", "NO_BACKSLASH_ESCAPES", "ANSI,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH"} {
		if err := server.Exec("SET GLOBAL sql_mode = '" + mode + "'"); err != nil {
			t.Fatal(err)
		}
		server.Query("SELECT 1") // whoever connects from now on has it
		var all sync.WaitGroup
		for _, query := range queries {
			all.Go(func() { compareInMode(t, server, mode, query, keys) })
		}
		all.Wait()
	}
}

// compareInMode asks Postfix and us; an error costs Postfix a second, and one is enough.
func compareInMode(t *testing.T, server *stack.MariaDB, mode, query string, keys []string) {
	path := cfFile(t, "query = "+query+account("unix:"+server.Socket()))
	file, err := mysql.ReadFile(path)
	if err != nil {
		t.Error(err)
		return
	}
	pool := mysql.OpenPool(file.Config(), 1)
	defer pool.Close()
	m, err := mysql.NewTable(file, pool)
	if err != nil {
		t.Errorf("%s: %v", query, err)
		return
	}
	for _, key := range keys {
		want := postmap(t, path, []string{key})[key]
		if got := ours(m, key); got != want {
			_, err := m.Lookup(context.Background(), key)
			t.Errorf("%s: %s: %q: got %q, want %q (%v)", mode, query, key, got, want, err)
		}
		if want == answerError {
			break
		}
	}
}

// an option file says where the server is and who asks, but not with which password,
// as it does for Postfix.
func TestOptionFile(t *testing.T) {
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "my.cnf")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const login = "user = reader\npassword = wrong\n"
	local := "socket = " + db.Socket() + "\n"
	inet := fmt.Sprintf("port = %d\n", db.Port())
	for _, tt := range []struct{ name, file, options, want string }{
		{"the socket", "[client]\n" + local + login, "", "= alice@example.com"},
		{"hosts = localhost", "[client]\n" + local + login, "hosts = localhost\n", "= alice@example.com"},
		{"the table file's own account", "[client]\n" + local + login, "user = nobody\n", answerError},
		{"another group", "[postfix]\n" + local + login, "option_group = postfix\n", "= alice@example.com"},
		{"a group that is not read", "[postfix]\n" + local + login, "", answerError},
		{"the port", "[client]\n" + inet + login, "hosts = 127.0.0.1\n", "= alice@example.com"},
		{"TLS, wished for, that the server does not have", "[client]\nssl\nssl-enforce\n" + local + login, "", "= alice@example.com"},
	} {
		path := cfFile(t, usersQuery+"dbname = mail\npassword = secret2\n"+tt.options+"option_file = "+write(tt.file)+"\n")
		m, _ := table(t, path, 1)
		got, native := ours(m, "alice@example.com"), postmap(t, path, []string{"alice@example.com"})["alice@example.com"]
		if got != tt.want || got != native {
			t.Errorf("%s: got %s, Postfix %s; want %s", tt.name, got, native, tt.want)
		}
	}
}
