package mech

import (
	"bufio"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
)

// conn is a connection to one of the three servers, over TLS.
type conn struct {
	net.Conn
	r        *bufio.Reader
	protocol string
}

func dial(t *testing.T, s *stack.Stack, protocol string) *conn {
	t.Helper()
	plain, err := net.DialTimeout("tcp", addr(s, protocol), patience)
	if err != nil {
		t.Fatal(err)
	}
	plain.SetDeadline(time.Now().Add(patience))
	c := &conn{plain, bufio.NewReader(plain), protocol}
	c.line(t)
	switch protocol {
	case "imap":
		c.command(t, "a STARTTLS")
	case "pop3":
		c.command(t, "STLS")
	case "smtp":
		c.command(t, "EHLO client.example.org")
		c.command(t, "STARTTLS")
	}
	over := tls.Client(plain, &tls.Config{RootCAs: s.Roots, ServerName: "127.0.0.1"})
	if err := over.Handshake(); err != nil {
		t.Fatal(err)
	}
	return &conn{over, bufio.NewReader(over), protocol}
}

func (c *conn) close() { c.Close() }

func (c *conn) line(t *testing.T) string {
	t.Helper()
	line, err := c.r.ReadString('\n')
	if err != nil {
		return "the end: " + err.Error()
	}
	return strings.TrimRight(line, "\r\n")
}

// command sends a line and returns the answer, whose last line is what counts.
func (c *conn) command(t *testing.T, text string) []string {
	t.Helper()
	if _, err := fmt.Fprintf(c, "%s\r\n", text); err != nil {
		t.Fatal(err)
	}
	var all []string
	for {
		line := c.line(t)
		all = append(all, line)
		switch {
		case c.protocol == "imap" && strings.HasPrefix(line, "* "):
		case c.protocol == "smtp" && len(line) > 3 && line[3] == '-':
		default:
			return all
		}
	}
}

// capabilities returns the mechanisms in the order in which they are offered.
func (c *conn) capabilities(t *testing.T) []string {
	t.Helper()
	switch c.protocol {
	case "imap":
		var all []string
		for _, word := range strings.Fields(strings.Join(c.command(t, "b CAPABILITY"), " ")) {
			if mech, ok := strings.CutPrefix(word, "AUTH="); ok {
				all = append(all, mech)
			}
		}
		return all
	case "pop3":
		var list string
		for line := c.command(t, "CAPA")[0]; line != "."; line = c.line(t) {
			if rest, ok := strings.CutPrefix(line, "SASL "); ok {
				list = rest
			}
		}
		return strings.Fields(list)
	}
	for _, line := range c.command(t, "EHLO client.example.org") {
		if rest, ok := strings.CutPrefix(line[4:], "AUTH "); ok {
			return strings.Fields(rest)
		}
	}
	return nil
}

// challenge takes the mark of a challenge off a line.
func (c *conn) challenge(line string) (string, bool) {
	mark := map[string]string{"imap": "+ ", "pop3": "+ ", "smtp": "334 "}[c.protocol]
	return strings.CutPrefix(line+map[bool]string{true: " "}[line+" " == mark], mark)
}

// varying is what no two answers have in common.
var varying = regexp.MustCompile(` \[[^ \]]*:20[0-9-]+ [0-9:]+\]| in [0-9.]+ secs`)

// authenticate goes through an exchange and returns its last line. Where there are
// more challenges than answers, the exchange is cancelled.
func (c *conn) authenticate(t *testing.T, mech string, answers []string) string {
	t.Helper()
	if c.protocol == "smtp" {
		c.command(t, "EHLO client.example.org")
	}
	line := last(c.command(t, map[string]string{"imap": "a AUTHENTICATE ", "pop3": "AUTH ", "smtp": "AUTH "}[c.protocol]+mech))
	for {
		if _, ok := c.challenge(line); !ok {
			return varying.ReplaceAllString(line, "")
		}
		answer := "*"
		if len(answers) > 0 {
			answer, answers = answers[0], answers[1:]
		}
		if raw, ok := strings.CutPrefix(answer, "="); ok {
			answer = base64.StdEncoding.EncodeToString([]byte(raw))
		}
		line = last(c.command(t, answer))
	}
}

func last(lines []string) string { return lines[len(lines)-1] }

// scram logs in, and verifies the server's signature.
func (c *conn) scram(t *testing.T, mech, user, password string) error {
	t.Helper()
	newHash := map[string]func() hash.Hash{"SCRAM-SHA-1": sha1.New, "SCRAM-SHA-256": sha256.New}[mech]
	mac := func(key []byte, text string) []byte {
		m := hmac.New(newHash, key)
		m.Write([]byte(text))
		return m.Sum(nil)
	}
	b64 := base64.StdEncoding.EncodeToString
	say := func(text string) (string, error) {
		line := last(c.command(t, text))
		challenge, ok := c.challenge(line)
		if !ok {
			return "", errors.New(line)
		}
		raw, err := base64.StdEncoding.DecodeString(challenge)
		return string(raw), err
	}
	if c.protocol == "smtp" {
		c.command(t, "EHLO client.example.org")
	}
	if _, err := say(map[string]string{"imap": "a AUTHENTICATE ", "pop3": "AUTH ", "smtp": "AUTH "}[c.protocol] + mech); err != nil {
		return err
	}
	bare := "n=" + user + ",r=mine"
	first, err := say(b64([]byte("n,," + bare)))
	if err != nil {
		return err
	}
	parts := strings.SplitN(first, ",", 3)
	if len(parts) != 3 || !strings.HasPrefix(parts[0], "r=mine") {
		return fmt.Errorf("first message %q", first)
	}
	salt, err := base64.StdEncoding.DecodeString(parts[1][2:])
	if err != nil {
		return err
	}
	count, err := strconv.Atoi(parts[2][2:])
	if err != nil {
		return err
	}
	salted, err := pbkdf2.Key(newHash, password, salt, count, newHash().Size())
	if err != nil {
		return err
	}
	clientKey := mac(salted, "Client Key")
	stored := newHash()
	stored.Write(clientKey)
	without := "c=biws," + parts[0]
	whole := bare + "," + first + "," + without
	proof := mac(stored.Sum(nil), whole)
	for i := range proof {
		proof[i] ^= clientKey[i]
	}
	final, err := say(b64([]byte(without + ",p=" + b64(proof))))
	if err != nil {
		return err
	}
	if want := "v=" + b64(mac(mac(salted, "Server Key"), whole)); final != want {
		return fmt.Errorf("the server's signature is %q, want %q", final, want)
	}
	line := last(c.command(t, ""))
	if !strings.HasPrefix(line, map[string]string{"imap": "a OK", "pop3": "+OK", "smtp": "235 "}[c.protocol]) {
		return errors.New(line)
	}
	return nil
}
