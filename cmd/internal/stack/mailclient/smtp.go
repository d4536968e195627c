package mailclient

import (
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// Reply is a reply of SMTP or LMTP: RFC 5321 4.2.
type Reply struct {
	Code int
	Text string // all lines, without the code, joined by LF
}

func (r Reply) String() string { return fmt.Sprintf("%d %s", r.Code, r.Text) }

// OK reports whether the server agreed.
func (r Reply) OK() bool { return r.Code >= 200 && r.Code < 400 }

// SMTP is a client of SMTP, and of LMTP where the caller says LHLO.
type SMTP struct {
	*wire
	Greeting Reply
}

// DialSMTP connects to host:port, or to a unix socket by its absolute path.
func DialSMTP(addr string) (*SMTP, error) {
	w, err := dial(network(addr), addr)
	if err != nil {
		return nil, err
	}
	c := &SMTP{wire: w}
	if c.Greeting, err = c.ReadReply(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// ReadReply reads one reply.
func (c *SMTP) ReadReply() (Reply, error) {
	var lines []string
	for {
		line, err := c.readLine()
		if err != nil {
			return Reply{}, err
		}
		if len(line) < 3 {
			return Reply{}, fmt.Errorf("short reply %q", line)
		}
		code, err := strconv.Atoi(line[:3])
		if err != nil {
			return Reply{}, fmt.Errorf("reply without a code: %q", line)
		}
		text, more := strings.CutPrefix(line[3:], "-")
		lines = append(lines, strings.TrimPrefix(text, " "))
		if !more {
			return Reply{code, strings.Join(lines, "\n")}, nil
		}
	}
}

// Cmd sends a line and reads the reply.
func (c *SMTP) Cmd(format string, args ...any) (Reply, error) {
	if err := c.send(fmt.Sprintf(format, args...) + "\r\n"); err != nil {
		return Reply{}, err
	}
	return c.ReadReply()
}

// Must sends a line whose refusal is an error.
func (c *SMTP) Must(format string, args ...any) error {
	r, err := c.Cmd(format, args...)
	if err == nil && !r.OK() {
		err = unexpected(fmt.Sprintf(format, args...), r)
	}
	return err
}

// FromOutside makes the server treat this client as the host name at ip.
func (c *SMTP) FromOutside(ip, name string) error {
	if err := c.Must("EHLO test.client"); err != nil {
		return err
	}
	if err := c.Must("XCLIENT ADDR=%s NAME=%s", ip, name); err != nil {
		return err
	}
	return c.Must("EHLO %s", name)
}

// StartTLS says EHLO, STARTTLS, and EHLO again.
func (c *SMTP) StartTLS(roots *x509.CertPool) error {
	if err := c.Must("EHLO test.client"); err != nil {
		return err
	}
	if err := c.Must("STARTTLS"); err != nil {
		return err
	}
	if err := c.startTLS(roots); err != nil {
		return err
	}
	return c.Must("EHLO test.client")
}

// AuthPlain logs in with PLAIN.
func (c *SMTP) AuthPlain(user, password string) (Reply, error) {
	return c.Cmd("AUTH PLAIN %s", base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+password)))
}

// AuthLogin logs in with LOGIN.
func (c *SMTP) AuthLogin(user, password string) (Reply, error) {
	r, err := c.Cmd("AUTH LOGIN")
	for _, answer := range []string{user, password} {
		if err != nil || r.Code != 334 {
			return r, err
		}
		r, err = c.Cmd("%s", base64.StdEncoding.EncodeToString([]byte(answer)))
	}
	return r, err
}

// Rcpt starts a transaction and returns the reply to RCPT.
func (c *SMTP) Rcpt(from, to string) (Reply, error) {
	if err := c.Must("MAIL FROM:<%s>", from); err != nil {
		return Reply{}, err
	}
	return c.Cmd("RCPT TO:<%s>", to)
}

// Data sends a message, with LF or CRLF line ends, and returns the reply to it. In
// LMTP there is one such reply for each recipient: ReadReply gets the others.
func (c *SMTP) Data(message string) (Reply, error) {
	r, err := c.Cmd("DATA")
	if err != nil || r.Code != 354 {
		return r, err
	}
	if err := c.send(dotStuff(message)); err != nil {
		return Reply{}, err
	}
	return c.ReadReply()
}

// Send runs a transaction; any refusal is an error.
func (c *SMTP) Send(from, to, message string) error {
	r, err := c.Rcpt(from, to)
	if err != nil {
		return err
	}
	if !r.OK() {
		return unexpected("RCPT TO:<"+to+">", r)
	}
	if r, err = c.Data(message); err == nil && !r.OK() {
		err = unexpected("DATA", r)
	}
	return err
}

// Quit takes leave.
func (c *SMTP) Quit() error {
	defer c.Close()
	return c.Must("QUIT")
}
