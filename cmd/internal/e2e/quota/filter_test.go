package quota

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
	"dovepost/lmtp"
	"dovepost/lmtp/filter/submission"
	"dovepost/lmtp/maildir"
)

const spam = "X-Spam-Flag: YES\nSubject: spam\n\nbuy\n"

// What a header calls spam is in Junk, marked, and the mailbox is there and subscribed to; other mail
// is not.
func TestJunk(t *testing.T) {
	both(t, func(t *testing.T, s *stack.Stack, _ bool) {
		sendOK(t, s, address("junk"), "Subject: ham\n\nhello\n")
		sendOK(t, s, address("junk"), spam)
		sendOK(t, s, address("junk"), "X-Spam-Status: Yes, score=9.1 required=5.0\nSubject: spam\n\n")
		sendOK(t, s, address("junk+Work"), "X-Spam: Yes\nSubject: spam\n\n")
		sendOK(t, s, address("junk+Work"), "X-Spam: No\nSubject: work\n\n")
		c := login(t, s, "junk", "Junk")
		if got := must(t, c, "FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (Subject)])"); strings.Count(got, `$Junk`) != 3 || strings.Count(got, `\Seen`) != 3 || strings.Count(got, "Subject: spam") != 3 {
			t.Errorf("Junk has %s", got)
		}
		if got := must(t, c, `LSUB "" *`); !strings.Contains(got, "Junk") {
			t.Errorf("subscribed to %q", got)
		}
		for box, subject := range map[string]string{"INBOX": "ham", "Work": "work"} {
			must(t, c, "SELECT %s", box)
			if got := must(t, c, "FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (Subject)])"); strings.Count(got, "FETCH") != 1 || !strings.Contains(got, "Subject: "+subject) || strings.Contains(got, "Seen") {
				t.Errorf("%s has %s", box, got)
			}
		}
	})
}

// A client that is idle sees a marked message with its flags at once.
func TestIdle(t *testing.T) {
	sendOK(t, counted, address("idle"), spam)
	w := dialIdle(t, counted)
	defer w.Close()
	w.say("a1 LOGIN idle@example.net x")
	w.until("a1 OK")
	w.say("a2 SELECT Junk")
	w.until("a2 OK")
	w.say("a3 IDLE")
	w.until("+ ")
	begun := time.Now()
	sendOK(t, counted, address("idle"), spam)
	w.until("* 2 EXISTS")
	if took := time.Since(begun); took > 20*time.Second { // without a notice it would look after 30
		t.Errorf("told after %v", took)
	}
	w.say("DONE")
	w.until("a3 OK")
	w.say("a4 FETCH 2 FLAGS")
	if line := w.until("* 2 FETCH"); !strings.Contains(line, `\Seen`) || !strings.Contains(line, "$Junk") {
		t.Error(line)
	}
}

// idler is a raw IMAP connection.
type idler struct {
	*tls.Conn
	r *bufio.Reader
	t *testing.T
}

func dialIdle(t *testing.T, s *stack.Stack) *idler {
	t.Helper()
	plain, err := dialTCP(s.IMAPAddr)
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(plain)
	fmt.Fprintf(plain, "a0 STARTTLS\r\n")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, "a0 OK") {
			break
		}
	}
	c := tls.Client(plain, &tls.Config{RootCAs: s.Roots, ServerName: "127.0.0.1"})
	return &idler{c, bufio.NewReader(c), t}
}

func (w *idler) say(line string) { fmt.Fprintf(w, "%s\r\n", line) }

// until reads to a line that begins so, and returns it.
func (w *idler) until(prefix string) string {
	w.t.Helper()
	for {
		line, err := w.r.ReadString('\n')
		if err != nil {
			w.t.Fatalf("before %q: %v", prefix, err)
		}
		if strings.HasPrefix(line, prefix) {
			return line
		}
	}
}

var fetched = regexp.MustCompile(`FLAGS \(([^)]*)\)`)

// marks is a filter that files everything under one keyword.
type marks struct {
	box     string
	keyword string
}

func (m marks) Filter(context.Context, *lmtp.Envelope, *lmtp.Mailbox, lmtp.Message) (lmtp.Verdict, error) {
	return lmtp.Verdict{File: []lmtp.Filing{{Mailbox: m.box, Flags: []string{`\Flagged`, m.keyword}, Create: true}}, Handled: true}, nil
}

// ours delivers to a user of the stack in this process.
func ours(t *testing.T, s *stack.Stack, user, mail string, d *maildir.Deliverer, message string) {
	t.Helper()
	mb := &lmtp.Mailbox{Rcpt: address(user), User: address(user), Home: filepath.Join(s.MailRoot(), domain, user), Mail: mail, UID: stack.MailUID, GID: stack.MailUID}
	if err := d.Deliver(t.Context(), &lmtp.Envelope{Sender: "sender@remote.example"}, []*lmtp.Mailbox{mb}, lmtp.Text(message))[0]; err != nil {
		t.Error(err)
	}
}

// While a client stores new keywords, deliveries bring others: each message has those that it
// was given, and no letter has two meanings.
func TestKeywordsWhileLive(t *testing.T) {
	sendOK(t, counted, address("live"), spam)
	c := login(t, counted, "live", "Junk")
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 9 {
			for range 3 {
				ours(t, counted, "live", "maildir:~/Maildir", &maildir.Deliverer{Filter: marks{"Junk", fmt.Sprintf("ours%d", i)}}, fmt.Sprintf("Subject: ours%d\n\n", i))
			}
		}
	})
	for i := range 9 {
		must(t, c, "STORE 1 +FLAGS (theirs%d)", i)
		time.Sleep(20 * time.Millisecond)
	}
	wg.Wait()
	c = login(t, counted, "live", "Junk") // as a client that knows nothing yet
	got := must(t, c, "FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (Subject)])")
	messages := 0
	for _, part := range strings.Split(got, "FETCH (")[1:] {
		flags, _, _ := strings.Cut(fetched.FindStringSubmatch(part)[1], ")")
		if strings.Contains(part, "Subject: spam") {
			for i := range 9 {
				if !strings.Contains(flags, fmt.Sprintf("theirs%d", i)) {
					t.Errorf("theirs%d was lost: %s", i, flags)
				}
			}
			continue
		}
		messages++
		_, subject, _ := strings.Cut(part, "Subject: ")
		subject = strings.Fields(subject)[0]
		words := strings.Fields(flags)
		for _, w := range words {
			if w != subject && !strings.HasPrefix(w, `\`) {
				t.Errorf("the message %s has %s", subject, flags)
			}
		}
		if !strings.Contains(flags, subject) || !strings.Contains(flags, `\Flagged`) {
			t.Errorf("the message %s has %s", subject, flags)
		}
	}
	if messages != 27 {
		t.Errorf("%d messages; want 27", messages)
	}
	log, _ := os.ReadFile(filepath.Join(counted.Dir, "dovecot/dovecot.log"))
	if strings.Contains(string(log), "keyword") || strings.Contains(string(log), "uidlist") {
		t.Errorf("Dovecot complains:\n%s", log)
	}
}

// With CONTROL= the keywords are where Dovecot looks for them, of INBOX and of folders. What either
// adds the other goes on with.
func TestControl(t *testing.T) {
	const mail = "maildir:~/Maildir:CONTROL=~/control"
	home := filepath.Join(counted.MailRoot(), domain, "control")
	read := ownDoveadm(t, home)
	for _, box := range []string{"INBOX", "Sub.Folder"} {
		for i, keyword := range []string{"first", "second"} {
			ours(t, counted, "control", mail, &maildir.Deliverer{Filter: marks{box, keyword}}, fmt.Sprintf("Subject: %d\n\n", i+1))
		}
		read("flags add", "theirs", "mailbox", box, "header", "subject", "1")
		ours(t, counted, "control", mail, &maildir.Deliverer{Filter: marks{box, "third"}}, "Subject: 3\n\n")
		got := read("-f tab fetch", "hdr.subject flags", "mailbox", box)
		want := "hdr.subject\tflags\n1\t\\Flagged \\Recent first theirs\n2\t\\Flagged \\Recent second\n3\t\\Flagged \\Recent third\n"
		if strings.ReplaceAll(got, ` \Recent`, "") != strings.ReplaceAll(want, ` \Recent`, "") {
			t.Errorf("%s: Dovecot reads %q; want %q", box, got, want)
		}
		text, err := os.ReadFile(filepath.Join(home, "control", "."+box, "dovecot-keywords"))
		if err != nil || string(text) != "0 first\n1 second\n2 theirs\n3 third\n" {
			t.Errorf("keywords of %s: %q, %v", box, text, err)
		}
	}
}

// ownDoveadm runs doveadm as the owner of the mail in home, without users but him.
func ownDoveadm(t *testing.T, home string) func(command string, args ...string) string {
	t.Helper()
	version, err := exec.Command("dovecot", "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	nobody := []string(nil) // to be asked for him
	conf := "mail_location = maildir:~/Maildir:CONTROL=~/control\n"
	if number, _, _ := strings.Cut(string(version), "+"); !strings.HasPrefix(number, "2.3.") {
		number, _, _ = strings.Cut(number, "-")
		number, _, _ = strings.Cut(strings.TrimSpace(number), " ")
		nobody = []string{"--no-userdb-lookup"}
		conf = "dovecot_config_version = " + number + "\ndovecot_storage_version = " + number +
			"\nmail_driver = maildir\nmail_path = ~/Maildir\nmail_inbox_path = ~/Maildir\nmail_control_path = ~/control\nmail_home = " + home + "\n"
	}
	conf += "first_valid_uid = 5000\nlog_path = /dev/stderr\nssl = no\nnamespace inbox {\n inbox = yes\n separator = .\n}\n"
	path := filepath.Join(scratch, "control.conf")
	if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	return func(command string, args ...string) string {
		t.Helper()
		args = slices.Concat([]string{"-c", path}, strings.Fields(command), nobody, args)
		cmd := exec.CommandContext(t.Context(), "doveadm", args...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "USER=control"}
		cmd.Dir = home
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stack.MailUID, Gid: stack.MailUID}}
		var complaints strings.Builder
		cmd.Stderr = &complaints
		out, err := cmd.Output()
		if err != nil || strings.Contains(complaints.String(), "Error") {
			t.Fatalf("doveadm %q: %v: %s", args, err, complaints.String())
		}
		return string(out)
	}
}

// lmtpd is killed at random instants while spam comes, and is sent again: each message is in Junk once.
func TestKilledWhileFiling(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var mu sync.Mutex
	var saved []string
	resent := 0
	for worker := range 4 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				subject := fmt.Sprintf("filed-%d-%d", worker, n)
				message := "Received: by client.test id " + subject + "; now\nX-Spam-Flag: YES\nSubject: " + subject + "\n\nend\n"
				for {
					c, err := dial(sized)
					if err != nil {
						continue
					}
					reply, err := c.send(address("killed"), message)
					c.Close()
					if err == nil && strings.HasPrefix(reply, "250 ") {
						mu.Lock()
						saved = append(saved, subject)
						mu.Unlock()
						break
					}
					if strings.HasPrefix(reply, "5") {
						t.Errorf("%s: %s", subject, reply)
						return
					}
					mu.Lock()
					resent++
					mu.Unlock()
				}
			}
		})
	}
	for range 15 {
		time.Sleep(time.Duration(20+rand.IntN(100)) * time.Millisecond)
		sized.KillDaemon("lmtpd")
		if err := sized.WaitDaemon("lmtpd"); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	wg.Wait()
	out := doveadm(t, sized, "fetch", "-u", address("killed"), "hdr.subject flags", "mailbox", "Junk")
	for _, subject := range saved {
		if n := strings.Count(out, subject+"\n"); n != 1 {
			t.Errorf("%s is there %d times", subject, n)
		}
	}
	if n := strings.Count(out, "$Junk"); n < len(saved) {
		t.Errorf("%d of %d messages are marked", n, len(saved))
	}
	if len(saved) == 0 || resent == 0 {
		t.Error("no kill met a delivery")
	}
	t.Logf("%d saved, %d sent again", len(saved), resent)
}

// moves is a filter that redirects to an address, and keeps a copy in a mailbox.
type moves struct{ to, box string }

func (m moves) Filter(context.Context, *lmtp.Envelope, *lmtp.Mailbox, lmtp.Message) (lmtp.Verdict, error) {
	v := lmtp.Verdict{Redirect: []string{m.to}, Handled: true}
	if m.box != "" {
		v.File = []lmtp.Filing{{Mailbox: m.box, Create: true}}
	}
	return v, nil
}

// Redirected mail goes through Postfix to a foreign host, from its own sender and with the mark of where
// it was, and the copy is there; a host that does not answer makes it wait, without the copy.
func TestRedirect(t *testing.T) {
	d := &maildir.Deliverer{Filter: moves{"friend@remote.example", "Sent-on"}, Sender: &submission.SMTP{Addr: counted.SMTPAddr, Hello: "client.test"}}
	ours(t, counted, "move", "maildir:~/Maildir", d, "Return-Path: <sender@remote.example>\nDelivered-To: move@example.net\nSubject: moved\n\n.\n..dots\nöctets\n")
	var got string
	waitFor(t, "the foreign host", func() bool {
		all, err := counted.Foreign()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range all {
			if strings.Contains(m, "Subject: moved") {
				got = strings.ReplaceAll(m, "\r\n", "\n")
			}
		}
		return got != ""
	})
	for _, want := range []string{"sender@remote.example", "friend@remote.example", "\nDelivered-To: move@example.net\nSubject: moved\n", "\n\n.\n..dots\nöctets\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("the foreign host got %q without %q", got, want)
		}
	}
	if strings.Count(got, "Delivered-To:") != 1 {
		t.Errorf("marked more than once: %q", got)
	}
	if out := doveadm(t, counted, "fetch", "-u", address("move"), "hdr.subject", "mailbox", "Sent-on"); !strings.Contains(out, "moved") {
		t.Errorf("the copy: %q", out)
	}
	d.Sender = &submission.SMTP{Addr: "127.0.0.1:1", Hello: "client.test"}
	mb := &lmtp.Mailbox{Rcpt: address("move"), User: address("move"), Home: filepath.Join(counted.MailRoot(), domain, "move"), Mail: "maildir:~/Maildir", UID: stack.MailUID, GID: stack.MailUID}
	err := d.Deliver(t.Context(), &lmtp.Envelope{}, []*lmtp.Mailbox{mb}, lmtp.Text("Subject: waits\n\n"))[0]
	if err == nil || !strings.HasPrefix(err.Error(), "451 4.2.0 ") {
		t.Errorf("nobody takes it: %v", err)
	}
	if out := doveadm(t, counted, "fetch", "-u", address("move"), "hdr.subject", "mailbox", "Sent-on"); strings.Contains(out, "waits") {
		t.Error("a copy of what waits")
	}
}
