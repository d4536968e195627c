package lookup

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
	"dovepost/cmd/internal/stack/mailclient"
)

// parityCF is the same for both Postfix instances. What is taken is held in the queue.
const parityCF = `myhostname = mail.parity.example
myorigin = parity.example
mydestination =
local_recipient_maps =
mynetworks = 127.0.0.2/32
virtual_transport = discard:virtual
relay_transport = discard:relay
default_transport = discard:default
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_limit = 100000
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 1000000
smtpd_hard_error_limit = 1000000
smtpd_junk_command_limit = 1000000
in_flow_delay = 0
header_checks = static:HOLD
smtpd_sasl_type = dovecot
smtpd_sasl_path = dovepost/auth
`

// The listeners of both.
const (
	forAll   = iota // as the fragment has it
	holding         // takes everything
	knowing         // minds who sends under which address
	noListen = 3
)

var listeners = [noListen][]string{
	holding: {"smtpd_recipient_restrictions=", "smtpd_relay_restrictions=check_client_access static:OK, reject", "smtpd_reject_unlisted_recipient=no"},
	knowing: {"smtpd_recipient_restrictions=", "smtpd_relay_restrictions=check_client_access static:OK, reject", "smtpd_reject_unlisted_recipient=no",
		"smtpd_sender_restrictions=reject_sender_login_mismatch", "smtpd_sasl_auth_enable=yes"},
}

// site is a Postfix and what it is asked for.
type site struct {
	*stack.Postfix
}

func newSite(t *testing.T, dir, main string) (*site, error) {
	p, err := stack.StartPostfix(dir, parityCF+main, listeners[:]...)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(lastLines(p.MailLog(), 20))
		}
	})
	return &site{p}, trustAll(t, filepath.Join(p.Spool(), "dovepost/auth"))
}

// trustAll is an authentication server that believes everybody.
func trustAll(t *testing.T, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go believe(c)
		}
	}()
	return os.Chmod(path, 0o666)
}

func believe(c net.Conn) {
	defer c.Close()
	io.WriteString(c, "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t0123456789abcdef0123456789abcdef\nDONE\n")
	r := bufio.NewScanner(c)
	for r.Scan() {
		words := strings.Split(r.Text(), "\t")
		if words[0] != "AUTH" {
			continue
		}
		response, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(words[len(words)-1], "resp="))
		user := strings.Split(string(response), "\x00")
		if err != nil || len(user) != 3 {
			return
		}
		fmt.Fprintf(c, "OK\t%s\tuser=%s\n", words[1], user[1])
	}
}

// dial connects to a listener and logs in, if login is not empty.
func (s *site) dial(listener int, login string) (*mailclient.SMTP, error) {
	c, err := mailclient.DialSMTP(s.Addr(listener))
	if err != nil {
		return nil, err
	}
	err = c.Must("EHLO client.example")
	if err == nil && login != "" {
		var r mailclient.Reply
		if r, err = c.AuthPlain(login, "x"); err == nil && !r.OK() {
			err = fmt.Errorf("AUTH: %s", r)
		}
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// A letter is the envelope of a message: both addresses quoted as in SMTP.
type letter struct{ from, to string }

// mail starts a transaction and returns the reply to RCPT.
func (e letter) mail(c *mailclient.SMTP) (mailclient.Reply, error) {
	r, err := c.Cmd("MAIL FROM:<%s>%s", e.from, e.option())
	if err != nil || !r.OK() {
		return r, err
	}
	return c.Cmd("RCPT TO:<%s>", e.to)
}

// option is what MAIL needs for the addresses.
func (e letter) option() string {
	if strings.ContainsFunc(e.from+e.to, func(r rune) bool { return r >= 0x80 }) {
		return " SMTPUTF8"
	}
	return ""
}

// verdicts are the replies of smtpd to RCPT.
func (s *site) verdicts(listener int, login string, letters []letter) (map[string]string, error) {
	c, err := s.dial(listener, login)
	if err != nil {
		return nil, err
	}
	defer c.Quit()
	answers := map[string]string{}
	for _, e := range letters {
		r, err := e.mail(c)
		if err != nil {
			return nil, fmt.Errorf("%v: %w", e, err)
		}
		answers[fmt.Sprintf("RCPT as %q from <%s> to <%s>", login, e.from, e.to)] = r.String()
		if err := c.Must("RSET"); err != nil {
			return nil, err
		}
	}
	return answers, nil
}

// perMessage is how many letters go into one message.
const perMessage = 50

// envelopes are what cleanup has put into the queue: sender and recipients. Letters from
// one sender share messages, in which Postfix notes for each recipient whose letter it comes from.
// together says that this tells all: a copy for somebody else would be there but once.
func (s *site) envelopes(letters []letter, together bool) (map[string]string, error) {
	c, err := s.dial(holding, "")
	if err != nil {
		return nil, err
	}
	defer c.Quit()
	answers := map[string]string{}
	for most := perMessage; len(letters) > 0; most = 1 {
		if !together {
			most = 1
		}
		sent := map[string][]letter{}
		for _, message := range messages(letters, most) {
			id, accepted, err := s.message(c, message, answers)
			if err != nil {
				return nil, fmt.Errorf("%v: %w", message[0], err)
			}
			if id != "" {
				sent[id] = accepted
			}
		}
		queued, err := s.readQueue(sent)
		if err != nil {
			return nil, err
		}
		for id, accepted := range sent {
			queued[id].answer(accepted, answers)
		}
		letters = slices.DeleteFunc(slices.Clone(letters), func(e letter) bool { _, ok := answers[e.envelope()]; return ok })
		if most == 1 && len(letters) > 0 {
			return nil, fmt.Errorf("no envelope of %v", letters)
		}
	}
	return answers, nil
}

// envelope is the name of the answer.
func (e letter) envelope() string { return fmt.Sprintf("envelope from <%s> to <%s>", e.from, e.to) }

// original is the recipient as Postfix notes it: without quotes and without a route.
func (e letter) original() string {
	to := e.to
	if route := strings.IndexByte(to, ':'); strings.HasPrefix(to, "@") {
		to = to[route+1:]
	}
	return internal(to)
}

// messages makes messages of letters: each has one sender and no recipient twice.
func messages(letters []letter, most int) (all [][]letter) {
	for _, e := range letters {
		i := slices.IndexFunc(all, func(m []letter) bool {
			return len(m) < most && m[0].from == e.from && m[0].option() == e.option() &&
				!slices.ContainsFunc(m, func(o letter) bool { return strings.EqualFold(o.original(), e.original()) })
		})
		if i < 0 {
			all, i = append(all, nil), len(all)
		}
		all[i] = append(all[i], e)
	}
	return all
}

// message sends one. A letter that is refused has its answer then; if the message is, so has
// one that is alone in it.
func (s *site) message(c *mailclient.SMTP, letters []letter, answers map[string]string) (id string, accepted []letter, err error) {
	from, err := c.Cmd("MAIL FROM:<%s>%s", letters[0].from, letters[0].option())
	r := from
	for _, e := range letters {
		if err == nil && from.OK() {
			r, err = c.Cmd("RCPT TO:<%s>", e.to)
		}
		switch {
		case err != nil:
			return "", nil, err
		case r.OK():
			accepted = append(accepted, e)
		default:
			answers[e.envelope()] = r.String()
		}
	}
	if len(accepted) > 0 {
		if r, err = c.Data("Subject: parity\n\nx\n"); err != nil {
			return "", nil, err
		}
		var ok bool
		if id, ok = strings.CutPrefix(r.Text, "2.0.0 Ok: queued as "); !ok {
			id = ""
			if len(letters) == 1 {
				answers[letters[0].envelope()] = r.String()
			}
		}
	}
	return id, accepted, c.Must("RSET")
}

// queued is a message in the queue.
type queued struct {
	sender     string
	recipients map[string][]string // by the one that they come from
}

// answer says what the letters of a message came to. Those whose recipients cannot be
// told, since Postfix has written the address in another way, have no answer, but
// one that is alone has.
func (q *queued) answer(letters []letter, answers map[string]string) {
	for _, e := range letters {
		var recipients []string
		for original, list := range q.recipients {
			if len(letters) == 1 || original == e.original() {
				recipients = append(recipients, list...)
			}
		}
		if slices.Sort(recipients); len(recipients) > 0 {
			answers[e.envelope()] = fmt.Sprintf("from <%s> to %q", q.sender, recipients)
		}
	}
}

// readQueue reads the messages in the queue hold.
func (s *site) readQueue(sent map[string][]letter) (map[string]*queued, error) {
	all := map[string]*queued{}
	if len(sent) == 0 {
		return all, nil
	}
	args := []string{"-c", s.ConfigDir(), "-e", "-q"}
	for id := range sent {
		args = append(args, id)
	}
	out, err := exec.Command("/usr/sbin/postcat", args...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("postcat: %w: %s", err, lastLine(string(out)))
	}
	for _, text := range strings.Split(string(out), "*** ENVELOPE RECORDS ")[1:] {
		path, text, _ := strings.Cut(text, " ***\n")
		q, original := &queued{recipients: map[string][]string{}}, ""
		for line := range strings.Lines(text) {
			label, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			switch label {
			case "sender":
				q.sender = value
			case "original_recipient":
				original = value
			case "recipient":
				q.recipients[original] = append(q.recipients[original], value)
			}
		}
		all[filepath.Base(path)] = q
	}
	if len(all) != len(sent) {
		return nil, fmt.Errorf("postcat showed %d messages of %d", len(all), len(sent))
	}
	return all, nil
}

// routes are what trivial-rewrite says of an address: class, transport and next
// hop. The protocol is that between Postfix's own processes, attr_print0.
func (s *site) routes(letters []letter) (map[string]string, error) {
	answers := map[string]string{}
	var r *rewrite
	for again := 0; len(letters) > 0; {
		var err error
		if r == nil {
			if r, err = s.dialRewrite(); err != nil {
				return nil, err
			}
		}
		e := letters[0]
		reply, err := r.resolve(e)
		if err != nil {
			// A process that was there before a reload ends at its leisure.
			r.Close()
			r = nil
			if again++; again > 3 {
				return nil, fmt.Errorf("%v: %w", e, err)
			}
			continue
		}
		answers[fmt.Sprintf("route from <%s> to <%s>", e.from, e.to)] = reply
		letters = letters[1:]
	}
	r.Close()
	return answers, nil
}

// rewrite is a connection to trivial-rewrite.
type rewrite struct {
	net.Conn
	r *bufio.Reader
}

func (s *site) dialRewrite() (*rewrite, error) {
	c, err := net.Dial("unix", filepath.Join(s.Spool(), "private/rewrite"))
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	r := &rewrite{c, bufio.NewReader(c)}
	_, err = readAttributes(r.r) // names the protocol
	return r, err
}

func (r *rewrite) resolve(e letter) (string, error) {
	if _, err := fmt.Fprintf(r, "request\x00resolve\x00sender\x00%s\x00address\x00%s\x00\x00", internal(e.from), internal(e.to)); err != nil {
		return "", err
	}
	return readAttributes(r.r)
}

// internal returns an address without quotes, as Postfix's processes exchange it.
func internal(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at < 1 || address[0] != '"' {
		return address
	}
	return regexp.MustCompile(`\\(.)`).ReplaceAllString(address[1:at-1], "$1") + address[at:]
}

// readAttributes reads pairs of name and value up to an empty name.
func readAttributes(r *bufio.Reader) (string, error) {
	var all []string
	for {
		name, err := r.ReadString(0)
		if err != nil || name == "\x00" {
			return strings.Join(all, " "), err
		}
		value, err := r.ReadString(0)
		if err != nil {
			return "", err
		}
		all = append(all, strings.TrimSuffix(name, "\x00")+"="+strings.TrimSuffix(value, "\x00"))
	}
}
