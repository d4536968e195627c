package quota

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
)

// both runs a test with either backend.
func both(t *testing.T, f func(t *testing.T, s *stack.Stack, virtual bool)) {
	t.Run("count", func(t *testing.T) { f(t, counted, true) })
	t.Run("maildir", func(t *testing.T) { f(t, sized, false) })
}

// Dovecot counts what lmtpd delivers, folder by folder, and does not count what is ignored.
func TestCounted(t *testing.T) {
	both(t, func(t *testing.T, s *stack.Stack, virtual bool) {
		for _, rcpt := range []string{"count", "count+Work", "count+Trash", "count+Spam", "count+Work"} {
			sendOK(t, s, address(rcpt), kilobytes(7))
		}
		sendOK(t, s, address("count"), "X-Spam: yes\n\n"+kilobytes(3))
		size, vsize := stored(t, s, "count", "", ".Work", ".Trash", ".Junk")
		want := size
		if virtual {
			want = vsize
		}
		if got := used(t, s, "count"); int64(got) != (want+1023)/1024 {
			t.Errorf("Dovecot says %d KiB; %d octets are there", got, want)
		}
	})
}

// A limit, its grace, more room in Trash, none needed in Spam; what the user removes makes room.
func TestRules(t *testing.T) {
	both(t, func(t *testing.T, s *stack.Stack, _ bool) {
		fill := func(rcpt string) (n int) {
			for ; n < 30; n++ {
				if reply := send(t, s, address(rcpt), kilobytes(5)); strings.HasPrefix(reply, "552 5.2.2 <"+address(rcpt)+"> Quota exceeded (mailbox for user is full)") {
					return n
				} else if !strings.HasPrefix(reply, "250 ") {
					t.Fatal(reply)
				}
			}
			return n
		}
		inbox := fill("box")
		if inbox < 7 || inbox > 9 { // 40 KiB and 4 of grace, and headers
			t.Errorf("%d messages of 5 KiB fit into 40 KiB", inbox)
		}
		// Dovecot has the same limits for the same mailboxes.
		c := login(t, s, "box", "")
		must(t, c, "CREATE Trash")
		text := strings.ReplaceAll(kilobytes(5), "\n", "\r\n")
		if a, err := c.Cmd("APPEND Trash {%d+}\r\n%s", len(text), text); err != nil || !a.OK() {
			t.Errorf("APPEND to Trash beyond the limit: %v, %v", a, err)
		}
		if a, err := c.Cmd("APPEND INBOX {%d+}\r\n%s", len(text), text); err != nil || a.OK() {
			t.Errorf("Dovecot takes a message for INBOX as well: %v, %v", a, err)
		}
		doveadm(t, s, "expunge", "-u", address("box"), "mailbox", "INBOX", "1:4")
		sendOK(t, s, address("box"), kilobytes(5))
		fill("box")
		before := used(t, s, "box")
		doveadm(t, s, "quota", "recalc", "-u", address("box"))
		if after := used(t, s, "box"); before != after {
			t.Errorf("%d KiB, and %d when Dovecot counts anew", before, after)
		}
	})
}

// Mail for a mailbox with other rules: 60 KiB, 6 of grace, 20 more in Trash.
func TestMailboxRules(t *testing.T) {
	both(t, func(t *testing.T, s *stack.Stack, _ bool) {
		for _, step := range []struct {
			box, code string
			size      int
		}{
			{"", "250", 50}, {"+Spam", "250", 200}, {"+Trash", "250", 8}, {"", "552", 20}, {"+Trash", "250", 20}, {"+Trash", "250", 5}, {"+Trash", "552", 5}, {"+Spam", "250", 5},
		} {
			if reply := send(t, s, address("odd"+step.box), kilobytes(step.size)); !strings.HasPrefix(reply, step.code) {
				t.Errorf("%d KiB to odd%s: %s; want %s", step.size, step.box, reply, step.code)
			}
		}
	})
}

// A user without room, or a message that is larger than he can ever have, is refused at RCPT.
func TestRcpt(t *testing.T) {
	both(t, func(t *testing.T, s *stack.Stack, _ bool) {
		const full = "552 5.2.2 <rcpt@example.net> Quota exceeded (mailbox for user is full)"
		ask := func(mail, want string) {
			t.Helper()
			c, err := dial(s)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if reply, err := c.cmd("MAIL FROM:<a@b.test>" + mail); err != nil || !strings.HasPrefix(reply, "250") {
				t.Fatal(reply, err)
			}
			if reply, err := c.cmd("RCPT TO:<rcpt@example.net>"); err != nil || !strings.HasPrefix(reply, want) {
				t.Errorf("MAIL%s: %s, %v; want %s", mail, reply, err, want)
			}
		}
		ask("", "250")
		ask(" SIZE=20000", "250")
		ask(" SIZE=22600", "250") // its lines may be short
		ask(" SIZE=100000", full)
		ask(" SIZE=3000000", "552 5.2.3 <rcpt@example.net> Message size exceeds administrative limit")
		sendOK(t, s, address("rcpt"), kilobytes(21))
		ask("", full)
		ask(" SIZE=10", full)
	})
}

func TestMaxMailSize(t *testing.T) {
	both(t, func(t *testing.T, s *stack.Stack, _ bool) {
		sendOK(t, s, address("max"), kilobytes(950))
		want := "552 5.2.3 <max@example.net> Message size exceeds administrative limit"
		if reply := send(t, s, address("max"), kilobytes(1100)); reply != want {
			t.Errorf("%s; want %s", reply, want)
		}
	})
}

// said returns what the script has been told with these words.
func said(words ...string) string {
	text, _ := os.ReadFile(filepath.Join(scratch, strings.Join(words, ".")))
	return string(text)
}

// A program, Dovecot's own script service and a message warn the user, each once for a crossing.
func TestWarnings(t *testing.T) {
	both(t, func(t *testing.T, s *stack.Stack, _ bool) {
		os.Remove(filepath.Join(scratch, "program."+address("mail")))
		os.Remove(filepath.Join(scratch, "script."+address("mail")))
		add := func(n int) {
			t.Helper()
			for range n {
				sendOK(t, s, address("mail"), kilobytes(500))
			}
		}
		notices := func() int {
			return strings.Count(doveadm(t, s, "fetch", "-u", address("mail"), "hdr.subject", "mailbox", "INBOX"), "almost full")
		}
		add(3)
		if said("script", address("mail")) != "" || notices() != 0 {
			t.Error("warned at 1500 of 4000 KiB")
		}
		add(1)
		waitFor(t, "Dovecot's script service", func() bool { return said("script", address("mail")) == "script mail@example.net\n" })
		add(1)
		waitFor(t, "the message", func() bool { return notices() == 1 })
		add(1)
		waitFor(t, "the program", func() bool { return said("program", address("mail")) == "program mail@example.net\n" })
		add(1)
		// Down and up again is another crossing.
		doveadm(t, s, "expunge", "-u", address("mail"), "mailbox", "INBOX", "1:4")
		if s == sized {
			doveadm(t, s, "quota", "recalc", "-u", address("mail"))
		}
		add(2)
		waitFor(t, "the second message and script", func() bool { return strings.Count(said("script", address("mail")), "\n")+notices() == 4 })
	})
}

// 32 sessions fill one mailbox: together they exceed the limit by no more than the grace, and Dovecot
// counts what they were told.
func TestMany(t *testing.T) {
	both(t, func(t *testing.T, s *stack.Stack, _ bool) {
		const sessions, size, limit = 32, 23, 2000
		var wg sync.WaitGroup
		var mu sync.Mutex
		codes := map[string]int{}
		text := kilobytes(size)
		for range sessions {
			wg.Go(func() {
				c, err := dial(s)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				for {
					reply, err := c.send(address("many"), text)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					codes[reply[:9]]++
					mu.Unlock()
					if strings.HasPrefix(reply, "552 ") {
						return
					}
				}
			})
		}
		wg.Wait()
		got, saved := used(t, s, "many"), codes["250 2.0.0"]
		if got < limit || got > limit+limit/10 {
			t.Errorf("%d KiB of %d are used", got, limit)
		}
		if got < saved*size || codes["552 5.2.2"] != sessions {
			t.Errorf("%v, and %d KiB are used", codes, got)
		}
		t.Logf("%v, %d KiB of %d", codes, got, limit)
	})
}

// A maildirsize that vanishes, is damaged, or is written anew by Dovecot while lmtpd appends to it and the
// user removes mail: in the end it says what is there.
func TestHeals(t *testing.T) {
	path := filepath.Join(sized.MailRoot(), domain, "heal/Maildir/maildirsize")
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			c, err := dial(sized)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for {
				select {
				case <-stop:
					return
				default:
				}
				if reply, err := c.send(address("heal"), kilobytes(1)); err != nil || !strings.HasPrefix(reply, "250 ") {
					t.Error(reply, err)
					return
				}
			}
		})
	}
	for i := range 12 {
		time.Sleep(30 * time.Millisecond)
		switch i % 4 {
		case 0:
			os.Remove(path)
		case 1:
			os.WriteFile(path, []byte("garbage\n"), 0o600)
		case 2:
			doveadm(t, sized, "quota", "recalc", "-u", address("heal"))
		case 3:
			doveadm(t, sized, "expunge", "-u", address("heal"), "mailbox", "INBOX", "1:5")
		}
	}
	close(stop)
	wg.Wait()
	// The races of the format heal when it is counted again, which a damaged file asks for.
	if err := os.WriteFile(path, []byte("garbage\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sendOK(t, sized, address("heal"), kilobytes(1))
	size, _ := stored(t, sized, "heal", "")
	if got := used(t, sized, "heal"); int64(got) != (size+1023)/1024 {
		text, _ := os.ReadFile(path)
		t.Errorf("Dovecot says %d KiB; %d octets are there\n%s", got, size, text)
	}
}
