package policy

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dovepost/cmd/internal/stack"
)

// sender is a second Postfix, that of somebody else: it sends to the first one, and tries
// again after two seconds.
type sender struct {
	t *testing.T
	*stack.Postfix
	dir string
}

// fromAddress is where the mail of a sender comes from, as far as smtpd knows.
const fromAddress = "192.0.2.77"

const senderCF = `myhostname = mail.far.example
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:%s
minimal_backoff_time = 2s
maximal_backoff_time = 3s
queue_run_delay = 2s
`

// startSender starts a Postfix that sends its mail to smtpd of p, which holds what it accepts.
// smtpd learns the client's address as from a load balancer: on this machine all would come
// from loopback.
func startSender(t *testing.T, p *postfix) *sender {
	t.Helper()
	behind := freeAddr(t)
	p.append(t, "master.cf", behind+" inet n - y - - smtpd -o smtpd_upstream_proxy_protocol=haproxy\n")
	p.append(t, "main.cf", "header_checks = static:HOLD\n")
	p.reload(t, behind)
	balancer, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { balancer.Close() })
	go balance(balancer, behind)

	s := &sender{t: t}
	s.dir, err = os.MkdirTemp("", "policy-sender-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(s.dir) })
	must(t, os.Chmod(s.dir, 0o755))
	_, port, err := net.SplitHostPort(balancer.Addr().String())
	must(t, err)
	s.Postfix, err = stack.StartPostfix(s.dir, fmt.Sprintf(senderCF, port), nil)
	must(t, err)
	t.Cleanup(func() { s.Stop() })
	return s
}

// balance passes connections on, with a word about where they come from.
func balance(from net.Listener, to string) {
	for {
		c, err := from.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			out, err := net.Dial("tcp", to)
			if err != nil {
				return
			}
			defer out.Close()
			fmt.Fprintf(out, "PROXY TCP4 %s 127.0.0.1 40000 25\r\n", fromAddress)
			go func() {
				io.Copy(out, c)
				out.(*net.TCPConn).CloseWrite()
			}()
			io.Copy(c, out)
		}()
	}
}

// submit has the sender take a message.
func (s *sender) submit(from, to, text string) {
	s.t.Helper()
	cmd := exec.Command("/usr/sbin/sendmail", "-C", s.ConfigDir(), "-i", "-f", from, "--", to)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("sendmail: %v\n%s", err, out)
	}
}

func (s *sender) log() string {
	text, err := os.ReadFile(s.MailLog())
	must(s.t, err)
	return string(text)
}

// cat returns a message in the queue as it would be delivered.
func (p *postfix) cat(t *testing.T, id string) string {
	t.Helper()
	out, err := exec.Command("/usr/sbin/postcat", "-c", filepath.Join(p.dir, "etc"), "-hb", "-q", id).CombinedOutput()
	if err != nil {
		t.Fatalf("postcat: %v\n%s", err, out)
	}
	return string(out)
}
