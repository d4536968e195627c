package mailclient

import (
	"crypto/x509"
	"fmt"
	"strings"
)

// POP3 is a client of POP3.
type POP3 struct {
	*wire
	Greeting string
}

// DialPOP3 connects, and continues over TLS.
func DialPOP3(addr string, roots *x509.CertPool) (*POP3, error) {
	w, err := dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &POP3{wire: w}
	if c.Greeting, err = c.readLine(); err == nil {
		if _, err = c.Must("STLS"); err == nil {
			err = c.startTLS(roots)
		}
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("POP3: %w", err)
	}
	return c, nil
}

// LoginPOP3 connects and logs in.
func LoginPOP3(addr string, roots *x509.CertPool, user, password string) (*POP3, error) {
	c, err := DialPOP3(addr, roots)
	if err != nil {
		return nil, err
	}
	line, err := c.Login(user, password)
	if err == nil && !strings.HasPrefix(line, "+OK") {
		err = fmt.Errorf("PASS: %s", line)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Login sends USER and PASS and returns the last answer.
func (c *POP3) Login(user, password string) (string, error) {
	line, err := c.Cmd("USER %s", user)
	if err != nil || !strings.HasPrefix(line, "+OK") {
		return line, err
	}
	return c.Cmd("PASS %s", password)
}

// Cmd sends a command and reads a line.
func (c *POP3) Cmd(format string, args ...any) (string, error) {
	if err := c.send(fmt.Sprintf(format, args...) + "\r\n"); err != nil {
		return "", err
	}
	return c.readLine()
}

// Must sends a command whose refusal is an error.
func (c *POP3) Must(format string, args ...any) (string, error) {
	line, err := c.Cmd(format, args...)
	if err == nil && !strings.HasPrefix(line, "+OK") {
		err = fmt.Errorf("%s: %s", fmt.Sprintf(format, args...), line)
	}
	return line, err
}

// Messages returns all messages of the mailbox, with CRLF line ends.
func (c *POP3) Messages() ([]string, error) {
	line, err := c.Must("STAT")
	if err != nil {
		return nil, err
	}
	var count, octets int
	if _, err := fmt.Sscanf(line, "+OK %d %d", &count, &octets); err != nil {
		return nil, fmt.Errorf("STAT: %q: %w", line, err)
	}
	var all []string
	for i := range count {
		if _, err := c.Must("RETR %d", i+1); err != nil {
			return nil, err
		}
		var b strings.Builder
		for {
			line, err := c.readLine()
			if err != nil {
				return nil, err
			}
			if line == "." {
				break
			}
			b.WriteString(strings.TrimPrefix(line, "."))
			b.WriteString("\r\n")
		}
		all = append(all, b.String())
	}
	return all, nil
}

// Quit takes leave.
func (c *POP3) Quit() error {
	defer c.Close()
	_, err := c.Must("QUIT")
	return err
}
