package walk

import (
	"errors"
	"fmt"
	"strings"

	"dovepost/cmd/internal/stack/mailclient"
)

// session lets alice do with a message what users do: read, mark, move, delete,
// answer.
func (w *walker) session() error {
	id, err := w.send("alice@example.net", "a question")
	if err != nil {
		return err
	}
	c, err := w.login("alice")
	if err != nil {
		return err
	}
	defer c.Close()
	w.report("mail client → Dovecot → authd → MySQL", "IMAP LOGIN alice@example.net", "OK")
	if _, err := c.Must("CREATE Archive"); err != nil {
		return err
	}
	if err := w.arrange(c, id); err != nil {
		return err
	}
	// The answer goes out by submission, and its copy to a folder.
	answerID, answer := message("alice@example.net", outsider, "Re: a question")
	if err := w.submitAs("alice", outsider, answer); err != nil {
		return err
	}
	if err := w.foreign("Postfix → foreign server", answerID, outsider); err != nil {
		return err
	}
	if err := c.Append("Archive", answer); err != nil {
		return err
	}
	found, err := c.Find("HEADER Message-ID " + answerID)
	if err != nil || len(found) != 1 {
		return errors.Join(err, fmt.Errorf("APPEND: %d copies of the answer in Archive", len(found)))
	}
	w.report("user → mail client → Dovecot", "APPEND of the answer to Archive", "OK")
	// The walk leaves nothing that would be in its way when it is done again.
	for _, command := range []string{"SELECT INBOX", "DELETE Archive"} {
		if _, err := c.Must("%s", command); err != nil {
			return err
		}
	}
	return c.Logout()
}

// arrange marks, moves and deletes message id, and looks each time whether it is so.
func (w *walker) arrange(c *mailclient.IMAP, id string) error {
	criteria := "HEADER Message-ID " + id
	for _, step := range []struct {
		name, command string // %s is the message's number
		criteria      string
		want          int
	}{
		{"SELECT INBOX", "SELECT INBOX", criteria + " UNSEEN", 1},
		{"read the message", "FETCH %s BODY[]", criteria + " SEEN", 1},
		{"mark it as important", `STORE %s +FLAGS (\Flagged)`, criteria + " FLAGGED", 1},
		{"move it to Archive", "MOVE %s Archive", criteria, 0},
		{"SELECT Archive", "SELECT Archive", criteria + " SEEN FLAGGED", 1},
		{"delete it", `STORE %s +FLAGS (\Deleted)`, criteria + " DELETED", 1},
		{"expunge", "EXPUNGE", criteria, 0},
	} {
		command := step.command
		if strings.Contains(command, "%s") {
			found, err := c.Find(criteria)
			if err != nil || len(found) != 1 {
				return errors.Join(err, fmt.Errorf("before %q: %d messages", step.name, len(found)))
			}
			command = fmt.Sprintf(command, found[0])
		}
		answer, err := c.Must("%s", command)
		if err != nil {
			return err
		}
		found, err := c.Find(step.criteria)
		if err != nil || len(found) != step.want {
			return errors.Join(err, fmt.Errorf("after %q: %d messages meet %q, want %d", step.name, len(found), step.criteria, step.want))
		}
		w.report("user → mail client → Dovecot", step.name, answer.String())
	}
	return nil
}

// submission connects a mail client of a user to the submission port.
func (w *walker) submission() (*mailclient.SMTP, error) {
	c, err := mailclient.DialSMTP(w.SubmissionAddr)
	if err != nil {
		return nil, err
	}
	if err := c.StartTLS(w.Roots); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// submitAs logs in at the submission port and sends a message.
func (w *walker) submitAs(owner, rcpt, text string) error {
	c, err := w.submission()
	if err != nil {
		return err
	}
	defer c.Close()
	user := owner + "@example.net"
	reply, err := c.AuthPlain(user, Password(owner))
	if err != nil || reply.Code != 235 {
		return errors.Join(err, fmt.Errorf("AUTH PLAIN: %v", reply))
	}
	w.report("mail client → Postfix → authd → MySQL", "AUTH PLAIN "+user, reply.String())
	if reply, err = c.Rcpt(user, rcpt); err != nil || reply.Code != 250 {
		return errors.Join(err, fmt.Errorf("RCPT: %v", reply))
	}
	w.report("mail client → Postfix → lookupd → MySQL", "MAIL FROM:<"+user+"> RCPT TO:<"+rcpt+">", reply.String())
	if reply, err = c.Data(text); err != nil || reply.Code != 250 {
		return errors.Join(err, fmt.Errorf("DATA: %v", reply))
	}
	w.report("mail client → Postfix", "DATA", reply.String())
	if err := c.Quit(); err != nil {
		return err
	}
	return w.WaitQueue(deliveryLimit)
}

// refuseLogins tries a wrong password and an unknown user everywhere.
func (w *walker) refuseLogins() error {
	for _, tt := range []struct{ what, user, password string }{
		{"wrong password", "alice@example.net", "wrong"},
		{"unknown user", "nobody@example.net", Password("nobody")},
	} {
		imap, err := mailclient.DialIMAP(w.IMAPAddr, w.Roots)
		if err != nil {
			return err
		}
		defer imap.Close()
		answer, err := imap.Login(tt.user, tt.password)
		if err != nil {
			return err
		}
		w.report("mail client → Dovecot → authd → MySQL", "IMAP LOGIN, "+tt.what, answer.String())
		if !strings.HasPrefix(answer.String(), "NO [AUTHENTICATIONFAILED]") {
			return fmt.Errorf("IMAP %s: %v", tt.what, answer)
		}

		pop3, err := mailclient.DialPOP3(w.POP3Addr, w.Roots)
		if err != nil {
			return err
		}
		defer pop3.Close()
		line, err := pop3.Login(tt.user, tt.password)
		if err != nil {
			return err
		}
		w.report("mail client → Dovecot → authd → MySQL", "POP3 USER and PASS, "+tt.what, line)
		if !strings.HasPrefix(line, "-ERR [AUTH]") {
			return fmt.Errorf("POP3 %s: %s", tt.what, line)
		}

		smtp, err := w.submission()
		if err != nil {
			return err
		}
		defer smtp.Close()
		reply, err := smtp.AuthLogin(tt.user, tt.password)
		if err != nil {
			return err
		}
		w.report("mail client → Postfix → authd → MySQL", "AUTH LOGIN, "+tt.what, reply.String())
		if !strings.HasPrefix(reply.String(), "535 5.7.8 ") {
			return fmt.Errorf("SMTP %s: %v", tt.what, reply)
		}
	}
	return nil
}

// submit sends through the submission port, and tries to abuse it.
func (w *walker) submit() error {
	id, text := message("bob@example.net", outsider, "hello")
	if err := w.submitAs("bob", outsider, text); err != nil {
		return err
	}
	if err := w.foreign("Postfix → foreign server", id, outsider); err != nil {
		return err
	}
	for _, tt := range []struct {
		name  string
		login bool
		want  string
	}{
		{"relay without a login", false, "554 5.7.1 "},
		{"somebody else's sender address", true, "553 5.7.1 "},
	} {
		c, err := w.submission()
		if err != nil {
			return err
		}
		defer c.Close()
		if tt.login {
			if reply, err := c.AuthPlain("bob@example.net", Password("bob")); err != nil || reply.Code != 235 {
				return errors.Join(err, fmt.Errorf("AUTH PLAIN: %v", reply))
			}
		}
		reply, err := c.Rcpt("alice@example.net", outsider)
		if err != nil {
			return err
		}
		w.report("mail client → Postfix → lookupd → MySQL", tt.name, reply.String())
		if !strings.HasPrefix(reply.String(), tt.want) {
			return fmt.Errorf("%s: %v, want %s", tt.name, reply, tt.want)
		}
	}
	return nil
}
