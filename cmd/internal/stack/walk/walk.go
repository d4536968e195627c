// Package walk goes along every arrow of the mail server's flow chart with real
// clients: an outside server delivers, users read over IMAP and POP3, answer, and
// send to a foreign server; and whatever must be refused is refused.
package walk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"dovepost/cmd/internal/stack"
	"dovepost/cmd/internal/stack/mailclient"
)

// Options returns what the walk expects to find in the database.
func Options(flavour stack.Flavour) stack.Options {
	return stack.Options{
		Flavour: flavour,
		Domains: []string{"example.net", "example.org"},
		Users: []stack.User{
			{Email: "alice@example.net", Password: Password("alice"), Quota: 1 << 20},
			{Email: "bob@example.net", Password: Password("bob"), Quota: 1 << 20},
			{Email: "carol@example.net", Password: Password("carol")},
		},
		Aliases: []stack.Alias{
			{Address: "team@example.net", Goto: "alice@example.net,bob@example.net,carol@example.net"},
			{Address: "buyer@example.net", Goto: "buyer@remote.example"},
			{Address: "@example.org", Goto: "carol@example.net"},
		},
	}
}

// Password returns the password of a user of Options.
func Password(localpart string) string { return localpart + "-secret" }

// An outside server and a mailbox there. The address is one of RFC 5737.
const (
	outsideIP   = "203.0.113.25"
	outsideName = "mx.remote.example"
	outsider    = "olga@remote.example"
)

// deliveryLimit bounds how long Postfix may take with a message.
const deliveryLimit = 30 * time.Second

// Reporter gets one line for each question: along which arrow, what was asked and
// what was answered.
type Reporter func(arrow, asked, answered string)

// walker is one walk.
type walker struct {
	*stack.Stack
	report Reporter
}

// Run walks every arrow of s, which was started with Options. It stops at the
// first answer that is wrong.
func Run(s *stack.Stack, report Reporter) error {
	if s.Flavour == stack.Native {
		ours, plain := report, strings.NewReplacer("lookupd → foreign", "MySQL → foreign", "lookupd → ", "", "authd → ", "", "lmtpd → ", "")
		report = func(arrow, asked, answered string) { ours(plain.Replace(arrow), asked, answered) }
	}
	w := &walker{s, report}
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"mail to a mailbox", func() error { return w.deliver("alice@example.net", "alice") }},
		{"mail to an alias with three targets", func() error { return w.deliver("team@example.net", "alice", "bob", "carol") }},
		{"mail to an address with an extension", func() error { return w.deliver("bob+news@example.net", "bob") }},
		{"mail to a catch-all", func() error { return w.deliver("whoever@example.org", "carol") }},
		{"refusals at port 25", w.refuse},
		{"forwarding", w.forward},
		{"a user's session", w.session},
		{"refused logins", w.refuseLogins},
		{"submission", w.submit},
		{"doveadm", w.doveadm},
	} {
		if err := step.run(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// message makes a message that can be told from all others by its Message-ID.
func message(from, to, subject string) (id, text string) {
	id = rand.Text() + "@client.test"
	return id, fmt.Sprintf("From: %s\nTo: %s\nSubject: %s\nMessage-ID: <%s>\nDate: %s\n\nA line.\n.A line that begins with a dot.\nGrüße.\n",
		from, to, subject, id, time.Now().Format(time.RFC1123Z))
}

// body is what every message of this package says, as it comes back.
const body = "A line.\r\n.A line that begins with a dot.\r\nGrüße.\r\n"

// send lets the outside server send a message to rcpt and waits until Postfix has
// passed it on.
func (w *walker) send(rcpt, subject string) (id string, err error) {
	c, err := mailclient.DialSMTP(w.SMTPAddr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.FromOutside(outsideIP, outsideName); err != nil {
		return "", err
	}
	reply, err := c.Rcpt(outsider, rcpt)
	if err != nil {
		return "", err
	}
	w.report("outside server → Postfix → lookupd → MySQL", "RCPT TO:<"+rcpt+">", reply.String())
	if reply.Code != 250 {
		return "", fmt.Errorf("RCPT TO:<%s>: %v", rcpt, reply)
	}
	id, text := message(outsider, rcpt, subject)
	if reply, err = c.Data(text); err != nil || reply.Code != 250 {
		return "", errors.Join(err, fmt.Errorf("DATA: %v", reply))
	}
	w.report("outside server → Postfix", fmt.Sprintf("DATA, %d octets", len(text)), reply.String())
	if err := c.Quit(); err != nil {
		return "", err
	}
	return id, w.WaitQueue(deliveryLimit)
}

// deliver sends a message to rcpt and reads each copy of it over IMAP and POP3.
func (w *walker) deliver(rcpt string, owners ...string) error {
	id, err := w.send(rcpt, "to "+rcpt)
	if err != nil {
		return err
	}
	for _, owner := range owners {
		if err := w.readIMAP(owner, id, rcpt); err != nil {
			return fmt.Errorf("IMAP %s: %w", owner, err)
		}
		if err := w.readPOP3(owner, id); err != nil {
			return fmt.Errorf("POP3 %s: %w", owner, err)
		}
	}
	return nil
}

func (w *walker) login(owner string) (*mailclient.IMAP, error) {
	return mailclient.LoginIMAP(w.IMAPAddr, w.Roots, owner+"@example.net", Password(owner))
}

// readIMAP looks for exactly one copy in the owner's INBOX, and for the headers
// that delivery adds.
func (w *walker) readIMAP(owner, id, rcpt string) error {
	c, err := w.login(owner)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Must("SELECT INBOX"); err != nil {
		return err
	}
	found, err := c.Find("HEADER Message-ID " + id)
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("%d copies in INBOX", len(found))
	}
	text, err := c.Fetch(found[0])
	if err != nil {
		return err
	}
	if err := intact(text, id); err != nil {
		return err
	}
	if want := "Return-Path: <" + outsider + ">\r\n"; !strings.HasPrefix(text, want) {
		return fmt.Errorf("does not begin with %q: %q", want, text)
	}
	if strings.HasPrefix(rcpt, owner+"+") && !strings.Contains(text, "\r\nDelivered-To: "+rcpt+"\r\n") {
		return fmt.Errorf("no Delivered-To with %s: %q", rcpt, text)
	}
	w.report("Postfix → lmtpd → Maildir → Dovecot", "IMAP FETCH of "+owner+"'s copy", fmt.Sprintf("%d octets, intact", len(text)))
	return c.Logout()
}

func (w *walker) readPOP3(owner, id string) error {
	c, err := mailclient.LoginPOP3(w.POP3Addr, w.Roots, owner+"@example.net", Password(owner))
	if err != nil {
		return err
	}
	defer c.Close()
	all, err := c.Messages()
	if err != nil {
		return err
	}
	for _, text := range all {
		if strings.Contains(text, "Message-ID: <"+id+">") {
			if err := intact(text, id); err != nil {
				return err
			}
			w.report("Postfix → lmtpd → Maildir → Dovecot", "POP3 RETR of "+owner+"'s copy", fmt.Sprintf("%d octets, intact", len(text)))
			return c.Quit()
		}
	}
	return fmt.Errorf("no copy among %d messages", len(all))
}

// intact compares the message id with what message made.
func intact(text, id string) error {
	header, got, ok := strings.Cut(text, "\r\n\r\n")
	if !ok || !strings.Contains(header, "\r\nMessage-ID: <"+id+">") {
		return fmt.Errorf("not the message %s: %q", id, text)
	}
	if got != body {
		return fmt.Errorf("body is %q, want %q", got, body)
	}
	return nil
}

// refuse lets the outside server ask for what nobody may have.
func (w *walker) refuse() error {
	for _, tt := range []struct{ rcpt, want string }{
		{"nobody@example.net", "550 5.1.1 "},
		{"someone@else.example", "554 5.7.1 "},
	} {
		c, err := mailclient.DialSMTP(w.SMTPAddr)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.FromOutside(outsideIP, outsideName); err != nil {
			return err
		}
		reply, err := c.Rcpt(outsider, tt.rcpt)
		if err != nil {
			return err
		}
		w.report("outside server → Postfix → lookupd → MySQL", "RCPT TO:<"+tt.rcpt+">", reply.String())
		if !strings.HasPrefix(reply.String(), tt.want) {
			return fmt.Errorf("RCPT TO:<%s>: %v, want %s", tt.rcpt, reply, tt.want)
		}
		if err := c.Quit(); err != nil {
			return err
		}
	}
	return nil
}

// forward sends to an alias whose target is at the foreign server.
func (w *walker) forward() error {
	id, err := w.send("buyer@example.net", "to be forwarded")
	if err != nil {
		return err
	}
	return w.foreign("Postfix → lookupd → foreign server", id, "buyer@remote.example")
}

// foreign looks for exactly one copy of message id at the foreign server, which
// closes its file some time after it has taken the message.
func (w *walker) foreign(arrow, id, rcpt string) error {
	for deadline := time.Now().Add(deliveryLimit); ; time.Sleep(20 * time.Millisecond) {
		copies, err := w.foreignCopies(id, rcpt)
		if err != nil {
			return err
		}
		if copies == 1 {
			w.report(arrow, "delivery to <"+rcpt+">", "arrived once")
			return nil
		}
		if copies > 1 || time.Now().After(deadline) {
			return fmt.Errorf("the foreign server has %d copies for %s", copies, rcpt)
		}
	}
}

// foreignCopies counts the complete copies of message id.
func (w *walker) foreignCopies(id, rcpt string) (copies int, err error) {
	all, err := w.Foreign()
	if err != nil {
		return 0, err
	}
	for _, text := range all {
		if !strings.Contains(text, "Message-ID: <"+id+">") || !strings.Contains(text, strings.ReplaceAll(body, "\r\n", "\n")) {
			continue
		}
		if !strings.Contains(text, "X-Rcpt-Args: <"+rcpt+">") {
			return 0, fmt.Errorf("the foreign server got it for somebody else than %s: %q", rcpt, text)
		}
		copies++
	}
	return copies, nil
}

// doveadm asks the same system with the administrator's tool.
func (w *walker) doveadm() error {
	users, err := w.Doveadm("user", "*")
	if err != nil {
		return err
	}
	list := strings.Fields(users)
	w.report("administrator → Dovecot → authd → MySQL", "doveadm user '*'", strings.Join(list, " "))
	for _, u := range Options(w.Flavour).Users {
		if !strings.Contains(" "+strings.Join(list, " ")+" ", " "+u.Email+" ") {
			return fmt.Errorf("doveadm user '*' does not list %s: %q", u.Email, users)
		}
	}
	fields, err := w.Doveadm("user", "alice@example.net")
	if err != nil {
		return err
	}
	home := filepath.Join(w.MailRoot(), "example.net", "alice")
	_, rows, _ := strings.Cut(fields, "\n") // below the headings
	w.report("administrator → Dovecot → authd → MySQL", "doveadm user alice@example.net", strings.Join(strings.Fields(rows), " "))
	if !strings.Contains(fields, home+"\n") {
		return fmt.Errorf("doveadm user: home is not %s: %q", home, fields)
	}
	auth, err := w.Doveadm("auth", "test", "alice@example.net", Password("alice"))
	if err != nil {
		return err
	}
	w.report("administrator → Dovecot → authd → MySQL", "doveadm auth test alice@example.net", strings.Split(auth, "\n")[0])
	if _, err := w.Doveadm("auth", "test", "alice@example.net", "wrong"); err == nil {
		return errors.New("doveadm auth test accepts a wrong password")
	}
	return w.quota()
}

// quota compares doveadm's figures with the database's.
func (w *walker) quota() error {
	text, err := w.Doveadm("-f", "tab", "quota", "get", "-u", "alice@example.net")
	if err != nil {
		return err
	}
	for line := range strings.Lines(text) {
		if fields := strings.Split(strings.TrimSpace(line), "\t"); len(fields) >= 4 && fields[1] == "STORAGE" {
			w.report("administrator → Dovecot → authd → MySQL", "doveadm quota get -u alice@example.net", fmt.Sprintf("STORAGE %s of %s KiB", fields[2], fields[3]))
			if fields[3] != fmt.Sprint(1<<20) || fields[2] == "0" {
				return fmt.Errorf("doveadm quota get: %q", text)
			}
			return nil
		}
	}
	return fmt.Errorf("doveadm quota get: no STORAGE in %q", text)
}
