// Package policy tests policyd with a real Postfix smtpd.
package policy

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
)

const list = `
client     192.0.2.0/24         REJECT no mail from this network
sender     bad.example          REJECT no mail from this domain
sender     later.example        450 4.7.1 come back later
recipient  full@example.com     452 4.2.2 Mailbox full
login      mallory              REJECT account is closed
sender     held.example         HOLD suspect
`

type policyd struct {
	t       *testing.T
	binary  string
	postfix *postfix
	access  string
	stderr  *os.File
	*exec.Cmd
}

func (p *policyd) socket() string  { return filepath.Join(p.postfix.spool(), "dovepost/policy") }
func (p *policyd) metrics() string { return filepath.Join(p.postfix.dir, "metrics") }

// setUp starts policyd, with the list alone, and Postfix.
func setUp(t *testing.T) *policyd {
	t.Helper()
	p := prepare(t)
	p.access = filepath.Join(p.postfix.dir, "access")
	must(t, os.WriteFile(p.access, []byte(list), 0o644))
	p.start("--access", p.access)
	return p
}

// prepare makes a policyd that is to be started, and starts Postfix.
func prepare(t *testing.T) *policyd {
	t.Helper()
	p := &policyd{t: t, postfix: startPostfix(t)}
	p.binary = filepath.Join(binaries(), "policyd")
	var err error
	p.stderr, err = os.Create(filepath.Join(p.postfix.dir, "policyd.log"))
	must(t, err)
	t.Cleanup(func() {
		p.stop(syscall.SIGKILL)
		p.stderr.Close()
		if t.Failed() {
			t.Logf("policyd's log:\n%s", p.log())
		}
	})
	return p
}

func (p *policyd) start(args ...string) {
	p.t.Helper()
	p.Cmd = exec.Command(p.binary, append(args, "--listen", "policy:unix:"+p.socket()+",mode=0660,group=postfix", "--listen", "metrics:unix:"+p.metrics())...)
	p.Stderr = p.stderr
	ready := strings.Count(p.log(), "ready")
	must(p.t, p.Start())
	waitFor(p.t, func() bool { return strings.Count(p.log(), "ready") > ready })
}

func (p *policyd) stop(sig syscall.Signal) {
	if p.Cmd != nil {
		p.Process.Signal(sig)
		p.Wait()
		p.Cmd = nil
	}
}

// freeze stops policyd where it is, until it gets SIGCONT.
func (p *policyd) freeze() {
	p.t.Helper()
	must(p.t, stack.Freeze(p.Process.Pid))
}

func (p *policyd) log() string {
	text, _ := os.ReadFile(p.stderr.Name())
	return string(text)
}

// metric returns the line of the metrics page that begins with name.
func (p *policyd) metric(name string) string {
	p.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", p.metrics())
	}}}
	resp, err := client.Get("http://policyd/metrics")
	must(p.t, err)
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	must(p.t, err)
	for line := range strings.Lines(string(page)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func TestAnswersReachTheClient(t *testing.T) {
	p := setUp(t)
	for _, tt := range []struct{ name, address, login, sender, recipient, want string }{
		{"no opinion", "198.51.100.1", "", "a@good.example", "x@example.com", "250 "},
		{"a client's network", "192.0.2.7", "", "a@good.example", "x@example.com", "554 5.7.1 <x@example.com>: Recipient address rejected: no mail from this network"},
		{"a sender", "198.51.100.1", "", "a@bad.example", "x@example.com", "554 5.7.1 <x@example.com>: Recipient address rejected: no mail from this domain"},
		{"a temporary answer", "198.51.100.1", "", "a@later.example", "x@example.com", "450 4.7.1 <x@example.com>: Recipient address rejected: come back later"},
		{"a full mailbox", "198.51.100.1", "", "a@good.example", "full@example.com", "452 4.2.2 <full@example.com>: Recipient address rejected: Mailbox full"},
		{"the null sender", "198.51.100.1", "", "", "x@example.com", "250 "},
		{"a login", "198.51.100.1", "mallory", "a@good.example", "x@example.com", "554 5.7.1 <x@example.com>: Recipient address rejected: account is closed"},
		{"quotes and blanks", "198.51.100.1", "", `"a = b\"c"@good.example`, `"x y"@example.com`, "250 "},
	} {
		s := p.postfix.dial(t, tt.address, tt.login)
		got := s.send(tt.sender, tt.recipient)
		s.quit()
		if !strings.HasPrefix(got, tt.want) {
			t.Errorf("it handles %s: %q, want %q", tt.name, got, tt.want)
		}
	}
	s := p.postfix.dial(t, "198.51.100.1", "")
	s.want("250", s.send("a@held.example", "x@example.com"))
	held, err := filepath.Glob(filepath.Join(p.postfix.spool(), "hold", "*"))
	if err != nil || len(held) != 1 {
		t.Errorf("%d messages on hold (%v), want 1", len(held), err)
	}
}

func TestConnectionsAreKept(t *testing.T) {
	p := setUp(t)
	const messages = 20
	for range messages / 4 {
		s := p.postfix.dial(t, "198.51.100.1", "")
		for range 4 {
			s.want("250", s.send("a@good.example", "x@example.com"))
		}
		s.quit()
	}
	// RCPT, DATA and END-OF-MESSAGE of each, all from the one smtpd process.
	if got := p.metric(`dovepost_requests_total{daemon="policyd",kind="policy",result="dunno"}`); got != "60" {
		t.Errorf("%s requests, want 60", got)
	}
	if got := p.metric(`dovepost_connections_total{daemon="policyd",kind="policy"}`); got != "1" {
		t.Errorf("%s connections, want 1", got)
	}
}

func TestPolicydIsNeverTheReasonThatMailStops(t *testing.T) {
	p := setUp(t)
	s := p.postfix.dial(t, "198.51.100.1", "")
	s.want("250", s.send("a@good.example", "x@example.com"))
	s.want("554", s.send("a@bad.example", "x@example.com"))

	t.Log("killed with a connection open, and away")
	p.stop(syscall.SIGKILL)
	s.want("250", s.send("a@good.example", "x@example.com"))

	t.Log("back again, in the same SMTP session")
	os.Remove(p.socket())
	p.start("--access", p.access)
	s.want("554", s.rcpt("a@bad.example", "x@example.com"))

	t.Log("reloaded: a new list, then a wrong one, which is not taken")
	must(t, os.WriteFile(p.access, []byte("sender good.example REJECT\n"), 0o644))
	p.Process.Signal(syscall.SIGHUP)
	waitFor(t, func() bool { return strings.Contains(p.log(), "reloaded") })
	s.want("554", s.rcpt("a@good.example", "x@example.com"))
	s.want("250", s.rcpt("a@bad.example", "x@example.com"))
	must(t, os.WriteFile(p.access, []byte("sender good.example NONSENSE\n"), 0o644))
	p.Process.Signal(syscall.SIGHUP)
	waitFor(t, func() bool { return strings.Contains(p.log(), "old state stays") })
	s.want("554", s.rcpt("a@good.example", "x@example.com"))

	t.Log("stopped in good order while Postfix keeps its connection")
	started := time.Now() // drain_timeout is 30 s
	p.stop(syscall.SIGTERM)
	if took := time.Since(started); took > 25*time.Second {
		t.Errorf("SIGTERM took %v", took)
	}
	s.want("250", s.send("a@good.example", "x@example.com"))

	t.Log("started without any rule")
	p.start()
	s.want("250", s.send("a@bad.example", "x@example.com"))
	if !strings.Contains(p.log(), "every answer is DUNNO") {
		t.Error("the log does not say that no rule is set")
	}

	t.Log("hanging: Postfix waits for its timeout and goes on")
	p.freeze()
	s.want("250", s.rcpt("a@good.example", "x@example.com"))
	p.Process.Signal(syscall.SIGCONT)
}

func TestAWrongListStopsTheStart(t *testing.T) {
	binary := filepath.Join(binaries(), "policyd")
	access := filepath.Join(t.TempDir(), "access")
	must(t, os.WriteFile(access, []byte("# first\nsender x NONSENSE\n"), 0o644))
	out, err := exec.Command(binary, "--check", "--access", access).CombinedOutput()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 78 || !strings.Contains(string(out), access+": line 2: ") {
		t.Errorf("%v\n%s", err, out)
	}
}
