// Package submission passes messages on to other addresses: over SMTP (RFC 5321) to the host of
// submission_host, or to the program of sendmail_path.
//
// Whoever takes the message is trusted and near: there is neither TLS nor a login.
package submission

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"os/exec"
	"strings"
	"time"

	"dovepost/lmtp"
)

// timeout bounds one submission.
const timeout = 60 * time.Second

// SMTP is a lmtp.Sender that speaks to a mail server.
type SMTP struct {
	Addr  string // host:port
	Hello string // our name
}

// Sendmail is a lmtp.Sender that runs a program with sendmail's arguments: -i -f SENDER -- RECIPIENT.
type Sendmail struct{ Path string }

var (
	_ lmtp.Sender = (*SMTP)(nil)
	_ lmtp.Sender = (*Sendmail)(nil)
)

// check refuses an address that would be more than that in a command.
func check(addresses ...string) error {
	for _, a := range addresses {
		if strings.ContainsFunc(a, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '<' || r == '>' }) {
			return fmt.Errorf("%q is not an address", a)
		}
	}
	return nil
}

var errNobody = errors.New("no recipient")

// Send implements lmtp.Sender. It returns nil when the server has answered 250 to the message.
func (s *SMTP) Send(ctx context.Context, sender, to string, msg lmtp.Message) error {
	if to == "" {
		return errNobody
	}
	if err := check(sender, to); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", s.Addr)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	c, err := smtp.NewClient(conn, s.Addr)
	if err != nil {
		_ = conn.Close()
		return err
	}
	defer c.Close()
	if err := c.Hello(s.Hello); err != nil {
		return err
	}
	if err := c.Mail(sender); err != nil {
		return err
	}
	if err := c.Rcpt(to); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, msg.Open()); err != nil {
		return err // and no end of data: the server forgets what it has
	}
	if err := w.Close(); err != nil {
		return err
	}
	_ = c.Quit()
	return nil
}

// Send implements lmtp.Sender. It returns nil when the program has ended well.
func (s *Sendmail) Send(ctx context.Context, sender, to string, msg lmtp.Message) error {
	if to == "" {
		return errNobody
	}
	if err := check(sender, to); err != nil {
		return err
	}
	if sender == "" || sender[0] == '-' {
		sender = "<" + sender + ">"
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.Path, "-i", "-f", sender, "--", to)
	cmd.Dir, cmd.Env, cmd.WaitDelay = "/", []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, time.Second
	in := &source{r: msg.Open(), broken: func() { _ = cmd.Process.Kill() }}
	var out tail
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, &out
	if err := cmd.Run(); err != nil || in.err != nil {
		return fmt.Errorf("%s: %w: %q", s.Path, errors.Join(err, in.err), out.text.String())
	}
	return nil
}

// source ends the program when the message cannot be read: it would take the part for all.
type source struct {
	r      io.Reader
	broken func()
	err    error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.broken()
		s.err = err
	}
	return n, err
}

// tail keeps the beginning of what a program says.
type tail struct{ text bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	t.text.Write(p[:min(len(p), max(0, 1024-t.text.Len()))])
	return len(p), nil
}
