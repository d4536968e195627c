package mailclient

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Answer is what an IMAP server says to one command.
type Answer struct {
	Status   string   // OK, NO or BAD
	Text     string   // what follows the status
	Untagged []string // the lines before, without "* "; a literal stands in them as it came, after its {n} and CRLF
}

func (a Answer) String() string { return a.Status + " " + a.Text }

// OK reports whether the server agreed.
func (a Answer) OK() bool { return a.Status == "OK" }

// IMAP is a client of IMAP4rev1.
type IMAP struct {
	*wire
	Greeting string
	tag      int
}

// DialIMAP connects, and continues over TLS.
func DialIMAP(addr string, roots *x509.CertPool) (*IMAP, error) {
	w, err := dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &IMAP{wire: w}
	if c.Greeting, err = c.readLine(); err == nil {
		if _, err = c.Must("STARTTLS"); err == nil {
			err = c.startTLS(roots)
		}
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("IMAP: %w", err)
	}
	return c, nil
}

// LoginIMAP connects and logs in.
func LoginIMAP(addr string, roots *x509.CertPool, user, password string) (*IMAP, error) {
	c, err := DialIMAP(addr, roots)
	if err != nil {
		return nil, err
	}
	if a, err := c.Login(user, password); err != nil || !a.OK() {
		c.Close()
		return nil, errors.Join(err, unexpected("LOGIN", a))
	}
	return c, nil
}

// Login sends LOGIN.
func (c *IMAP) Login(user, password string) (Answer, error) {
	return c.Cmd("LOGIN %s %s", quote(user), quote(password))
}

// quote returns s as a quoted string of IMAP, which has no CR, LF or NUL.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// Cmd sends a command and reads up to its tagged answer.
func (c *IMAP) Cmd(format string, args ...any) (Answer, error) {
	c.tag++
	tag := fmt.Sprintf("a%d", c.tag)
	if err := c.send(tag + " " + fmt.Sprintf(format, args...) + "\r\n"); err != nil {
		return Answer{}, err
	}
	var a Answer
	for {
		line, err := c.readResponse()
		if err != nil {
			return a, err
		}
		if rest, ok := strings.CutPrefix(line, tag+" "); ok {
			a.Status, a.Text, _ = strings.Cut(rest, " ")
			return a, nil
		}
		a.Untagged = append(a.Untagged, strings.TrimPrefix(line, "* "))
	}
}

// Must sends a command whose refusal is an error.
func (c *IMAP) Must(format string, args ...any) (Answer, error) {
	a, err := c.Cmd(format, args...)
	if err == nil && !a.OK() {
		err = unexpected(fmt.Sprintf(format, args...), a)
	}
	return a, err
}

// readResponse reads a line and the literals in it.
func (c *IMAP) readResponse() (string, error) {
	var b strings.Builder
	for {
		line, err := c.readLine()
		if err != nil {
			return "", err
		}
		b.WriteString(line)
		n, ok := literal(line)
		if !ok {
			return b.String(), nil
		}
		if n > maxLiteral {
			return "", fmt.Errorf("literal of %d octets", n)
		}
		b.WriteString("\r\n")
		if _, err := io.CopyN(&b, c.r, n); err != nil {
			return "", err
		}
	}
}

// literal returns the size that the end of a line announces.
func literal(line string) (int64, bool) {
	rest, ok := strings.CutSuffix(line, "}")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(rest[strings.LastIndexByte(rest, '{')+1:], 10, 64)
	return n, err == nil && n >= 0
}

// Find returns the sequence numbers of the messages of the selected mailbox that
// meet the criteria.
func (c *IMAP) Find(criteria string) ([]string, error) {
	a, err := c.Must("SEARCH %s", criteria)
	if err != nil {
		return nil, err
	}
	for _, line := range a.Untagged {
		if rest, ok := strings.CutPrefix(line, "SEARCH"); ok {
			return strings.Fields(rest), nil
		}
	}
	return nil, nil
}

// Fetch returns a message, with CRLF line ends, and does not mark it as read.
func (c *IMAP) Fetch(number string) (string, error) {
	a, err := c.Must("FETCH %s BODY.PEEK[]", number)
	if err != nil {
		return "", err
	}
	for _, line := range a.Untagged {
		head, body, ok := strings.Cut(line, "\r\n")
		if n, isLiteral := literal(head); ok && isLiteral && int64(len(body)) >= n {
			return body[:n], nil
		}
	}
	return "", fmt.Errorf("FETCH %s: no message in the answer %q", number, a.Untagged)
}

// Append stores a message.
func (c *IMAP) Append(mailbox, message string) error {
	message = strings.ReplaceAll(strings.ReplaceAll(message, "\r\n", "\n"), "\n", "\r\n")
	_, err := c.Must("APPEND %s (\\Seen) {%d+}\r\n%s", quote(mailbox), len(message), message)
	return err
}

// Logout takes leave.
func (c *IMAP) Logout() error {
	defer c.Close()
	_, err := c.Must("LOGOUT")
	return err
}
