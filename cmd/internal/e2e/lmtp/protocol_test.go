package lmtp

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
	"dovepost/cmd/internal/stack/mailclient"
)

// inet is how the two are reached over inet, with TLS, and from a trusted address.
type inet struct {
	dir           string // of lmtpd's certificate
	dovecot, ours string // host:port
}

var overInet inet

// Clients come from the one or the other.
const (
	trusted   = "127.0.0.2"
	untrusted = "127.0.0.1"
)

func (i *inet) cert() string { return filepath.Join(i.dir, "cert.pem") }
func (i *inet) key() string  { return filepath.Join(i.dir, "key.pem") }

// prepare finds two ports and makes a certificate that lmtpd can read.
func (i *inet) prepare() (err error) {
	for _, addr := range []*string{&i.dovecot, &i.ours} {
		port, err := stack.FreePort()
		if err != nil {
			return err
		}
		*addr = fmt.Sprintf("127.0.0.1:%d", port)
	}
	if i.dir, err = os.MkdirTemp("", "lmtp-"); err != nil {
		return err
	}
	if err := errors.Join(os.Chown(i.dir, stack.MailUID, stack.MailUID), os.Chmod(i.dir, 0o755)); err != nil {
		return err
	}
	return i.newCertificate("first.example.com")
}

// newCertificate replaces the certificate by one for host.
func (i *inet) newCertificate(host string) error {
	out, err := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
		"-subj", "/CN="+host, "-keyout", i.key(), "-out", i.cert()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("openssl: %w\n%s", err, out)
	}
	return os.Chown(i.key(), stack.MailUID, stack.MailUID)
}

func (i *inet) args() []string {
	return []string{"--listen=lmtp:inet:" + i.ours, "--login_trusted_networks=" + trusted, "--ssl=required",
		"--ssl_cert=<" + i.cert(), "--ssl_key=<" + i.key()}
}

func (i *inet) conf() []string {
	_, port, _ := net.SplitHostPort(i.dovecot) // the host is that of listen
	return []string{"login_trusted_networks = " + trusted, "service lmtp {", "inet_listener lmtp {", "port = " + port, "}", "}"}
}

// dialFrom connects to addr from an address of loopback.
func dialFrom(t *testing.T, from, addr string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	return c
}

// sendAll sends text and returns all that comes.
func sendAll(t *testing.T, c net.Conn, text string) string {
	t.Helper()
	go io.WriteString(c, text)
	var out bytes.Buffer
	if _, err := io.Copy(&out, c); err != nil {
		t.Log(err)
	}
	return out.String()
}

// compare reports what differs in replies and files.
func compare(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("replies differ:\n%s", difference(got, want))
	}
	if got, want := strings.Join(files(t, ours), "\n"), strings.Join(files(t, native), "\n"); got != want {
		t.Errorf("files differ:\n%s", difference(got, want))
	}
}

// TestPeers: who may say XCLIENT, what each form of it is answered, and what becomes of it in replies and headers.
func TestPeers(t *testing.T) {
	const data = "DATA\r\nx\r\n.\r\n"
	tests := []struct{ name, from, send string }{
		{"a stranger", untrusted, lhlo + "XCLIENT ADDR=1.2.3.4\r\nXCLIENT\r\n" + mail + u1 + data + quit},
		{"a stranger who insists", untrusted, lhlo + strings.Repeat("XCLIENT ADDR=1.2.3.4\r\n", 12) + quit},
		{"a proxy that insists", trusted, lhlo + strings.Repeat("XCLIENT ADDR=x\r\n", 12)},
		{"forms", trusted, lhlo + "XCLIENT\r\nXCLIENT ADDR\r\nXCLIENT FOO=1\r\nXCLIENT NAME=a\r\nXCLIENT ADDR=x\r\nXCLIENT ADDR=[UNAVAILABLE]\r\n" +
			"XCLIENT ADDR=IPV6:::1\r\nXCLIENT PORT=99999\r\nXCLIENT PROTO=FOO\r\nXCLIENT TTL=x\r\nNOOP\r\nXCLIENT TIMEOUT=x\r\nXCLIENT ADDR=1.2.3.4+2\r\nXCLIENT  ADDR=1.2.3.4\r\n" + quit},
		{"a proxy", trusted, lhlo + "XCLIENT ADDR=192.0.2.7 PORT=25 PROTO=ESMTP HELO=h.test LOGIN=bob SESSION=sess/1 TTL=3 TIMEOUT=30\r\n" +
			mail + "XCLIENT ADDR=1.2.3.5\r\n" + u1 + data + mail + u1 + u2 + data + "LHLO other\r\n" + mail + u1 + data + quit},
		{"a proxy for IPv6, LHLO behind", trusted, "XCLIENT ADDR=IPV6:2001:DB8::1 HELO=h.test\r\n" + mail + u1 + data + lhlo + mail + u1 + data + quit},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := normal(sendAll(t, dialFrom(t, tt.from, overInet.dovecot), tt.send))
			got := normal(sendAll(t, dialFrom(t, tt.from, overInet.ours), tt.send))
			compare(t, got, want)
		})
	}
	// Nobody is trusted over a unix socket.
	send := lhlo + "XCLIENT ADDR=1.2.3.4\r\n" + quit
	compare(t, normal(talk(t, ours.LMTPAddr, send)), normal(talk(t, native.LMTPAddr, send)))
}

// secure connects to addr, says before, and begins TLS. early comes in the packet of STARTTLS.
func secure(t *testing.T, addr, before, early string, config *tls.Config) (*tls.Conn, error) {
	t.Helper()
	raw := dialFrom(t, untrusted, addr)
	r := textproto.NewReader(bufio.NewReader(raw))
	fmt.Fprint(raw, before+"STARTTLS\r\n"+early)
	for {
		line, err := r.ReadLine()
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, "220 2.0.0 ") {
			break
		}
	}
	config.InsecureSkipVerify = true // it is the certificate that is looked at
	c := tls.Client(raw, config)
	return c, c.Handshake()
}

// Which of its ciphers a server takes is its own affair.
var cipher13 = regexp.MustCompile(`TLSv1\.3 with cipher TLS_\w+ \(\d+/\d+ bits\)`)

// TestSTARTTLS: the same replies and the same header as Dovecot's; what came before is forgotten.
func TestSTARTTLS(t *testing.T) {
	const inside = "RCPT TO:<u1@example.net>\r\nSTARTTLS\r\n" + mail + u1 + "DATA\r\nx\r\n.\r\n" + lhlo + mail + u2 + "DATA\r\ny\r\n.\r\n" + quit
	for _, config := range []*tls.Config{
		{MinVersion: tls.VersionTLS13},
		{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}},
		{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256}},
		{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}},
	} {
		var replies, stored [2]string
		for i, s := range []*stack.Stack{native, ours} {
			addr := []string{overInet.dovecot, overInet.ours}[i]
			c, err := secure(t, addr, lhlo+mail, "", config)
			if err != nil {
				t.Fatal(addr, err)
			}
			replies[i] = normal(sendAll(t, c, inside))
			stored[i] = cipher13.ReplaceAllString(strings.Join(files(t, s), "\n"), "TLSv1.3")
		}
		if replies[0] != replies[1] {
			t.Errorf("replies differ:\n%s", difference(replies[1], replies[0]))
		}
		if stored[0] != stored[1] || !strings.Contains(stored[1], "(using TLSv1.") {
			t.Errorf("files differ:\n%s", difference(stored[1], stored[0]))
		}
	}
}

// TestSTARTTLSInjection: what somebody put behind STARTTLS is neither run nor answered.
func TestSTARTTLSInjection(t *testing.T) {
	c, err := secure(t, overInet.ours, lhlo, mail+u1+"DATA\r\ninjected\r\n.\r\n", new(tls.Config))
	if err != nil {
		t.Fatal(err)
	}
	if got := sendAll(t, c, "DATA\r\n"+quit); got != "503 5.5.0 MAIL needed first\r\n221 2.0.0 Bye\r\n" {
		t.Errorf("inside TLS: %q", got)
	}
	if stored := files(t, ours); len(stored) > 0 {
		t.Errorf("stored: %q", stored)
	}
}

// TestCertificate: a new certificate is used after SIGHUP; one that cannot be used leaves the old one.
func TestCertificate(t *testing.T) {
	host := func() string {
		t.Helper()
		c, err := secure(t, overInet.ours, lhlo, "", new(tls.Config))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	reload := func(says string) {
		t.Helper()
		log := filepath.Join(ours.Dir, "dovepost/lmtpd.log")
		before, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		ours.Signal("lmtpd", syscall.SIGHUP)
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if text, _ := os.ReadFile(log); strings.Contains(string(text[len(before):]), says) {
				return
			}
		}
		t.Fatalf("the log does not say %q after SIGHUP", says)
	}
	if got := host(); got != "first.example.com" {
		t.Errorf("certificate of %q; want the first", got)
	}
	if err := overInet.newCertificate("second.example.com"); err != nil {
		t.Fatal(err)
	}
	reload("msg=reloaded")
	if got := host(); got != "second.example.com" {
		t.Errorf("certificate of %q; want the second", got)
	}
	if err := os.WriteFile(overInet.key(), []byte("no key"), 0o644); err != nil {
		t.Fatal(err)
	}
	reload("ssl_key")
	if got := host(); got != "second.example.com" {
		t.Errorf("certificate of %q; want the second still", got)
	}
}

var (
	queuedAs  = regexp.MustCompile(`postfix/lmtp\[\d+\]: (\w+): to=<u3@example\.net>.* status=sent`)
	delivered = regexp.MustCompile(`msg=delivery .*to=u3@example\.net .*`)
)

// TestForwardedByPostfix: with lmtp_send_xforward_command = yes the log of lmtpd has Postfix's own name of the message and
// the client that Postfix got it from, and Postfix finds nothing to complain of.
func TestForwardedByPostfix(t *testing.T) {
	c, err := mailclient.DialSMTP(ours.SMTPAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.FromOutside("192.0.2.77", "client.test"); err != nil {
		t.Fatal(err)
	}
	if err := c.Send("a@b.test", "u3@example.net", "Subject: forwarded\r\n\r\nx\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := ours.WaitQueue(time.Minute); err != nil {
		t.Fatal(err)
	}
	mail, err := ours.WaitLog(time.Minute, ": to=<u3@example.net>", 1)
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(filepath.Join(ours.Dir, "dovepost/lmtpd.log"))
	if err != nil {
		t.Fatal(err)
	}
	id := queuedAs.FindStringSubmatch(mail)
	if id == nil {
		t.Fatalf("Postfix has not delivered:\n%s", mail)
	}
	line := delivered.Find(log)
	for _, want := range []string{" queue=" + id[1] + " ", " client=192.0.2.77"} {
		if !strings.Contains(string(line), want) {
			t.Errorf("lmtpd logs %q; want %q in it", line, want)
		}
	}
	if strings.Contains(mail, "XFORWARD") || strings.Contains(mail, "warning: host") {
		t.Errorf("Postfix complains:\n%s", mail)
	}
	if stored := files(t, ours); len(stored) != 1 || !strings.Contains(stored[0], "Received: from mail.example.com\\n\\tby mail.example.com with LMTP\\n") {
		t.Errorf("stored %q; want the name that Postfix gave at LHLO", stored)
	}
}
