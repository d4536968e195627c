package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dovepost/cmd/internal/faultproxy"
	"dovepost/cmd/internal/stack"
	"dovepost/lookup"
	"dovepost/lookup/mysql"
)

// ownServer is a server for a test that stops it or changes its settings.
func ownServer(t *testing.T) *stack.MariaDB {
	t.Helper()
	m, err := stack.StartMariaDB(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Stop() })
	err = m.Exec(`CREATE USER reader@localhost IDENTIFIED BY 'secret2'; CREATE USER reader@127.0.0.1 IDENTIFIED BY 'secret2'; CREATE DATABASE mail; USE mail;
		CREATE TABLE users (email VARCHAR(255) PRIMARY KEY, quota INT); INSERT INTO users VALUES ('alice@example.com', 1), ('bob@example.com', 2);
		GRANT SELECT ON mail.* TO reader@localhost; GRANT SELECT ON mail.* TO reader@127.0.0.1`)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

const usersQuery = "query = SELECT email FROM users WHERE email = '%s'\n"

// state asks for one key that exists and one that does not.
func state(m lookup.Map) string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	values, err := m.Lookup(ctx, "alice@example.com")
	_, none := m.Lookup(ctx, "nobody@example.com")
	switch {
	case err == nil && len(values) == 1 && values[0] == "alice@example.com" && errors.Is(none, lookup.ErrNotFound):
		return "works"
	case err != nil && !errors.Is(err, lookup.ErrNotFound) && !errors.Is(none, lookup.ErrNotFound) && none != nil:
		return "away"
	}
	return fmt.Sprintf("%v %v, %v", values, err, none)
}

// it finds the server again after a stop, after a crash, and after connections
// were killed or timed out, without a client noticing more than that it was away.
func TestRestart(t *testing.T) {
	server := ownServer(t)
	for _, host := range []string{"unix:" + server.Socket(), server.Addr()} {
		m, pool := table(t, cfFile(t, usersQuery+account(host)), 4)
		check := func(when, want string) {
			t.Helper()
			if got := state(m); got != want {
				t.Errorf("%s, %s: got %s, want %s", host, when, got, want)
			}
		}
		check("at first", "works")
		for name, end := range map[string]func() error{"stop": server.Stop, "kill": server.Kill} {
			if err := end(); err != nil {
				t.Fatal(err)
			}
			check("after "+name, "away")
			if _, err := m.Lookup(context.Background(), "alice@example.com"); !mysql.Unreachable(err) {
				t.Errorf("after %s: %v is not unreachable", name, err)
			}
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			check("after "+name+" and start", "works")
			// Down and up again between two queries.
			if err := errors.Join(end(), server.Start()); err != nil {
				t.Fatal(err)
			}
			check("after an unseen "+name, "works")
		}
		var busy sync.WaitGroup // fills the pool
		for range 8 {
			busy.Go(func() { pool.Query(context.Background(), "SELECT SLEEP(0.2)") })
		}
		busy.Wait()
		kill := "SELECT CONCAT('KILL ', id) FROM information_schema.processlist WHERE user = 'reader'"
		lines, err := server.Query(kill)
		if err != nil || len(lines) == 0 || len(lines) > 4 {
			t.Errorf("%s: %d connections, %v; want up to 4", host, len(lines), err)
		}
		if err := server.Exec(strings.Join(lines, ";")); err != nil {
			t.Error(err)
		}
		check("after KILL", "works")
		if err := server.Exec("SET GLOBAL wait_timeout = 1"); err != nil {
			t.Fatal(err)
		}
		server.Query("SELECT SLEEP(0)") // a connection with the old setting may still be there
		pool.Close()
		m, _ = table(t, cfFile(t, usersQuery+account(host)), 4)
		check("with wait_timeout", "works")
		gone := time.Now().Add(time.Minute)
		for {
			lines, err := server.Query(kill)
			if err != nil || time.Now().After(gone) {
				t.Fatalf("connections are not timed out: %v, %v", lines, err)
			}
			if len(lines) == 0 {
				break
			}
		}
		check("after wait_timeout", "works")
		if err := server.Exec("SET GLOBAL wait_timeout = 28800"); err != nil {
			t.Fatal(err)
		}
	}
}

// a query that is running when the server dies is not answered with "not found".
func TestKilledMeanwhile(t *testing.T) {
	server := ownServer(t)
	m, _ := table(t, cfFile(t, "query = SELECT email, SLEEP(0.05) FROM users WHERE email = '%s'\n"+account("unix:"+server.Socket())), 8)
	var wrong, good, away atomic.Int64
	done := make(chan struct{})
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				_, err := m.Lookup(context.Background(), "bob@example.com")
				switch {
				case err == nil:
					good.Add(1)
				case errors.Is(err, lookup.ErrNotFound):
					wrong.Add(1)
				default:
					away.Add(1)
				}
			}
		})
	}
	for range 2 {
		before := good.Load()
		for good.Load() < before+16 {
			time.Sleep(time.Millisecond)
		}
		if err := errors.Join(server.Kill(), server.Start()); err != nil {
			t.Error(err)
		}
	}
	close(done)
	clients.Wait()
	if wrong.Load() > 0 || good.Load() == 0 {
		t.Errorf("%d answers, %d times away, %d times not found; want the last to be 0", good.Load(), away.Load(), wrong.Load())
	}
}

// classes of errors at start.
func TestPrepareErrors(t *testing.T) {
	away := fmt.Sprintf("127.0.0.1:%d", faultproxy.ClosedPort(t))
	for name, tt := range map[string]struct {
		text        string
		unreachable bool
	}{
		"no socket":              {usersQuery + account("unix:/nonexistent"), true},
		"nobody listens":         {usersQuery + account(away), true},
		"wrong password":         {usersQuery + account(socket()) + "password = wrong\n", false},
		"unknown database":       {usersQuery + account(socket()) + "dbname = nonsense\n", false},
		"unknown table":          {"query = SELECT x FROM nonsense WHERE k = '%s'" + account(socket()), false},
		"unknown column":         {"query = SELECT nonsense FROM users WHERE email = '%s'" + account(socket()), false},
		"no right to a table":    {"query = SELECT user FROM mysql.user WHERE user = '%s'" + account(socket()), false},
		"syntax":                 {"query = SELEKT '%s'" + account(socket()), false},
		"a string as LIMIT BY":   {"query = SELECT 1 LIMIT BY '%s'" + account(socket()), false},
		"two statements":         {"query = SELECT '%s'; SELECT 1" + account(socket()), false},
		"unknown character set":  {usersQuery + account(socket()) + "charset = nonsense\n", false},
		"TLS that is not there":  {usersQuery + account(socket()) + "tls_verify_cert = yes\n", false},
		"the second host denies": {usersQuery + account("unix:/nonexistent "+socket()) + "password = wrong\n", true},
	} {
		m, _ := table(t, cfFile(t, tt.text), 1)
		err := m.Prepare(context.Background())
		if err == nil || mysql.Unreachable(err) != tt.unreachable || strings.Contains(err.Error(), "secret2") {
			t.Errorf("%s: got %v; want unreachable %v", name, err, tt.unreachable)
		}
		if _, err := m.Lookup(context.Background(), "alice@example.com"); err == nil || errors.Is(err, lookup.ErrNotFound) {
			t.Errorf("%s: a lookup gives %v, want a temporary error", name, err)
		}
	}
	m, _ := table(t, cfFile(t, usersQuery+account("unix:/nonexistent "+away+" "+socket())), 1)
	if err := m.Prepare(context.Background()); err != nil {
		t.Errorf("the third host: %v", err)
	}
}

// proxy stands between a pool and a server and does what networks do.
type proxy struct {
	net.Listener
	mode atomic.Value // "pass", "close", "hang", "cut": stop an answer after some octets
	keep atomic.Int64 // octets of an answer that "cut" lets through
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: l}
	p.mode.Store("pass")
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { p.serve(c, to) })
		}
	})
	t.Cleanup(func() { l.Close(); p.mode.Store("close"); conns.Wait() })
	return p
}

func (p *proxy) serve(client net.Conn, to string) {
	defer client.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	var both sync.WaitGroup
	both.Go(func() { p.copy(server, client, false); server.Close() })
	p.copy(client, server, true)
	client.Close()
	both.Wait()
}

func (p *proxy) copy(to, from net.Conn, answer bool) {
	buf := make([]byte, 4096)
	for {
		from.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		n, err := from.Read(buf)
		mode := p.mode.Load().(string)
		switch {
		case mode == "close":
			return
		case errors.Is(err, io.EOF), err != nil && !isTimeout(err):
			return
		case mode == "hang":
			continue // what was read is lost
		case mode == "cut" && answer && n > 0:
			to.Write(buf[:min(n, int(p.keep.Load()))])
			return
		}
		if _, err := to.Write(buf[:n]); n > 0 && err != nil {
			return
		}
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// a network between that closes, hangs or cuts answers anywhere.
func TestNetwork(t *testing.T) {
	p := newProxy(t, db.Addr())
	m, _ := table(t, cfFile(t, "query = SELECT email FROM users WHERE email = '%s'\n"+account(p.Addr().String())), 2)
	check := func(when, want string) {
		t.Helper()
		if got := state(m); got != want {
			t.Errorf("%s: got %s, want %s", when, got, want)
		}
	}
	back := func() { // a server that hung is tried twice a second
		t.Helper()
		for began := time.Now(); state(m) != "works"; time.Sleep(20 * time.Millisecond) {
			if time.Since(began) > 10*time.Second {
				t.Fatal("not back after 10 s")
			}
		}
	}
	check("at first", "works")
	for range 2 {
		p.mode.Store("close")
		check("closed", "away")
		p.mode.Store("pass")
		check("open again", "works")
		p.mode.Store("hang")
		start := time.Now()
		check("hanging", "away")
		if took := time.Since(start); took > 10*time.Second { // instead of 20 for each of two questions
			t.Errorf("a hanging server is asked for %v", took)
		}
		p.mode.Store("pass")
		back()
	}
	for keep := range int64(110) {
		p.keep.Store(keep)
		p.mode.Store("cut")
		_, err := m.Lookup(context.Background(), "alice@example.com")
		if errors.Is(err, lookup.ErrNotFound) {
			t.Errorf("an answer that ends after %d octets: not found", keep)
		}
		p.mode.Store("pass")
		if keep%10 == 0 {
			back() // what has been begun while it was cut may still fail
		}
	}
}

// a pool keeps to its bound; who waits longer than his time gets an error.
func TestPoolBound(t *testing.T) {
	_, pool := table(t, cfFile(t, usersQuery+account(socket())), 3)
	var clients sync.WaitGroup
	for range 20 {
		clients.Go(func() {
			if rows, err := pool.Query(context.Background(), "SELECT SLEEP(0.02)"); err != nil || rows.Values[0][0].String != "0" {
				t.Errorf("got %v, %v", rows, err)
			}
		})
	}
	clients.Wait()
	if open := pool.Stats().OpenConnections; open > 3 {
		t.Errorf("%d connections, want at most 3", open)
	}
	full, empty := context.WithCancel(context.Background())
	for range 3 {
		clients.Go(func() { pool.Query(full, "SELECT SLEEP(100)") })
	}
	for pool.Stats().InUse < 3 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := pool.Query(ctx, "SELECT 1"); !errors.Is(err, context.DeadlineExceeded) || !mysql.Unreachable(err) {
		t.Errorf("got %v, want the deadline", err)
	}
	empty()
	clients.Wait()
}

// statements that are no longer used are closed at the server.
func TestStatementsBounded(t *testing.T) {
	server := ownServer(t)
	_, pool := table(t, cfFile(t, usersQuery+account("unix:"+server.Socket())), 1)
	for i := range 600 {
		if rows, err := pool.Query(context.Background(), fmt.Sprintf("SELECT %d, ?", i), "x"); err != nil || rows.Values[0][0].String != fmt.Sprint(i) {
			t.Fatal(rows, err)
		}
	}
	got, err := server.Query("SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'")
	if want := "Prepared_stmt_count\t256"; err != nil || len(got) != 1 || got[0] != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

// the server has no connection left: temporary, and over when one is free.
func TestTooManyConnections(t *testing.T) {
	server := ownServer(t)
	if err := server.Exec("ALTER USER reader@localhost WITH MAX_USER_CONNECTIONS 2"); err != nil {
		t.Fatal(err)
	}
	_, other := table(t, cfFile(t, usersQuery+account("unix:"+server.Socket())), 2)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var clients sync.WaitGroup
	for range 2 {
		clients.Go(func() { other.Query(ctx, "SELECT SLEEP(1000)") })
	}
	connected := func(want int) []string {
		t.Helper()
		for limit := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			ids, err := server.Query("SELECT id FROM information_schema.processlist WHERE user = 'reader'")
			if err != nil || time.Now().After(limit) {
				t.Fatalf("connections %q, %v; want %d", ids, err, want)
			}
			if len(ids) == want {
				return ids
			}
		}
	}
	taken := connected(2)
	m, _ := table(t, cfFile(t, usersQuery+account("unix:"+server.Socket())), 1)
	if err := m.Prepare(context.Background()); err == nil || !mysql.Unreachable(err) {
		t.Errorf("got %v, want that the server is busy", err)
	}
	cancel()
	clients.Wait()
	other.Close()
	for _, id := range taken {
		server.Exec("KILL " + id) // it may have ended by itself
	}
	connected(0)
	if got := state(m); got != "works" {
		t.Errorf("got %s", got)
	}
}
