package lookup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dovepost/cmd/internal/faultproxy"
	"dovepost/cmd/internal/stack"
	"dovepost/lookup"
	"dovepost/lookup/socketmap"
)

const (
	// recovery is how long after the database's return every new question must have its answer.
	recovery = 4 * time.Second
	// deadline is lookupd's lookup_timeout.
	deadline = 5 * time.Second
	// calm is how long all questions must be answered in until nothing is believed to be wrong.
	calm = 700 * time.Millisecond
	// users is how many there are; the first known of them are asked for before a fault.
	users, known = 100_000, 200
	// rows is how many the large answer has.
	rows = 2000
)

// faulty is lookupd with a proxy between it and the database.
type faulty struct {
	t      *testing.T
	db     *stack.MariaDB
	proxy  *faultproxy.Proxy
	path   string       // of the socketmap
	cached bool         // there is a cache, and the known users are in it
	next   atomic.Int64 // user that was not asked for yet
	large  string
	locker sync.WaitGroup // the session that holds a lock
}

// TestFaults: whatever the database, or the network before it, does, no user that
// exists is "not found", and lookupd works again soon. Without a cache and with one at the same
// time, each with a server of its own.
func TestFaults(t *testing.T) {
	second, err := stack.StartMariaDB(newDir(t, "second"))
	must(t, err)
	t.Cleanup(func() { must(t, second.Stop()) })
	for _, lane := range []struct {
		name  string
		db    *stack.MariaDB
		tests func(*testing.T, *stack.MariaDB)
	}{
		{"no cache", db, withoutCache},
		{"cache", second, withCache},
	} {
		t.Run(lane.name, func(t *testing.T) {
			t.Parallel()
			lane.tests(t, lane.db)
		})
	}
}

func withoutCache(t *testing.T, db *stack.MariaDB) {
	for name, test := range map[string]func(*faulty){
		"network": networkFaults, "server": serverFaults, "connections": tooManyConnections, "cuts": cutAnswers, "unnoticed": unnoticed,
	} {
		t.Run(name, func(t *testing.T) { test(newFaulty(t, db, "tcp", false)) })
	}
	t.Run("unix socket", func(t *testing.T) {
		f := newFaulty(t, db, "unix", false)
		f.during("refuse", f.set(faultproxy.Refuse()), f.set(faultproxy.Pass()))
	})
}

func withCache(t *testing.T, db *stack.MariaDB) {
	for name, test := range map[string]func(*faulty){
		"network": networkFaults, "server": serverFaults, "connections": tooManyConnections,
	} {
		t.Run(name, func(t *testing.T) { test(newFaulty(t, db, "tcp", true)) })
	}
	t.Run("outage", func(t *testing.T) { away(t, db) })
}

// newFaulty fills the database "faults" of a server and starts lookupd.
func newFaulty(t *testing.T, db *stack.MariaDB, network string, cached bool) *faulty {
	t.Helper()
	must(t, db.Exec(fmt.Sprintf(`DROP DATABASE IF EXISTS faults; CREATE DATABASE faults; USE faults;
		DROP USER IF EXISTS faults@127.0.0.1, faults@localhost; CREATE USER faults@127.0.0.1 IDENTIFIED BY 'secret2', faults@localhost IDENTIFIED BY 'secret2';
		GRANT SELECT ON faults.* TO faults@127.0.0.1, faults@localhost;
		CREATE TABLE users (email VARCHAR(255) PRIMARY KEY, home VARCHAR(255) NOT NULL);
		INSERT INTO users SELECT CONCAT('user', seq, '@example.com'), CONCAT('/home/', seq) FROM %s;
		CREATE TABLE list (member VARCHAR(255) PRIMARY KEY);
		INSERT INTO list SELECT CONCAT('member', seq, '@example.com') FROM %s`, numbers(users), numbers(rows))))
	members, err := db.Query("SELECT member FROM faults.list ORDER BY member")
	must(t, err)
	f := &faulty{t: t, db: db, cached: cached, large: strings.Join(members, ",")}
	f.next.Store(known)
	dir := newDir(t, "faults")
	addr, host, to := "127.0.0.1:0", "inet:", db.Addr()
	if network == "unix" { // MySQL wants the password itself there, and would not have it from TCP
		addr, host, to = filepath.Join(dir, "proxy"), "unix:", db.Socket()
	}
	f.proxy, err = faultproxy.Listen(network, addr, network, to)
	must(t, err)
	t.Cleanup(func() { f.proxy.Close() })
	account := "\nhosts = " + host + f.proxy.Addr() + "\nuser = faults\npassword = secret2\ndbname = faults\n"
	usersCF, listCF := filepath.Join(dir, "users.cf"), filepath.Join(dir, "list.cf")
	must(t, os.WriteFile(usersCF, []byte("query = SELECT home FROM users WHERE email = '%s'"+account), 0o600))
	must(t, os.WriteFile(listCF, []byte("query = SELECT member FROM list WHERE '%s' LIKE '%%list' ORDER BY member"+account), 0o600))
	f.path = filepath.Join(dir, "socket")
	args := []string{"--map=users=address:" + usersCF, "--map=list=exact:" + listCF}
	if !cached {
		args = append(args, "--cache_fresh=0", "--cache_stale=0")
	}
	start(t, dir, f.path, args...)
	f.works("at first")
	return f
}

// question asks on a connection of its own; the error is that of the answer.
func (f *faulty) question(name, key string) (string, error) {
	c, err := socketmap.Dial(context.Background(), "unix", f.path)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return c.Lookup(context.Background(), name, key)
}

// user asks for an existing user. What is neither the answer nor temporary is a failure.
func (f *faulty) user(n int) (ok bool) {
	value, err := f.question("users", fmt.Sprintf("user%d@example.com", n))
	var reply *socketmap.ReplyError
	switch {
	case err == nil && value == fmt.Sprintf("/home/%d", n):
		return true
	case errors.As(err, &reply) && strings.HasPrefix(reply.Reply, "TEMP "):
		return false
	}
	f.t.Errorf("user %d: got %q, %v", n, value, err)
	return false
}

// nobody asks for a user that never was.
func (f *faulty) nobody() {
	value, err := f.question("users", fmt.Sprintf("nobody%d@example.com", rand.IntN(1000)))
	var reply *socketmap.ReplyError
	if !errors.Is(err, lookup.ErrNotFound) && !errors.As(err, &reply) {
		f.t.Errorf("nobody: got %q, %v", value, err)
	}
}

// works asks for all known users, who must be there.
func (f *faulty) works(when string) {
	f.t.Helper()
	for n := range known {
		if !f.user(n) {
			f.t.Fatalf("%s: user %d: try again later", when, n)
		}
	}
	if value, err := f.question("list", "a list"); err != nil || value != f.large {
		f.t.Errorf("%s: the list: %d octets, %v; want %d", when, len(value), err, len(f.large))
	}
}

// during asks all the time, from eight sides, while a fault is on: begin starts it,
// and end ends it after a second. Soon after that every question must be answered.
func (f *faulty) during(what string, begin, end func() error) {
	f.t.Helper()
	f.lasting(what, time.Second, begin, end)
}

// lasting is during for any time. It returns how many questions had no answer.
func (f *faulty) lasting(what string, lasts time.Duration, begin, end func() error) int64 {
	f.t.Helper()
	f.works("before " + what)
	var answered, later, knownLater atomic.Int64
	done := make(chan struct{})
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				n := rand.IntN(known)
				if i%2 == 0 {
					n = int(f.next.Add(1))
				}
				switch ok := f.user(n); {
				case ok:
					answered.Add(1)
				case n < known:
					knownLater.Add(1)
					fallthrough
				default:
					later.Add(1)
				}
				f.nobody()
				time.Sleep(time.Millisecond)
			}
		})
	}
	must(f.t, begin())
	time.Sleep(lasts)
	must(f.t, end())
	took := f.recovered()
	close(done)
	clients.Wait()
	f.t.Logf("%s: %d answers, %d times later (%d of known users), works again after %v", what, answered.Load(), later.Load(), knownLater.Load(), took.Round(time.Millisecond))
	if took > recovery {
		f.t.Errorf("%s: works again after %v, want %v", what, took, recovery)
	}
	if f.cached && knownLater.Load() > 0 {
		f.t.Errorf("%s: %d times no answer for users that were asked for before", what, knownLater.Load())
	}
	f.works("after " + what)
	return later.Load()
}

// recovered returns how long it takes until questions that were never asked before are answered,
// all of those that are asked from then on.
func (f *faulty) recovered() time.Duration {
	began := time.Now()
	var mu sync.Mutex // guards what follows
	first, last := time.Hour, time.Duration(0)
	over := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return time.Since(began) > min(max(first, last)+calm, 2*deadline)
	}
	var asking sync.WaitGroup
	for !over() {
		asking.Go(func() {
			asked := time.Since(began)
			ok := f.user(int(f.next.Add(1)))
			answered := time.Since(began)
			mu.Lock()
			defer mu.Unlock()
			if ok {
				first = min(first, answered)
			} else {
				last = max(last, asked)
			}
		})
		time.Sleep(20 * time.Millisecond)
	}
	asking.Wait()
	return max(first, last)
}

// set makes a fault of the proxy.
func (f *faulty) set(fault faultproxy.Fault) func() error {
	return func() error { return f.proxy.Set(fault) }
}

func (f *faulty) sql(statements string) func() error {
	return func() error { return f.db.Exec(statements) }
}

// networkFaults: the network between lookupd and the database fails in all ways.
func networkFaults(f *faulty) {
	for _, tt := range []struct {
		name  string
		fault faultproxy.Fault
		lasts time.Duration
		all   bool // questions have their answer in time
	}{
		{"refuse", faultproxy.Refuse(), time.Second, false},
		{"hang", faultproxy.Hang(), time.Second, true},
		{"lose", faultproxy.Lose(), time.Second, true},
		{"lose for a moment", faultproxy.Lose(), 100 * time.Millisecond, true},
		{"lose for longer", faultproxy.Lose(), deadline + 1500*time.Millisecond, false},
		{"slow after that", faultproxy.Slow(300 * time.Millisecond), 2 * time.Second, true},
		{"reset at once", faultproxy.Cut(0), time.Second, false},
		{"slow from the greeting on", faultproxy.Slow(300 * time.Millisecond), 2 * time.Second, true},
		{"reset after the greeting", faultproxy.Cut(100), time.Second, false},
	} {
		begin := f.set(tt.fault)
		if strings.HasSuffix(tt.name, "from the greeting on") { // no connection is from before
			begin = func() error { return errors.Join(f.proxy.Set(tt.fault), f.killAll()) }
		}
		later := f.lasting(tt.name, tt.lasts, begin, f.set(faultproxy.Pass()))
		if strings.HasSuffix(tt.name, "from the greeting on") && later <= 8 {
			continue // the connections are killed one after the other, and a query is sent again once
		}
		if tt.all && later > 0 {
			f.t.Errorf("%s: %d times no answer", tt.name, later)
		}
	}
}

// cutAnswers: the connection is reset after every octet of an answer, of the
// greeting and of the login, and at many places in an answer of many rows. An
// answer is whole or it is none.
func cutAnswers(f *faulty) {
	t := f.t
	cuts := 0
	for after := range 400 {
		must(t, f.proxy.Set(faultproxy.Cut(after)))
		f.user(after % known)
		cuts++
		if after%50 == 0 {
			must(t, f.proxy.Set(faultproxy.Pass()))
			f.works(fmt.Sprintf("after a cut at %d", after))
		}
	}
	whole := 0
	for after := 0; after < 2*len(f.large); after += 397 {
		must(t, f.proxy.Set(faultproxy.Cut(after)))
		value, err := f.question("list", "a list")
		var reply *socketmap.ReplyError
		switch {
		case err == nil && value == f.large:
			whole++
		case !errors.As(err, &reply):
			t.Errorf("the list, cut after %d octets: %d octets, %v", after, len(value), err)
		}
		cuts++
	}
	must(t, f.proxy.Set(faultproxy.Pass()))
	if took := f.recovered(); took > recovery {
		t.Errorf("works again after %v", took)
	}
	f.works("at last")
	t.Logf("%d cuts, %d of them behind the answer", cuts, whole)
}

// serverFaults: the server itself fails or says no.
func serverFaults(f *faulty) {
	for _, tt := range []struct {
		name       string
		begin, end func() error
	}{
		{"the server is stopped", f.db.Stop, f.db.Start},
		{"the server is killed", f.db.Kill, f.db.Start},
		{"the server is frozen", f.signal(syscall.SIGSTOP), f.signal(syscall.SIGCONT)},
		{"a table is gone", f.sql("USE faults; RENAME TABLE users TO away"), f.sql("USE faults; RENAME TABLE away TO users")},
		{"a column is gone", f.sql("USE faults; ALTER TABLE users CHANGE home house VARCHAR(255) NOT NULL"),
			f.sql("USE faults; ALTER TABLE users CHANGE house home VARCHAR(255) NOT NULL")},
		{"a right is gone", func() error {
			return errors.Join(f.db.Exec("REVOKE SELECT ON faults.* FROM faults@127.0.0.1"), f.killAll())
		}, f.sql("GRANT SELECT ON faults.* TO faults@127.0.0.1")},
		{"the table is locked", f.lockUsers, f.unlockUsers},
	} {
		f.during(tt.name, tt.begin, tt.end)
	}
}

func (f *faulty) signal(sig syscall.Signal) func() error {
	return func() error { return f.db.Signal(sig) }
}

// lockUsers locks the table until unlockUsers ends the session, as an ALTER does, and returns when it is
// locked.
func (f *faulty) lockUsers() error {
	f.locker.Go(func() { f.db.Exec("LOCK TABLES faults.users WRITE; SELECT SLEEP(100) AS holding_the_lock") })
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		ids, err := f.lockers()
		if err != nil || len(ids) == 1 {
			return err
		}
		if time.Now().After(end) {
			return errors.New("nobody holds the lock")
		}
	}
}

func (f *faulty) unlockUsers() error {
	ids, err := f.lockers()
	if err != nil || len(ids) != 1 {
		return fmt.Errorf("sessions that hold the lock: %v, %v", ids, err)
	}
	err = f.db.Exec("KILL " + ids[0])
	f.locker.Wait()
	return err
}

// lockers are the sessions that hold the lock.
func (f *faulty) lockers() ([]string, error) {
	return f.db.Query("SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%holding_the_lock'")
}

// unnoticed: what the server does to its connections, or to those who write,
// nobody notices who only reads.
func unnoticed(f *faulty) {
	t := f.t
	for _, tt := range []struct {
		name       string
		begin, end func() error
	}{
		{"read-only", f.sql("SET GLOBAL read_only = 1; FLUSH TABLES WITH READ LOCK"), f.sql("SET GLOBAL read_only = 0")},
		{"wait_timeout", f.sql("SET GLOBAL wait_timeout = 1"), f.sql("SET GLOBAL wait_timeout = 28800")},
		{"another table of that name", f.sql("USE faults; ALTER TABLE users MODIFY home TEXT NOT NULL, ADD COLUMN quota INT FIRST"),
			f.sql("USE faults; ALTER TABLE users MODIFY home VARCHAR(300) NOT NULL, DROP COLUMN quota")},
		{"FLUSH TABLES", f.sql("FLUSH TABLES; FLUSH PRIVILEGES"), f.sql("FLUSH TABLES")},
		{"killed connections", f.killAll, f.killAll},
	} {
		must(t, tt.begin())
		f.works(tt.name)
		if tt.name == "wait_timeout" {
			must(t, f.killAll()) // those from before have the old timeout
			for range 3 {
				f.works("before the timeout")
				f.waitClosed()
				f.works("after the timeout")
			}
		}
		must(t, tt.end())
		f.works("after " + tt.name)
	}
}

// killAll kills all connections of lookupd.
func (f *faulty) killAll() error {
	ids, err := f.db.Query("SELECT id FROM information_schema.processlist WHERE user = 'faults'")
	for _, id := range ids {
		f.db.Exec("KILL " + id) // it may have ended meanwhile
	}
	return err
}

// waitClosed waits until the server has closed all connections of lookupd.
func (f *faulty) waitClosed() {
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		n, err := f.db.Query("SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'faults'")
		must(f.t, err)
		if n[0] == "0" {
			return
		}
		if time.Now().After(end) {
			f.t.Fatalf("%s connections are still open", n[0])
		}
	}
}

// tooManyConnections: others have taken all connections of the server.
func tooManyConnections(f *faulty) {
	var others []net.Conn
	take := func() error {
		if err := errors.Join(f.db.Exec("SET GLOBAL max_connections = 10; SET GLOBAL connect_timeout = 100"), f.killAll()); err != nil {
			return err
		}
		for range 40 {
			c, err := net.Dial("tcp", f.db.Addr())
			if err != nil {
				return err
			}
			others = append(others, c)
			// lookupd's eight connections come back sooner or later: they lose theirs again.
			if len(others)%10 == 0 {
				if err := f.proxy.Set(faultproxy.Refuse()); err != nil {
					return err
				}
				if err := f.proxy.Set(faultproxy.Pass()); err != nil {
					return err
				}
			}
		}
		return nil
	}
	give := func() error {
		for _, c := range others {
			c.Close()
		}
		others = nil
		return nil
	}
	f.during("max_connections", take, give)
	must(f.t, f.db.Exec("SET GLOBAL max_connections = 200; SET GLOBAL connect_timeout = 10"))
}
