// Package mailclient holds small clients for SMTP, LMTP, IMAP and POP3, which let
// a test see every reply of a server as it was sent.
//
// They trust the server as far as a test does: lines are bounded, and every
// command has a deadline, but replies are hardly looked into.
package mailclient

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// Timeout bounds each command with its reply. It is longer than any delay that a
// failed login earns.
const Timeout = 40 * time.Second

// maxLine bounds a line of a server. maxLiteral bounds a literal of IMAP.
const (
	maxLine    = 64 << 10
	maxLiteral = 64 << 20
)

// wire is a connection that speaks lines.
type wire struct {
	conn net.Conn
	r    *bufio.Reader
}

func dial(network, addr string) (*wire, error) {
	c, err := net.DialTimeout(network, addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(Timeout))
	return &wire{c, bufio.NewReaderSize(c, maxLine)}, nil
}

// network guesses what an address is for.
func network(addr string) string {
	if strings.HasPrefix(addr, "/") {
		return "unix"
	}
	return "tcp"
}

// startTLS continues over TLS. The certificate must be valid for 127.0.0.1.
func (w *wire) startTLS(roots *x509.CertPool) error {
	if w.r.Buffered() > 0 {
		return errors.New("server spoke before the TLS handshake")
	}
	c := tls.Client(w.conn, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"})
	if err := c.Handshake(); err != nil {
		return err
	}
	w.conn = c
	w.r.Reset(c)
	return nil
}

// send writes text as it is and starts the time for the answer.
func (w *wire) send(text string) error {
	w.conn.SetDeadline(time.Now().Add(Timeout))
	_, err := io.WriteString(w.conn, text)
	return err
}

// readLine reads a line, without its end.
func (w *wire) readLine() (string, error) {
	line, err := w.r.ReadSlice('\n')
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return string(line), err
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r"), nil
}

// Close closes the connection without a word.
func (w *wire) Close() error { return w.conn.Close() }

// dotStuff returns message, whose lines end in LF or CRLF, as DATA sends it.
func dotStuff(message string) string {
	var b strings.Builder
	for line := range strings.Lines(message) {
		if strings.HasPrefix(line, ".") {
			b.WriteByte('.')
		}
		b.WriteString(strings.TrimRight(line, "\r\n"))
		b.WriteString("\r\n")
	}
	b.WriteString(".\r\n")
	return b.String()
}

// unexpected words a refusal where there should have been none.
func unexpected(command string, answer fmt.Stringer) error {
	return fmt.Errorf("%s: %s", command, answer)
}
