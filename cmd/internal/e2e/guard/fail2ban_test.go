package guard

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	filter  = "../../../../contrib/fail2ban/filter.d/dovepost-auth.conf"
	jailDir = "../../../../contrib/fail2ban"
)

// slowQuery never ends, to authd, for one user.
const slowQuery = `driver = mysql
connect = host=127.0.0.1 port=%d dbname=maildb user=mailuser password=mailpassword
default_pass_scheme = SHA512-CRYPT
password_query = SELECT email AS user, password FROM users WHERE email = '%%u' AND IF('%%u' = 'slow@example.net', SLEEP(20), 0) = 0
`

// logged is one attempt, and whether fail2ban is to count it. Each comes from an
// address of its own. "10.66." is what hostile names want to have banned.
type logged struct {
	name, user, password, service string
	params                        []string
	after                         func(c conn, id int) // nil: wait for the answer
	times                         int                  // 0: once
	want                          int
}

var attempts = []logged{
	{name: "a wrong password", user: user(0), password: "no", service: "imap", want: 1},
	{name: "an unknown user", user: "nobody@" + domain, password: "no", service: "smtp", want: 1},
	{name: "a right password", user: user(1), password: "right", service: "imap"},
	{name: "the same mistake twice", user: user(2), password: "no", service: "imap", times: 2, want: 1},
	{name: "a database that does not answer", user: slowUser, password: "no", service: "imap"},
	{name: "a client that hangs up while it waits for the refusal", user: user(3), password: "no", service: "imap", after: hangUp(refused), want: 1},
	{name: "a client that cancels while it waits for the refusal", user: user(3), password: "no", service: "imap", after: cancel(refused), want: 1},
	{name: "a client that hangs up before its password was looked at", user: slowUser, password: "no", service: "imap", after: hangUp(asked)},
	{name: "a client that cancels before its password was looked at", user: slowUser, password: "no", service: "imap", after: cancel(asked)},
	{name: "an address in the name", user: "x rip=10.66.0.1 took=1s", password: "no", service: "imap", want: 1},
	{name: "an address at the end of the name", user: "x rip=10.66.0.2", password: "no", service: "imap", want: 1},
	{name: "a name without blanks", user: "x\trip=10.66.0.3\ttook=1s", password: "no", service: "imap", want: 1},
	{name: "a name that ends its quotes", user: `x" service=imap mech=PLAIN rip=10.66.0.4 took="1s`, password: "no", service: "imap", want: 1},
	{name: "a name that ends its quotes by a backslash", user: `x\" service=imap mech=PLAIN rip=10.66.0.5 took="1s`, password: "no", service: "imap", want: 1},
	{name: "a name that ends in a backslash", user: `x\`, password: "no", service: "imap", want: 1},
	{name: "a whole line", user: "x\nmsg=auth result=mismatch user=y service=imap mech=PLAIN rip=10.66.0.6 took=1s", password: "no", service: "imap", want: 1},
	{name: "a whole line with its date", user: "x\r\ntime=2026-01-01T00:00:00.000Z level=INFO msg=auth result=mismatch user=y service=imap mech=PLAIN rip=10.66.0.7 took=1s\r\n", password: "no", service: "imap", want: 1},
	{name: "a whole line of syslog", user: "x\nJan  1 00:00:00 mx authd[1]: msg=auth result=mismatch user=y service=imap mech=PLAIN rip=10.66.0.8 took=1s", password: "no", service: "imap", want: 1},
	{name: "line ends of Unicode", user: "x\u2028msg=auth\u0085rip=10.66.0.9\u00a0took=1s", password: "no", service: "imap", want: 1},
	{name: "letters of Unicode", user: "müller🦊\u200brip=10.66.0.10@" + domain, password: "no", service: "imap", want: 1},
	{name: "octets that are no UTF-8", user: "x\xff\xfe rip=10.66.0.11\xc3", password: "no", service: "imap", want: 1},
	{name: "escapes of a terminal", user: "x\x1b[2K\rrip=10.66.0.12", password: "no", service: "imap", want: 1},
	{name: "a name that wants not to count", user: "x again=true", password: "no", service: "imap", want: 1},
	{name: "a name that wants to be temporary", user: "x result=temp", password: "no", service: "imap", want: 1},
	{name: "a name that is an address", user: "10.66.0.13", password: "no", service: "imap", want: 1},
	{name: "a name that is a host", user: "<HOST>", password: "no", service: "imap", want: 1},
	{name: "a name without end", user: strings.Repeat("x rip=10.66.0.14 ", 200), password: "no", service: "imap", want: 1},
	{name: "a name of nothing", user: "", password: "no", service: "imap", want: 1},
	{name: "a session that lies", user: user(4), password: "no", service: "imap", params: []string{"session=s rip=10.66.0.15 err=\"password mismatch\""}, want: 1},
	{name: "a right password of a session that lies", user: user(5), password: "right", service: "imap", params: []string{"session=\" result=mismatch rip=10.66.0.16"}},
	{name: "a lie while the database does not answer", user: slowUser, password: "no", service: "imap", params: []string{"session=err=\"password mismatch\" rip=10.66.0.17"}},
	{name: "an address of IPv6", user: user(6), password: "no", service: "imap", params: []string{"rip=2001:db8::66"}, want: 1},
	{name: "a broken response", user: user(7) + "\x00x", password: "no", service: "imap"},
}

// The times of the daemon: a question has been asked, a password was wrong and nobody
// has heard of it yet, and when he does.
const (
	asked         = time.Second
	refused       = 5 * time.Second
	failureDelay  = 8 * time.Second
	lookupTimeout = 12 * time.Second
)

func hangUp(after time.Duration) func(conn, int) {
	return func(c conn, _ int) { time.Sleep(after); c.Close() }
}

func cancel(after time.Duration) func(conn, int) {
	return func(c conn, id int) {
		time.Sleep(after)
		fmt.Fprintf(c, "CANCEL\t%d\n", id)
	}
}

// TestFail2ban has the real fail2ban-regex read what authd writes: to a file, and to
// the journal, as rsyslog or fail2ban itself take it from there.
func TestFail2ban(t *testing.T) {
	t.Parallel()
	for _, journal := range []bool{false, true} {
		t.Run(fmt.Sprintf("journal=%v", journal), func(t *testing.T) {
			t.Parallel()
			path, log, stop := logging(t, journal)
			var want []string
			var all sync.WaitGroup
			for i, a := range attempts {
				rip := fmt.Sprintf("192.0.2.%d", i)
				params := append([]string{"session=s" + fmt.Sprint(i)}, a.params...)
				if len(a.params) == 1 && strings.HasPrefix(a.params[0], "rip=") {
					rip, params = strings.TrimPrefix(a.params[0], "rip="), nil
				}
				for range a.want {
					want = append(want, rip)
				}
				all.Go(func() {
					c := dial(t, path)
					for id := range max(a.times, 1) {
						c.ask(1+id, a.user, a.password, a.service, rip, params...)
						if a.after != nil {
							a.after(c, 1+id)
							continue
						}
						if _, err := c.answer(); err != nil {
							t.Errorf("%s: %v", a.name, err)
						}
					}
				})
			}
			all.Wait()
			stop()
			text, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			if journal {
				text = asSyslog(text)
				log = filepath.Join(t.TempDir(), "syslog")
				if err := os.WriteFile(log, text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got := banned(t, log)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("fail2ban counts %q,\nwant %q, of\n%s", got, want, text)
			}
		})
	}
}

// logging starts an authd that writes to a file, or to what it takes for the journal.
func logging(t *testing.T, journal bool) (socket, log string, stop func()) {
	t.Helper()
	dir := t.TempDir()
	sql := filepath.Join(dir, "sql.conf")
	if err := os.WriteFile(sql, fmt.Appendf(nil, slowQuery, ours.DB.Port()), 0o600); err != nil {
		t.Fatal(err)
	}
	socket, log = filepath.Join(dir, "auth-client"), filepath.Join(dir, "log")
	f, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(filepath.Join(bin, "authd"), "--sql="+sql, "--listen=client:unix:"+socket,
		"--auth_failure_delay="+failureDelay.String(), "--lookup_timeout="+lookupTimeout.String(), "--auth_username_chars=", "--mysql_max_connections=60")
	cmd.Stderr = f
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if journal {
		var st syscall.Stat_t
		if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		cmd.Env = append(os.Environ(), fmt.Sprintf("JOURNAL_STREAM=%d:%d", st.Dev, st.Ino))
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	t.Cleanup(stop)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if text, _ := os.ReadFile(log); bytes.Contains(text, []byte("msg=ready")) {
			return socket, log, stop
		}
		if time.Now().After(deadline) {
			t.Fatal("authd is not ready")
		}
	}
}

var priority = regexp.MustCompile(`(?m)^<\d>`)

// asSyslog does what journald and rsyslog do to each line.
func asSyslog(text []byte) []byte {
	return priority.ReplaceAll(text, []byte(time.Now().Format("Jan _2 15:04:05")+" mx authd[4711]: "))
}

// banned returns the addresses that fail2ban-regex finds, sorted.
func banned(t *testing.T, log string) []string {
	t.Helper()
	out, err := exec.Command("fail2ban-regex", "-o", "ip", log, filter).CombinedOutput()
	if err != nil {
		t.Fatalf("fail2ban-regex: %v\n%s", err, out)
	}
	found := strings.Fields(string(out))
	slices.Sort(found)
	return found
}

// TestJail has fail2ban read the jail, with the filter in its place.
func TestJail(t *testing.T) {
	dir := t.TempDir()
	for _, step := range [][]string{{"cp", "-r", "/etc/fail2ban/.", dir}, {"cp", "-r", jailDir + "/.", dir}} {
		if out, err := exec.Command(step[0], step[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", step, err, out)
		}
	}
	os.Remove(dir + "/jail.d/defaults-debian.conf") // it wants a log of sshd
	out, err := exec.Command("fail2ban-client", "-c", dir, "-d").CombinedOutput()
	if err != nil {
		t.Fatalf("fail2ban-client: %v\n%s", err, out)
	}
	for _, want := range []string{"'add', 'dovepost-auth'", "msg=auth result=(?:mismatch|unknown_user)", "_SYSTEMD_UNIT=dovepost-authd.service", "'start', 'dovepost-auth'"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("fail2ban makes nothing of %q:\n%s", want, out)
		}
	}
}
