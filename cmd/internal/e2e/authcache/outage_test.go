package authcache

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// outage is how long the database is away; DOVEPOST_LONG=1 makes it a minute.
func outage() time.Duration {
	if os.Getenv("DOVEPOST_LONG") != "" {
		return time.Minute
	}
	return 6 * time.Second
}

// submit sends a message to oneself through the submission port, with a login.
func submit(name, subject string) error {
	c, err := submission()
	if err != nil {
		return err
	}
	defer c.Close()
	if reply, err := c.AuthPlain(address(name), "secret-"+name); err != nil || !reply.OK() {
		return &refused{reply.String(), err}
	}
	return c.Send(address(name), address(name), "Subject: "+subject+"\n\ntext\n")
}

type refused struct {
	reply string
	err   error
}

func (r *refused) Error() string {
	if r.err != nil {
		return r.err.Error()
	}
	return r.reply
}

// TestOutage: whoever was seen before logs in and submits mail while the database is
// away, nobody is told that a password is wrong, and when it is back all is as before.
func TestOutage(t *testing.T) {
	for _, tt := range []struct {
		name       string
		begin, end func() error
	}{
		{"stopped", mail.DB.Stop, mail.DB.Start},
		{"killed", mail.DB.Kill, mail.DB.Start},
		{"frozen", func() error { return mail.DB.Signal(syscall.SIGSTOP) }, func() error { return mail.DB.Signal(syscall.SIGCONT) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			expect(t, "before", "seen", "secret-seen", ok)
			if err := submit("seen", "before"); err != nil {
				t.Fatal(err)
			}
			if err := tt.begin(); err != nil {
				t.Fatal(err)
			}
			rounds := 0
			for began := time.Now(); time.Since(began) < outage(); rounds++ {
				expect(t, "away", "seen", "secret-seen", ok)
				expect(t, "away, another password", "seen", "another", later)
				expect(t, "away", "unseen", "secret-unseen", later)
				if err := submit("seen", "away"); err != nil {
					t.Errorf("mail of one who was seen: %v", err)
				}
			}
			t.Logf("%d rounds in %v", rounds, outage())
			if err := tt.end(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
			eventually(t, 20*time.Second, "the database is back", func() error {
				if got := login("imap", address("seen"), "another"); got != no {
					return errors.New(got)
				}
				return nil
			})
			expect(t, "back", "seen", "secret-seen", ok)
			expect(t, "back", "seen", "another", no)
			expect(t, "back", "nobody", "secret", no)
		})
	}
	expect(t, "in the end", "unseen", "secret-unseen", ok)
}

// TestDenied: a server that refuses the statements at run time is as good as none.
func TestDenied(t *testing.T) {
	expect(t, "before", "denied", "secret-denied", ok)
	// An open connection keeps the rights for the database that it has begun with.
	query(t, "REVOKE SELECT ON maildb.* FROM mailuser@'127.0.0.1'")
	kill(t)
	defer kill(t)
	defer query(t, "GRANT SELECT ON maildb.* TO mailuser@'127.0.0.1'")
	time.Sleep(2 * time.Second)
	expect(t, "denied", "denied", "secret-denied", ok)
	expect(t, "denied", "denied", "another", later)
	expect(t, "denied", "nobody", "another", later)
}

// kill ends the connections of the daemons one by one, as MySQL knows it, too.
func kill(t *testing.T) {
	t.Helper()
	for id := range strings.Lines(query(t, "SELECT id FROM information_schema.processlist WHERE user = 'mailuser'")) {
		mail.DB.Exec("KILL " + id) // it may have ended by itself
	}
}

// TestSchemaGone: so is one whose tables are not there any more.
func TestSchemaGone(t *testing.T) {
	expect(t, "before", "denied", "secret-denied", ok)
	query(t, "RENAME TABLE accounts TO elsewhere")
	defer query(t, "RENAME TABLE elsewhere TO accounts")
	time.Sleep(2 * time.Second)
	expect(t, "no table", "denied", "secret-denied", ok)
	expect(t, "no table", "nobody", "another", later)
}
