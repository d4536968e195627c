// Package delivery attacks lmtpd with the real Postfix and Dovecot: kills at random
// instants, restarts under load, what a user can put into his mailbox, senders that no
// RFC knows. A program that is missing is a failure.
package delivery

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
)

// site is the mail server under attack. u0 to u19 have no quota.
var site *stack.Stack

const users = 20

func user(i int) string { return fmt.Sprintf("u%d@example.net", i%users) }

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	o := stack.Options{Domains: []string{"example.net"}}
	for i := range users {
		o.Users = append(o.Users, stack.User{Email: user(i), Password: "x"})
	}
	var err error
	if site, err = stack.Start(o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if code = m.Run(); code != 0 {
		fmt.Fprintln(os.Stderr, "logs are in", site.Dir)
		err = site.Halt()
	} else {
		err = site.Stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// client is an LMTP client that sends one command after the other.
type client struct {
	net.Conn
	*textproto.Reader
}

// dial connects to lmtpd and says LHLO.
func dial() (*client, error) {
	conn, err := net.Dial("unix", site.LMTPAddr)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(2 * time.Minute))
	c := &client{conn, textproto.NewReader(bufio.NewReader(conn))}
	if _, _, err = c.ReadResponse(220); err == nil {
		_, _, err = c.cmd("LHLO client.test")
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *client) cmd(line string) (code int, text string, err error) {
	if _, err := fmt.Fprintf(c, "%s\r\n", line); err != nil {
		return 0, "", err
	}
	return c.ReadResponse(0)
}

// send runs a transaction and returns the codes for the recipients, 0 for those without an
// answer, and the error that ended the connection. message has CRLF line ends.
func (c *client) send(message string, rcpts ...string) (codes []int, err error) {
	codes, accepted, err := c.begin(message, rcpts)
	if err != nil {
		return codes, err
	}
	for _, i := range accepted {
		if codes[i], _, err = c.ReadResponse(0); err != nil {
			codes[i] = 0
			return codes, err
		}
	}
	return codes, nil
}

// errLeft ends a connection whose client did not wait.
var errLeft = errors.New("left before the answer")

// sendAndLeave is send for a client that closes the connection before it has an answer.
func (c *client) sendAndLeave(message string, rcpts ...string) (codes []int, err error) {
	if codes, _, err = c.begin(message, rcpts); err == nil {
		err = errLeft
	}
	return codes, err
}

// begin runs a transaction up to its last line, and returns the codes for the recipients who are refused, and
// the others' indexes.
func (c *client) begin(message string, rcpts []string) (codes, accepted []int, err error) {
	codes = make([]int, len(rcpts))
	if _, _, err := c.cmd("MAIL FROM:<sender@remote.example>"); err != nil {
		return codes, nil, err
	}
	for i, rcpt := range rcpts {
		code, _, err := c.cmd("RCPT TO:<" + rcpt + ">")
		if err != nil {
			return codes, nil, err
		}
		if codes[i] = code; code == 250 {
			codes[i] = 0
			accepted = append(accepted, i)
		}
	}
	if len(accepted) == 0 {
		_, _, err := c.cmd("RSET")
		return codes, nil, err
	}
	if _, _, err := c.cmd("DATA"); err != nil {
		return codes, nil, err
	}
	if _, err := fmt.Fprintf(c, "%s.\r\n", message); err != nil {
		return codes, nil, err
	}
	return codes, accepted, nil
}

// subjects counts the messages in a user's INBOX by subject, as Dovecot shows them. What
// does not end in "end" is torn.
func subjects(t *testing.T, user string) map[string]int { return subjectsIn(t, user, "INBOX") }

// subjectsIn does so for any mailbox.
func subjectsIn(t *testing.T, user, mailbox string) map[string]int {
	t.Helper()
	out, err := site.Doveadm("fetch", "-u", user, "uid text", "mailbox", mailbox)
	if err != nil {
		t.Fatalf("doveadm fetch: %v\n%s", err, out)
	}
	count := map[string]int{}
	for text := range strings.SplitSeq(strings.TrimRight(out, "\f\n"), "\f") { // behind each, as there are two fields
		_, rest, ok := strings.Cut(strings.ReplaceAll(text, "\r", ""), "\nSubject: ")
		if !ok {
			continue
		}
		subject, _, _ := strings.Cut(rest, "\n")
		if !strings.HasSuffix(strings.TrimRight(text, "\r\n"), "end") {
			t.Errorf("%s of %s is torn", subject, user)
		}
		count[subject]++
	}
	return count
}

// logged counts the lines of Postfix's log that contain text.
func logged(t *testing.T, text string) int {
	t.Helper()
	log, err := os.ReadFile(site.MailLog())
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(log, []byte(text))
}

// sendmail submits a message as a local user does.
func sendmail(t *testing.T, from, to, subject string) {
	t.Helper()
	cmd := exec.Command("/usr/sbin/sendmail", "-C", site.ConfigDir(), "-f", from, to)
	cmd.Env = []string{"MAIL_CONFIG=" + site.ConfigDir()}
	cmd.Stdin = strings.NewReader("Subject: " + subject + "\n\nend\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sendmail -f %q: %v\n%s", from, err, out)
	}
}
