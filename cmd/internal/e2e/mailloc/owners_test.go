package mailloc

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

const (
	several = "a@example.net:{plain}x:7001:7001::AREA/a::\nb@example.net:{plain}x:7002:7002::AREA/b::\n" +
		"c@example.net:{plain}x:7001:7100::AREA/c::\nme@example.net:{plain}x:5000:5000::AREA/me::\n"
	toA = "<a@example.net>"
)

// TestOwners: with two capabilities lmtpd stores mail as the user whose it is, and a home
// that is not that user's stays closed.
func TestOwners(t *testing.T) {
	s := newSite(t, config{location: "maildir:~/Maildir", settings: map[string]string{"lmtp_save_to_detail_mailbox": "yes"},
		users: several, caps: "setuid setgid"})
	s.compare(nil, message("one", toA), message("all", toA, "<b@example.net>", "<me@example.net>"), message("another group", "<c@example.net>"),
		message("folders", "<a+Work@example.net>", "<b+Work@example.net>"))

	s.wipe()
	for path, uid := range map[string]int{"/a": 7001, "/b": 7001} { // b's home is a's
		if err := errors.Join(os.Mkdir(s.area+path, 0o700), os.Chown(s.area+path, uid, uid)); err != nil {
			t.Fatal(err)
		}
	}
	replies := s.ours(message("closed", toA, "<b@example.net>"))
	if !strings.Contains(replies, "250 2.0.0 <a@example.net> ID Saved\n451 4.2.0 <b@example.net> ") {
		t.Errorf("replies: %s", replies)
	}
	for _, line := range s.tree() {
		if strings.HasPrefix(line, "/b/") {
			t.Errorf("in a home of somebody else: %s", line)
		}
	}
}

// TestOwnersRefused: without the capabilities only lmtpd's own users get mail; that of the
// others waits, and the log says for what.
func TestOwnersRefused(t *testing.T) {
	for _, caps := range []string{"", "setuid", "setgid"} {
		t.Run("with "+caps, func(t *testing.T) {
			s := newSite(t, config{location: "maildir:~/Maildir", users: several, caps: caps, ours: []string{"--mail_uid=7001"}})
			replies := s.ours(message("x", "<a@example.net>", "<me@example.net>", "<c@example.net>"))
			want := "451 4.2.0 <a@example.net> Internal error occurred. Refer to server log for more information. [DATE]\n" +
				"250 2.0.0 <me@example.net> ID:R2 Saved\n451 4.2.0 <c@example.net> "
			if !strings.Contains(replies, want) {
				t.Errorf("replies:\n%s", replies)
			}
			for _, line := range s.tree() {
				if !strings.HasPrefix(line, "/me") {
					t.Errorf("stored: %s", line)
				}
			}
			log := s.log()
			for _, text := range []string{"level=WARN", "result=temp", "needs CAP_SETUID and CAP_SETGID"} {
				if !strings.Contains(log, text) {
					t.Errorf("the log lacks %q:\n%s", text, log)
				}
			}
		})
	}
}

// TestUserdb: what Dovecot's auth-userdb says of a user holds two seconds later, and while
// nobody answers there the last answer does.
func TestUserdb(t *testing.T) {
	row := func(uid, home string) string {
		return "a@example.net:{plain}x:" + uid + ":" + uid + "::AREA/" + home + "::\n"
	}
	s := newSite(t, config{location: "maildir:~/Maildir", users: row("7001", "old"), caps: "setuid setgid", ours: []string{"--cache_fresh=2s", "--lookup_timeout=3s"}})
	expect := func(what, rcpt, reply string) {
		t.Helper()
		if replies := s.ours(message(what, rcpt)); !strings.Contains(replies, reply) {
			t.Errorf("%s: want %q in:\n%s", what, reply, replies)
		}
	}
	stored := func(home, owner string) (n int) {
		for _, line := range s.tree() {
			if strings.HasPrefix(line, "/"+home+"/Maildir/new/MESSAGE") && strings.Contains(line, " "+owner+" ") {
				n++
			}
		}
		return n
	}
	expect("before", toA, "250 2.0.0 <a@example.net> ID Saved")
	s.write("users", row("7002", "new")+"# another size: Dovecot looks at that and at the second\n")
	changed := time.Now()
	for stored("new", "7002:7002") == 0 {
		if time.Since(changed) > time.Minute {
			t.Fatal("another home is not seen")
		}
		expect("changed", toA, "250 2.0.0 <a@example.net> ID Saved")
		time.Sleep(100 * time.Millisecond)
	}
	if took := time.Since(changed); took > 15*time.Second {
		t.Errorf("another home is seen after %v", took)
	}
	expect("nobody", "<nobody@example.net>", "550 5.1.1 <nobody@example.net> User doesn't exist: nobody@example.net")

	s.dovecot.kill()
	time.Sleep(2100 * time.Millisecond) // no row is fresh
	was := stored("new", "7002:7002")
	expect("away", toA, "250 2.0.0 <a@example.net> ID Saved")
	if n := stored("new", "7002:7002"); n != was+1 {
		t.Errorf("while nobody answers %d messages came; want 1", n-was)
	}
	expect("away", "<nobody@example.net>", "451 4.3.0 <nobody@example.net> Temporary internal error")
	expect("away", "<unseen@example.net>", "451 4.3.0 <unseen@example.net> Temporary internal error")
}
