package auth

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const loadQueries = `default_pass_scheme = SHA512-CRYPT
password_query = SELECT name AS user, password FROM odd WHERE name = '%u'
user_query = SELECT home, uid, gid FROM odd WHERE name = '%u'
iterate_query = SELECT name AS user FROM many
`

// greet connects and says hello; minor 2 is Dovecot's.
func greet(t testing.TB, path, hello string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := dialUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(5 * time.Minute))
	if _, err := io.WriteString(c, hello); err != nil {
		t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}

// answer reads to the first line that is no part of a handshake.
func answer(r *bufio.Reader) (string, error) {
	for {
		line, err := r.ReadString('\n')
		word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if err != nil || !strings.Contains(" VERSION MECH SPID CUID COOKIE DONE ", " "+word+" ") || strings.HasPrefix(line, "DONE\t") {
			return strings.TrimSpace(line), err
		}
	}
}

func plain(id int, user, password, service string) string {
	resp := base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
	return fmt.Sprintf("AUTH\t%d\tPLAIN\tservice=%s\tresp=%s\n", id, service, resp)
}

// rss returns the resident memory in KiB.
func (s *side) rss(t testing.TB) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.proc.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestManyConnections: five thousand clients that say nothing take little memory,
// and nobody's place; neither does one with ten thousand requests at a time.
func TestManyConnections(t *testing.T) {
	insert(t, "load", row{"password": clear})
	t.Cleanup(func() { db.Exec("DELETE FROM mail.odd") })
	o := ours(t, head()+loadQueries, nil)
	for i := range 5000 {
		greet(t, o.client, fmt.Sprintf("VERSION\t1\t2\nCPID\t%d\n", i+1))
	}
	_, r := greet(t, o.client, "VERSION\t1\t2\nCPID\t9999\n"+plain(1, "load", "secret", "imap"))
	if line, err := answer(r); !strings.HasPrefix(line, "OK\t1\t") {
		t.Errorf("a login beside 5000 clients: %s, %v", line, err)
	}
	idle := o.rss(t)
	t.Logf("%d KiB with 5000 idle clients", idle)
	if idle > 120<<10 {
		t.Errorf("%d KiB with 5000 idle clients", idle)
	}

	var many strings.Builder
	for i := range 10000 {
		many.WriteString(plain(i+1, "load", "secret", "imap"))
	}
	c, r := greet(t, o.client, "VERSION\t1\t2\nCPID\t7777\n")
	go io.WriteString(c, many.String())
	ok, later := 0, 0
	for range 10000 {
		line, err := answer(r)
		switch {
		case err != nil:
			t.Fatal(err)
		case strings.HasPrefix(line, "OK\t"):
			ok++
		case strings.Contains(line, "code=temp_fail"):
			later++
		default:
			t.Fatalf("a right password: %s", line)
		}
	}
	memory := o.rss(t)
	t.Logf("10000 requests at a time: %d ok, %d put off, %d KiB", ok, later, memory)
	if memory > 400<<10 {
		t.Errorf("%d KiB", memory)
	}
}

// TestSlowDatabase: five hundred logins wait for a table that is locked. All are
// told "later" before anybody's patience ends: Dovecot in words, Postfix, which
// waits for 10 s, by the end of the connection.
func TestSlowDatabase(t *testing.T) {
	insert(t, "load", row{"password": clear})
	t.Cleanup(func() { db.Exec("DELETE FROM mail.odd") })
	o := ours(t, head()+loadQueries, nil)
	locked := make(chan error, 1)
	go func() { locked <- db.Exec("LOCK TABLES mail.odd WRITE; SELECT SLEEP(1000) AS holding_the_lock;") }()
	var holder []string
	for deadline := time.Now().Add(time.Minute); len(holder) != 1; time.Sleep(10 * time.Millisecond) { // whoever comes earlier logs in
		var err error
		if holder, err = db.Query("SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%holding_the_lock'"); err != nil || time.Now().After(deadline) {
			t.Fatalf("%q hold the lock, %v", holder, err)
		}
	}
	var wait sync.WaitGroup
	for i := range 500 {
		service := []string{"imap", "smtp"}[i%2]
		_, r := greet(t, o.client, fmt.Sprintf("VERSION\t1\t2\nCPID\t%d\n%s", i+1, plain(1, "load", "secret", service)))
		wait.Go(func() {
			start := time.Now()
			line, err := answer(r)
			if took := time.Since(start); took > 9900*time.Millisecond {
				t.Errorf("%s: an answer after %v", service, took)
			}
			if service == "smtp" && (err != io.EOF || line != "") {
				t.Errorf("Postfix hears %q, %v; want the end of the connection", line, err)
			}
			if service == "imap" && !strings.Contains(line, "code=temp_fail") {
				t.Errorf("Dovecot hears %q, %v; want code=temp_fail", line, err)
			}
		})
	}
	wait.Wait()
	if err := db.Exec("KILL " + holder[0]); err != nil {
		t.Fatal(err)
	}
	<-locked // an error, since it was killed
	_, r := greet(t, o.client, "VERSION\t1\t2\nCPID\t9999\n"+plain(1, "load", "secret", "imap"))
	if line, err := answer(r); !strings.HasPrefix(line, "OK\t1\t") {
		t.Errorf("afterwards: %s, %v", line, err)
	}
}

// TestSlowLists: doveadm -A takes the next name when it is done with the one
// before. Neither do eight of them keep the database's connections, nor does the
// server's patience with a slow reader, here 1 s, end a list.
func TestSlowLists(t *testing.T) {
	const users = 100_000
	insert(t, "load", row{"password": clear})
	const digit = "(SELECT 0 AS n UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9) AS "
	if err := db.Exec("INSERT INTO mail.many SELECT CONCAT('user', a.n, b.n, c.n, d.n, e.n, '@a-rather-long-domain-name.example.com') FROM " +
		digit + "a, " + digit + "b, " + digit + "c, " + digit + "d, " + digit + "e; SET GLOBAL net_write_timeout = 1;"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Exec("DELETE FROM mail.odd; DELETE FROM mail.many; SET GLOBAL net_write_timeout = 60;") })
	o := ours(t, head()+loadQueries, nil)
	var lists []*bufio.Reader
	for range 8 {
		_, r := greet(t, o.userdb, "VERSION\t1\t1\nLIST\t1\tservice=doveadm\n")
		if line, err := answer(r); !strings.HasPrefix(line, "LIST\t1\tuser") {
			t.Fatalf("%s, %v", line, err)
		}
		lists = append(lists, r)
	}
	_, r := greet(t, o.userdb, "VERSION\t1\t1\nUSER\t1\tload\tservice=lmtp\n")
	if line, err := answer(r); !strings.HasPrefix(line, "USER\t1\tload\t") {
		t.Errorf("a lookup meanwhile: %s, %v", line, err)
	}
	time.Sleep(3 * time.Second) // longer than the server would wait
	for _, r := range lists {
		n := 1
		line, err := answer(r)
		for ; err == nil && strings.HasPrefix(line, "LIST\t"); n++ {
			line, err = answer(r)
		}
		if err != nil || strings.HasSuffix(line, "fail") || n != users {
			t.Errorf("%d users, then %q, %v; want %d", n, line, err, users)
		}
	}
	t.Logf("%d KiB after eight lists of %d users", o.rss(t), users)
}
