package guard

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
)

// login is one attempt, in some way, from some address.
type login func(t testing.TB, s *stack.Stack, user, password, from string) (verdict string, took time.Duration)

// auth is a login of the protocol itself.
func auth(params ...string) login {
	return func(t testing.TB, s *stack.Stack, user, password, from string) (string, time.Duration) {
		return try(t, filepath.Join(s.DovecotRun(), "auth-client"), user, password, "imap", from, params...)
	}
}

// dialFrom connects from an address of loopback, and reads the greeting.
func dialFrom(t testing.TB, from, addr string) (net.Conn, *bufio.Reader) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 10 * time.Second}
	c, err := d.DialContext(context.Background(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(time.Minute))
	r := bufio.NewReader(c)
	if _, err := r.ReadString('\n'); err != nil {
		t.Error(err)
	}
	return c, r
}

// say sends a command and returns the first line of the answer that begins with one of the prefixes.
func say(t testing.TB, c net.Conn, r *bufio.Reader, command string, prefixes ...string) string {
	io.WriteString(c, command+"\r\n")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return err.Error()
		}
		for _, p := range prefixes {
			if strings.HasPrefix(line, p) {
				return strings.TrimSpace(line)
			}
		}
	}
}

func verdict(line, ok, no string) string {
	switch {
	case strings.HasPrefix(line, ok):
		return "ok"
	case strings.HasPrefix(line, no):
		return "no"
	}
	return line
}

func imap(t testing.TB, s *stack.Stack, user, password, from string) (string, time.Duration) {
	c, r := dialFrom(t, from, s.IMAPAddr)
	defer c.Close()
	start := time.Now()
	line := say(t, c, r, fmt.Sprintf("a LOGIN %q %q", user, password), "a ")
	return verdict(line, "a OK ", "a NO [AUTHENTICATIONFAILED]"), time.Since(start)
}

func pop3(t testing.TB, s *stack.Stack, user, password, from string) (string, time.Duration) {
	c, r := dialFrom(t, from, s.POP3Addr)
	defer c.Close()
	say(t, c, r, "USER "+user, "+OK", "-ERR")
	start := time.Now()
	line := say(t, c, r, "PASS "+password, "+OK", "-ERR")
	return verdict(line, "+OK", "-ERR [AUTH]"), time.Since(start)
}

func smtp(t testing.TB, s *stack.Stack, user, password, from string) (string, time.Duration) {
	c, r := dialFrom(t, from, s.SMTPAddr)
	defer c.Close()
	say(t, c, r, "EHLO client.example", "250 ")
	start := time.Now()
	line := say(t, c, r, "AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+password)), "2", "4", "5")
	return verdict(line, "235 ", "535 "), time.Since(start)
}

// TestSchedule tries the same on Dovecot with its own auth and anvil, and on authd:
// same verdicts, after the same waits. (Not so without an address: to Dovecot all who
// have none are one, and wait for each other.) All attempts of one case are in a row, the
// cases beside each other.
func TestSchedule(t *testing.T) {
	t.Parallel()
	const early, late = 1600 * time.Millisecond, 3 * time.Second // Dovecot counts in whole seconds; the steps are of 4 s
	type step struct {
		user int
		pass string
		from string // empty: the case's own
		want time.Duration
	}
	const s = time.Second
	for i, tt := range []struct {
		name  string
		login login
		from  string
		steps []step
	}{
		{"wrong passwords in a row", auth(), "192.0.2.1", []step{{0, "1", "", 0}, {0, "2", "", 4 * s}, {0, "3", "", 8 * s}, {0, "4", "", 15 * s}}},
		{"one wrong password again and again", auth(), "192.0.2.2", []step{{0, "1", "", 0}, {0, "1", "", 4 * s}, {0, "1", "", 4 * s}, {0, "1", "", 4 * s}, {0, "1", "", 0}}},
		{"a right password", auth(), "192.0.2.3", []step{{0, "1", "", 0}, {0, "2", "", 4 * s}, {0, "right", "", 8 * s}, {0, "3", "", 0}, {0, "3", "", 4 * s}}},
		{"several users, some unknown", auth(), "192.0.2.4", []step{{1, "1", "", 0}, {2, "1", "", 4 * s}, {9999, "1", "", 8 * s}}},
		{"one /48, and another", auth(), "2001:db8:1::1", []step{{0, "1", "", 0}, {0, "2", "2001:db8:1:ffff::1", 4 * s}, {0, "3", "2001:db8:2::1", 0}}},
		{"a proxy that vouches for the client", auth("no-penalty"), "192.0.2.5", []step{{0, "1", "", 0}, {0, "2", "", 0}, {0, "3", "", 0}}},
		{"a proxy's address beside the client's", auth("real_rip=192.0.2.7"), "192.0.2.6", []step{{0, "1", "", 0}, {0, "2", "", 4 * s}, {0, "3", "192.0.2.8", 0}}},
		{"IMAP", imap, "127.0.0.21", []step{{0, "1", "", 0}, {0, "2", "", 4 * s}, {0, "right", "", 8 * s}, {0, "right", "", 0}}},
		{"POP3", pop3, "127.0.0.22", []step{{0, "1", "", 0}, {0, "2", "", 4 * s}, {0, "right", "", 8 * s}, {0, "right", "", 0}}},
		{"submission", smtp, "127.0.0.23", []step{{0, "1", "", 0}, {0, "2", "", 4 * s}, {0, "right", "", 0}}},
	} {
		t.Run("it handles "+tt.name, func(t *testing.T) {
			t.Parallel()
			var both sync.WaitGroup
			defer both.Wait()
			for side, at := range map[string]*stack.Stack{"native": native, "authd": ours} {
				both.Go(func() {
					for n, step := range tt.steps {
						from, want := step.from, "no"
						if from == "" {
							from = tt.from
						}
						if step.pass == "right" {
							want = "ok"
						} else {
							step.want += s // auth_failure_delay
						}
						if tt.name == "submission" && n == 2 { // 8 s, but for Postfix
							step.want = map[string]time.Duration{"native": 8 * s, "authd": 4500 * time.Millisecond}[side]
						}
						got, took := tt.login(t, at, user(step.user), step.pass, from)
						if got != want || took < step.want-early || took > step.want+late {
							t.Errorf("%s, try %d of case %d: %s after %v, want %s after %v", side, n, i, got, took.Round(10*time.Millisecond), want, step.want)
						}
					}
				})
			}
		})
	}
}

// TestSubmission: however often somebody has failed, Postfix has a 535 within its 10 s,
// and the right password a 235. (With Dovecot's own penalty it says 454 from the third
// failure on, to the right password as well.)
func TestSubmission(t *testing.T) {
	t.Parallel()
	for n := range 5 {
		if got, took := smtp(t, ours, user(40), fmt.Sprint(n), "127.0.0.31"); got != "no" || took > 9800*time.Millisecond {
			t.Errorf("try %d: %s after %v", n, got, took)
		}
	}
	if got, took := smtp(t, ours, user(40), "right", "127.0.0.31"); got != "ok" || took > 9800*time.Millisecond {
		t.Errorf("the right password: %s after %v", got, took)
	}
}
