package policy

import (
	"bufio"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
)

// postfix is a private Postfix that accepts mail for example.com and throws it
// away, after asking policyd at every stage.
type postfix struct {
	dir  string
	addr string
}

func (p *postfix) spool() string { return filepath.Join(p.dir, "spool") }

const mainCF = `compatibility_level = 3.6
queue_directory = %[1]s/spool
data_directory = %[1]s/data
config_directory = %[1]s/etc
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
shlib_directory = /usr/lib/postfix
meta_directory = /etc/postfix
mail_owner = postfix
setgid_group = postdrop
maillog_file = %[1]s/mail.log
maillog_file_prefixes = %[1]s
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mail.example.com
mydestination = example.com
alias_maps =
alias_database =
local_recipient_maps =
local_transport = discard:
mynetworks = 127.0.0.2/32
disable_dns_lookups = yes
smtp_host_lookup = native
smtpd_peername_lookup = no
smtpd_authorized_xclient_hosts = 127.0.0.0/8
smtpd_relay_restrictions = reject_unauth_destination
p = check_policy_service { unix:dovepost/policy, timeout=3s, default_action=DUNNO }
smtpd_recipient_restrictions = $p, check_recipient_access inline:{ gone@example.com=REJECT }
smtpd_data_restrictions = $p
smtpd_end_of_data_restrictions = $p
`

const masterCF = `%s inet n - y - 1 smtpd
cleanup unix n - y - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - y - - trivial-rewrite
bounce unix - - y - 0 bounce
defer unix - - y - 0 bounce
trace unix - - y - 0 bounce
error unix - - y - - error
retry unix - - y - - error
discard unix - - y - - discard
anvil unix - - y - 1 anvil
postlog unix-dgram n - n - 1 postlogd
`

// freeAddr returns where a server can listen that is started later.
func freeAddr(t *testing.T) string {
	t.Helper()
	port, err := stack.FreePort()
	must(t, err)
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// startPostfix starts one smtpd process at most, so that it is known whose
// connections policyd sees.
func startPostfix(t *testing.T) *postfix {
	t.Helper()
	dir, err := os.MkdirTemp("", "policy-e2e-") // t.TempDir is closed to user postfix
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	for _, sub := range []string{"etc", "spool", "data", "spool/dovepost"} {
		must(t, os.MkdirAll(filepath.Join(dir, sub), 0o755))
	}
	must(t, os.Chown(filepath.Join(dir, "data"), id(t, "postfix"), -1))
	p := &postfix{dir: dir, addr: freeAddr(t)}
	must(t, os.WriteFile(filepath.Join(dir, "etc/main.cf"), fmt.Appendf(nil, mainCF, dir), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "etc/master.cf"), fmt.Appendf(nil, masterCF, p.addr), 0o644))
	run(t, "/usr/sbin/postfix", "-c", filepath.Join(dir, "etc"), "check")

	master := exec.Command("/usr/lib/postfix/sbin/master", "-s", "-c", filepath.Join(dir, "etc"))
	master.Dir = p.spool()
	master.Env = append(os.Environ(), "MAIL_LOGTAG=postfix")
	master.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	must(t, master.Start())
	t.Cleanup(func() {
		syscall.Kill(-master.Process.Pid, syscall.SIGTERM)
		master.Wait()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "mail.log"))
			t.Logf("Postfix's log:\n%s", log)
		}
	})
	waitFor(t, func() bool {
		c, err := net.DialTimeout("tcp", p.addr, time.Second)
		if err != nil {
			return false
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(2 * time.Second))
		line, err := bufio.NewReader(c).ReadString('\n')
		return err == nil && strings.HasPrefix(line, "220 ")
	})
	return p
}

// append adds text to a file of Postfix's, to be reloaded.
func (p *postfix) append(t *testing.T, file, text string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(p.dir, "etc", file), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString(text)
	must(t, err)
	must(t, f.Close())
}

// reload has Postfix read its files, and waits until all of addrs take connections.
func (p *postfix) reload(t *testing.T, addrs ...string) {
	t.Helper()
	run(t, "/usr/sbin/postfix", "-c", filepath.Join(p.dir, "etc"), "reload")
	for _, addr := range addrs {
		waitFor(t, func() bool {
			c, err := net.Dial("tcp", addr)
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	}
}

// session is one SMTP session.
type session struct {
	t *testing.T
	*textproto.Conn
}

// dial opens a session, the only one at a time, that, through XCLIENT, comes from address and, if login is
// not empty, has logged in.
func (p *postfix) dial(t *testing.T, address, login string) *session {
	t.Helper()
	nc, err := net.Dial("tcp", p.addr)
	must(t, err)
	nc.SetDeadline(time.Now().Add(60 * time.Second))
	s := &session{t, textproto.NewConn(nc)}
	t.Cleanup(func() { s.Close() })
	s.want("220", s.read())
	s.want("250", s.ask("EHLO client.test"))
	xclient := "XCLIENT NAME=client.test ADDR=" + address
	if login != "" {
		xclient += " LOGIN=" + login
	}
	s.want("220", s.ask(xclient))
	s.want("250", s.ask("EHLO client.test"))
	return s
}

func (s *session) read() string {
	s.t.Helper()
	code, text, err := s.ReadResponse(0)
	if code == 0 {
		s.t.Fatalf("no reply: %v", err)
	}
	return strconv.Itoa(code) + " " + text
}

func (s *session) ask(line string) string {
	s.t.Helper()
	must(s.t, s.PrintfLine("%s", line))
	return s.read()
}

// want fails the test unless reply begins with code.
func (s *session) want(code, reply string) {
	s.t.Helper()
	if !strings.HasPrefix(reply, code) {
		s.t.Fatalf("got %q, want %s", reply, code)
	}
}

// rcpt begins a transaction and returns the answer to RCPT.
func (s *session) rcpt(sender, recipient string) string {
	s.t.Helper()
	s.want("250", s.ask("RSET"))
	s.want("250", s.ask("MAIL FROM:<"+sender+">"))
	return s.ask("RCPT TO:<" + recipient + ">")
}

// send sends a whole message and returns the last answer.
func (s *session) send(sender, recipient string) string {
	s.t.Helper()
	if reply := s.rcpt(sender, recipient); reply[0] != '2' {
		return reply
	}
	if reply := s.ask("DATA"); reply[0] != '3' {
		return reply
	}
	must(s.t, s.PrintfLine("Subject: test\n\ntest\n."))
	return s.read()
}

func (s *session) quit() {
	s.t.Helper()
	s.want("221", s.ask("QUIT"))
	must(s.t, s.Close())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

func id(t *testing.T, name string) int {
	t.Helper()
	u, err := user.Lookup(name)
	must(t, err)
	n, err := strconv.Atoi(u.Uid)
	must(t, err)
	return n
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not after a minute")
		}
	}
}
