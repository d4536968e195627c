package guard

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
)

// A wait that is none, on a busy machine: the shortest one is of 4 s.
const atOnce = 3 * time.Second

// expect tries and says what is wrong about the answer.
func expect(t *testing.T, path, what, user, password, service, rip, want string, least, most time.Duration) {
	t.Helper()
	got, took := try(t, path, user, password, service, rip)
	if got != want || took < least || took > most {
		t.Errorf("%s: %s after %v, want %s after %v to %v", what, got, took.Round(10*time.Millisecond), want, least, most)
	}
}

// TestDistributed: five networks have tried one account. Others wait, the right
// password included; whoever has logged in from there before does not; nobody else
// does; and it ends.
func TestDistributed(t *testing.T) {
	t.Parallel()
	const window = 12 * time.Second
	_, path := daemon(t, "--auth_guard_account_networks=5", "--auth_guard_window=12s")
	victim := user(1)
	expect(t, path, "the victim at home, before", victim, "right", "imap", "198.51.100.1", "ok", 0, atOnce)
	for i := range 5 {
		expect(t, path, "an attacker", victim, fmt.Sprint("guess", i), "imap", fmt.Sprintf("203.0.%d.1", i), "no", 0, atOnce)
	}
	var wait sync.WaitGroup
	for _, tt := range []struct {
		what, user, password, service, rip, want string
		least                                    time.Duration
	}{
		{"the sixth attacker", victim, "guess", "imap", "203.0.77.1", "no", 4 * time.Second},
		{"the victim at home", victim, "right", "imap", "198.51.100.1", "ok", 0},
		{"the victim at home, in other letters", strings.ToUpper(victim), "right", "smtp", "198.51.100.1", "ok", 0},
		{"the victim on a journey", victim, "right", "imap", "198.51.100.2", "ok", 4 * time.Second},
		{"the victim on a journey, sending", victim, "right", "smtp", "198.51.100.3", "ok", 4 * time.Second},
		{"somebody else on a journey", user(2), "right", "imap", "198.51.100.4", "ok", 0},
	} {
		wait.Go(func() {
			expect(t, path, tt.what, tt.user, tt.password, tt.service, tt.rip, tt.want, tt.least, tt.least+atOnce)
		})
	}
	wait.Wait()
	time.Sleep(window)
	expect(t, path, "a journey afterwards", victim, "right", "imap", "198.51.100.5", "ok", 0, atOnce)
}

// TestSpray: one network tries many accounts at a time. It is told to come later,
// with nothing said about a password; those who are known there log in; and it ends.
func TestSpray(t *testing.T) {
	t.Parallel()
	const window = 12 * time.Second
	_, path := daemon(t, "--auth_guard_network_accounts=5", "--auth_guard_window=12s")
	const attacker = "203.0.113.9"
	known := user(3)
	expect(t, path, "somebody behind that address, before", known, "right", "imap", attacker, "ok", 0, atOnce)
	c := dial(t, path)
	for i := range 30 {
		name := user(10 + i)
		if i%2 == 0 {
			name = fmt.Sprintf("nobody%d@%s", i, domain)
		}
		c.ask(1+i, name, "spring2024", "imap", attacker)
	}
	no := 0
	for range 30 {
		got, err := c.answer()
		if err != nil || got == "ok" {
			t.Fatal(got, err)
		}
		if got == "no" {
			no++
		}
	}
	if no < 10 {
		t.Errorf("%d of 30 were looked at", no)
	}
	for _, tt := range []struct{ what, user, service, rip, want string }{
		{"that network", user(4), "imap", attacker, "later"},
		{"that network, by Postfix", user(4), "smtp", attacker, "later"},
		{"that network, unknown users", "nobody@" + domain, "imap", attacker, "later"},
		{"whoever is known there", known, "imap", attacker, "ok"},
		{"another network", user(10), "imap", "203.0.113.10", "ok"},
	} {
		expect(t, path, tt.what, tt.user, "right", tt.service, tt.rip, tt.want, 0, atOnce)
	}
	time.Sleep(window)
	expect(t, path, "that network afterwards", user(4), "right", "imap", attacker, "ok", 0, atOnce)
}

// TestStorm: a thousand requests of one network, then of a hundred, whose hashes take
// their time, and a good user in the midst of them. And what a delayed answer takes.
func TestStorm(t *testing.T) {
	// About 20 ms a hash: 1000 take 10 s on two processors.
	const slow = "{SHA512-CRYPT}$6$rounds=100000$saltsaltsalt$"
	var sql strings.Builder
	sql.WriteString("USE maildb;\n")
	for i := range 1000 {
		fmt.Fprintf(&sql, "INSERT INTO users (email, password, quota) VALUES (%s, %s, 0);\n", stack.Quote(fmt.Sprintf("storm%d@%s", i, domain)), stack.Quote(slow+strings.Repeat("x", 86)))
	}
	fmt.Fprintf(&sql, "INSERT INTO users (email, password, quota) SELECT CONCAT('good-', email), password, 0 FROM users WHERE email = %s;\n", stack.Quote(user(5)))
	if err := ours.DB.Exec(sql.String()); err != nil {
		t.Fatal(err)
	}
	d, path := daemon(t, "--auth_guard_network_accounts=0", "--auth_failure_delay=15s")
	for _, networks := range []int{1, 100} {
		for i := range 4 {
			c := dial(t, path)
			go func() {
				for n := i; n < 1000; n += 4 {
					c.ask(1+n, fmt.Sprintf("storm%d@%s", n, domain), "wrong", "imap", fmt.Sprintf("203.%d.%d.1", networks, n%networks))
				}
			}()
		}
		time.Sleep(300 * time.Millisecond) // the storm has begun
		good := user(5)
		rip := fmt.Sprintf("198.51.100.%d", networks)
		worst := time.Duration(0)
		for range 10 {
			// The first is not known there; with one network he need not be.
			if networks > 1 && worst == 0 {
				try(t, path, good, "right", "imap", rip)
			}
			got, took := try(t, path, good, "right", "imap", rip)
			if got != "ok" || took > 4*time.Second { // of the 10 s that whoever comes last waits
				t.Errorf("%d networks: a good user: %s after %v", networks, got, took)
			}
			worst = max(worst, took)
		}
		t.Logf("%d networks, 1000 requests: a good user waits %v at most; %d KiB resident", networks, worst.Round(time.Millisecond), rss(t, d.PID()))
	}
}

func rss(t testing.TB, pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
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
