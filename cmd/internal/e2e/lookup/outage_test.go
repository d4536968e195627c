package lookup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"dovepost/cmd/internal/stack"
	"dovepost/cmd/internal/stack/mailclient"
)

// outage is how long the database is away: 60 s with DOVEPOST_LONG=1.
func outage() time.Duration {
	if os.Getenv("DOVEPOST_LONG") == "1" {
		return time.Minute
	}
	return 10 * time.Second
}

const outageCF = `mydestination =
local_recipient_maps =
virtual_transport = discard:
default_transport = discard:
recipient_delimiter = +
smtpd_relay_restrictions = reject_unauth_destination
in_flow_delay = 0
mynetworks = 127.0.0.2/32
virtual_alias_domains =
virtual_mailbox_domains = socketmap:unix:dovepost/lookup:virtual_mailbox_domains
virtual_mailbox_maps = socketmap:unix:dovepost/lookup:virtual_mailbox_maps
virtual_alias_maps = socketmap:unix:dovepost/lookup:virtual_alias_maps
`

// away: the database is away while Postfix gets 500 messages to addresses
// that it has seen before, be they mailboxes, aliases, extensions or caught by a
// catch-all. Not one is refused or deferred, and what does not exist is still refused.
func away(t *testing.T, db *stack.MariaDB) {
	must(t, db.Exec(`DROP DATABASE IF EXISTS outage; CREATE DATABASE outage; USE outage; DROP USER IF EXISTS outage@127.0.0.1;
		CREATE USER outage@127.0.0.1 IDENTIFIED BY 'secret2'; GRANT SELECT ON outage.* TO outage@127.0.0.1;
		CREATE TABLE domains (domain VARCHAR(255) PRIMARY KEY);
		CREATE TABLE users (email VARCHAR(255) PRIMARY KEY, password VARCHAR(255), quota BIGINT NOT NULL DEFAULT 0);
		CREATE TABLE alias (address VARCHAR(255) PRIMARY KEY, goto TEXT NOT NULL);
		INSERT INTO domains VALUES ('example.com'), ('example.net');
		INSERT INTO users (email) SELECT CONCAT('user', seq, '@example.com') FROM `+numbers(100)+`;
		INSERT INTO alias SELECT CONCAT('team', seq, '@example.com'), CONCAT('user', seq, '@example.com,user', seq+1, '@example.com') FROM `+numbers(99)+`;
		INSERT INTO alias VALUES ('@example.net', 'user0@example.com')`))
	dir := newDir(t, "outage")
	mysql := filepath.Join(dir, "mysql.cf")
	must(t, os.WriteFile(mysql, fmt.Appendf(nil, "hosts = %s\nuser = outage\npassword = secret2\ndbname = outage\n", db.Addr()), 0o600))
	start(t, dir, filepath.Join(dir, "postfix/spool/dovepost/lookup"), "--mysql="+mysql, "--recipient_delimiter=+")
	postfix, err := stack.StartPostfix(dir, outageCF, nil)
	must(t, err)
	defer func() { must(t, postfix.Stop()) }()

	var recipients []string
	for n := range 25 {
		recipients = append(recipients, fmt.Sprintf("user%d@example.com", n), fmt.Sprintf("User%d+ext@example.com", n),
			fmt.Sprintf("team%d@example.com", n), fmt.Sprintf("anybody%d@example.net", n))
	}
	const rounds = 5
	unknown := []string{"nobody@example.com", "nobody+ext@example.com"}
	send(t, postfix, recipients, unknown, 0)
	must(t, db.Stop())
	began := time.Now()
	for range rounds {
		send(t, postfix, recipients, unknown, outage()/time.Duration(rounds*len(recipients)))
	}
	took := time.Since(began)
	must(t, db.Start())
	must(t, postfix.WaitQueue(time.Minute))
	messages := (rounds + 1) * len(recipients)
	deliveries := messages * 5 / 4 // an alias has two recipients
	text, err := postfix.WaitLog(time.Minute, "status=sent", deliveries)
	must(t, err)
	if received := strings.Count(text, ": message-id=<"); received != messages {
		t.Errorf("%d messages received, want %d", received, messages)
	}
	if sent := strings.Count(text, "status=sent"); sent != deliveries {
		t.Errorf("%d times sent, want %d", sent, deliveries)
	}
	refused := 0
	for _, bad := range []string{"status=deferred", "status=bounced", "NOQUEUE: reject: RCPT from unknown[127.0.0.1]: 4"} {
		if n := strings.Count(text, bad); n > 0 {
			refused += n
			t.Errorf("%d times %q in the log", n, bad)
		}
	}
	t.Logf("the database was away for %v and %d messages, %d times one was refused or deferred", took.Round(time.Second), rounds*len(recipients), refused)
	if t.Failed() {
		for line := range strings.Lines(text) {
			if strings.Contains(line, "warning: ") {
				t.Log(line)
			}
		}
		t.Log(lastLines(postfix.MailLog(), 30))
	}
}

// send sends one message to each recipient, one every pause, in four sessions at a
// time. Those that are unknown must be refused.
func send(t *testing.T, postfix *stack.Postfix, recipients, unknown []string, pause time.Duration) {
	t.Helper()
	tick := make(chan string)
	var g errgroup.Group
	for range 4 {
		g.Go(func() (err error) {
			defer func() {
				for range tick { // after an error
				}
			}()
			c, err := mailclient.DialSMTP(postfix.Addr(0))
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.Must("EHLO client.example"); err != nil {
				return err
			}
			for to := range tick {
				if err := c.Send("sender@remote.example", to, "Subject: outage\n\nx\n"); err != nil {
					return err
				}
			}
			for _, to := range unknown {
				reply, err := c.Rcpt("sender@remote.example", to)
				if err != nil || reply.Code != 550 {
					return fmt.Errorf("%s: %v, %v; want 550", to, reply, err)
				}
				if err := c.Must("RSET"); err != nil {
					return err
				}
			}
			return c.Must("QUIT")
		})
	}
	for _, to := range recipients {
		tick <- to
		time.Sleep(pause)
	}
	close(tick)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
