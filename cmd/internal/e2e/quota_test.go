package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"dovepost/cmd/internal/stack"
	"dovepost/cmd/internal/stack/mailclient"
)

// TestQuota fills a mailbox. The LMTP server refuses what is too much, Dovecot
// counts the same octets, and what the user expunges makes room.
func TestQuota(t *testing.T) {
	const limit = 40 // KiB
	user := unique("full") + "@example.net"
	err := mail.DB.Exec(fmt.Sprintf("INSERT INTO maildb.users (email, password, quota) VALUES (%s, %s, %d)",
		stack.Quote(user), stack.Quote("{PLAIN}"+password(user)), limit))
	if err != nil {
		t.Fatal(err)
	}
	defer mail.DB.Exec("DELETE FROM maildb.users WHERE email = " + stack.Quote(user))

	text := "Subject: filling\n\n" + strings.Repeat(strings.Repeat("x", 62)+"\n", 80) // 5 KiB
	delivered := 0
	var refusal mailclient.Reply
	for refusal.Code == 0 && delivered < limit {
		reply, err := lmtpSend(user, text)
		switch {
		case err != nil:
			t.Fatal(err)
		case reply.Code == 250:
			delivered++
		default:
			refusal = reply
		}
	}
	if !strings.HasPrefix(refusal.String(), "552 5.2.2 ") {
		t.Errorf("after %d messages: %v; want 552 5.2.2", delivered, refusal)
	}
	if delivered < limit/6 || delivered > limit/5+1 {
		t.Errorf("%d messages of 5 KiB fit into %d KiB", delivered, limit)
	}
	before := storage(t, user)
	if _, err := mail.Doveadm("quota", "recalc", "-u", user); err != nil {
		t.Fatal(err)
	}
	if after := storage(t, user); before != after {
		t.Errorf("usage is %s KiB, and %s when Dovecot counts anew", before, after)
	}
	if _, err := mail.Doveadm("expunge", "-u", user, "mailbox", "INBOX", "all"); err != nil {
		t.Fatal(err)
	}
	if reply, err := lmtpSend(user, text); err != nil || reply.Code != 250 {
		t.Errorf("after the user made room: %v, %v", reply, err)
	}
}

// storage returns what doveadm says is used, in KiB.
func storage(t *testing.T, user string) string {
	t.Helper()
	text, err := mail.Doveadm("-f", "tab", "quota", "get", "-u", user)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if fields := strings.Split(line, "\t"); len(fields) > 2 && fields[1] == "STORAGE" {
			return fields[2]
		}
	}
	t.Fatalf("no STORAGE in %q", text)
	return ""
}

// lmtpSend delivers one message and returns the last reply, of RCPT or of DATA.
func lmtpSend(user, text string) (mailclient.Reply, error) {
	c, err := mailclient.DialSMTP(mail.LMTPAddr)
	if err != nil {
		return mailclient.Reply{}, err
	}
	defer c.Quit()
	if err := c.Must("LHLO test.client"); err != nil {
		return mailclient.Reply{}, err
	}
	reply, err := c.Rcpt("sender@remote.example", user)
	if err != nil || !reply.OK() {
		return reply, err
	}
	return c.Data(text)
}

// TestWayBack delivers through Dovecot's own LMTP, which stays where it was: it
// asks authd for the user, and finds the same mailbox.
func TestWayBack(t *testing.T) {
	user, subject := loadUser(6), unique("way-back")
	c, err := mailclient.DialSMTP(filepath.Join(mail.Spool(), "private/dovecot-lmtp"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Must("LHLO test.client"); err != nil {
		t.Fatal(err)
	}
	if err := c.Send("sender@remote.example", user, "Subject: "+subject+"\n\nback\n"); err != nil {
		t.Fatal(err)
	}
	if n, err := copies(user, subject); err != nil || n != 1 {
		t.Errorf("%d copies, %v; want 1", n, err)
	}
	if err := c.Must("MAIL FROM:<>"); err != nil {
		t.Fatal(err)
	}
	reply, err := c.Cmd("RCPT TO:<%s@example.net>", unique("nobody"))
	if err := begins("an unknown user", reply.String(), err, "550 5.1.1 "); err != nil {
		t.Error(err)
	}
}
