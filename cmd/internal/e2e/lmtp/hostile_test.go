package lmtp

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
)

// long makes the tests as large as the claims they are for.
var long = os.Getenv("DOVEPOST_LONG") != ""

// attacked starts one more lmtpd for the users of ours, as root, who could write everywhere.
func attacked(t *testing.T, args ...string) (d *stack.Daemon, socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "lmtpd-")
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "lmtp")
	args = append(args, "--hostname=mail.example.com", "--mail_temp_dir="+dir, "--sql="+filepath.Join(ours.Dir, "dovepost/lmtpd/dovecot-sql.conf.ext"))
	if d, err = stack.StartDaemon(filepath.Join(ours.Dir, "bin/lmtpd"), dir, "lmtp", socket, args...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if n := d.Starts(); n > 1 {
			t.Errorf("lmtpd was started %d times", n)
		}
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log("the log is in", dir)
			return
		}
		os.RemoveAll(dir)
	})
	return d, socket
}

// memory returns what a daemon holds in memory: now, and at most so far.
func memory(t *testing.T, d *stack.Daemon) (now, peak int64) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]*int64{"VmRSS": &now, "VmHWM": &peak} {
		found := regexp.MustCompile(name + `:\s+(\d+) kB`).FindSubmatch(status)
		if found == nil {
			t.Fatalf("no %s in %s", name, status)
		}
		*to, _ = strconv.ParseInt(string(found[1]), 10, 64)
		*to <<= 10
	}
	return now, peak
}

// A conversation with one of the daemons.
type conversation struct {
	net.Conn
	*textproto.Reader
}

// converse connects and says LHLO.
func converse(t *testing.T, socket string) *conversation {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	conv := &conversation{c, textproto.NewReader(bufio.NewReader(c))}
	if err := conv.say(lhlo, "220 ", "250 "); err != nil {
		t.Fatal(err)
	}
	return conv
}

// say sends text and expects replies that begin with these words.
func (c *conversation) say(text string, want ...string) error {
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	for _, w := range want {
		for {
			line, err := c.ReadLine()
			if err != nil {
				return fmt.Errorf("%w; want %q", err, w)
			}
			if len(line) > 3 && line[3] == '-' {
				continue
			}
			if !strings.HasPrefix(line, w) {
				return fmt.Errorf("got %q; want %q", line, w)
			}
			break
		}
	}
	return nil
}

// ends are octets that some server takes for the end of DATA and others do not. What follows them would
// be a second message, with a sender of its author's choice.
var ends = []string{
	"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\r.\n", "\n.\r", "\n\r.\r\n", "\r\n.\r\r\n", "\r\n.\x00\r\n", "\r\n\x00.\r\n",
	"\r\n.\x00\n", "\r\n. \r\n", "\r\n.\t\r\n", "\r\n..\r\n", "\n..\r\n", "\x00\r\n\x00.\x00\r\n", "\r\n.\u2028\r\n", "\u0085.\u0085", "\x85.\x85", "\v.\v", "\f.\f",
}

func TestSmuggling(t *testing.T) {
	for _, end := range ends {
		smuggled := "MAIL FROM:<admin@example.net>\r\nRCPT TO:<u2@example.net>\r\nDATA\r\nSubject: smuggled\r\n\r\nx"
		got := normal(talk(t, ours.LMTPAddr, lhlo+mail+u1+"DATA\r\nbefore"+end+smuggled+"\r\n.\r\n"+quit))
		want := "220\n250-mail.example.com\n250 2.1.0 OK\n250 2.1.5 OK\n354 OK\n250 2.0.0 <u1@example.net> ID Saved\n221 2.0.0 Bye\n"
		if got != want {
			t.Errorf("%q: got %q; want %q", end, got, want)
		}
		if stored := files(t, ours); len(stored) != 1 || !strings.HasPrefix(stored[0], "u1 ") || !strings.Contains(stored[0], "Subject: smuggled") {
			t.Errorf("%q: stored %q; want one message that is all", end, stored)
		}
	}
	// The two that end: CRLF.CRLF, also behind one more CR. Then Dovecot and lmtpd agree.
	for _, end := range []string{"\r\n.\r\n", "\r\r\n.\r\n"} {
		send := lhlo + mail + u1 + "DATA\r\nbefore" + end + mail + u2 + "DATA\r\nsecond\r\n.\r\n" + quit
		compare(t, normal(talk(t, ours.LMTPAddr, send)), normal(talk(t, native.LMTPAddr, send)))
	}
}

// TestOddConversations: what no client sends gets the replies that Dovecot gives.
func TestOddConversations(t *testing.T) {
	for _, tt := range []struct{ name, send string }{
		{"all in one packet, the message too, before LHLO and behind", mail + u1 + "DATA\r\none\r\n.\r\n" + lhlo + mail + u1 + "DATA\r\ntwo\r\n.\r\nRSET\r\n" + mail + u2 + "BDAT 3\r\nxyzBDAT 2 LAST\r\n\r\n" + quit},
		{"NUL", "NOOP\x00\r\n\x00\r\nNO\x00OP\r\nRSET\r\n" + mail + "RCPT TO:<u1\x00@example.net>\r\n" + u1 + "DATA\r\n\x00\r\n\x00.\r\n.\r\n" + quit},
		{"SMTPUTF8 that is none", mail + "RCPT TO:<u\xc3\x28@example.net>\r\n" + quit},
		{"paths that climb", mail + "RCPT TO:<../../etc/x@example.net>\r\nRCPT TO:<../u1@example.net>\r\nRCPT TO:<u1@../example.net>\r\nRCPT TO:<\"../../etc/x\"@example.net>\r\n" +
			"RCPT TO:</etc/passwd@example.net>\r\nRCPT TO:<.@example.net>\r\nRCPT TO:<..@example.net>\r\nRCPT TO:<\"/\"@example.net>\r\nRCPT TO:<~root@example.net>\r\n" + quit},
		{"a web browser", "GET / HTTP/1.1\r\nHost: example.net\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n" + quit},
	} {
		t.Run(tt.name, func(t *testing.T) {
			compare(t, normal(talk(t, ours.LMTPAddr, tt.send)), normal(talk(t, native.LMTPAddr, tt.send)))
		})
	}
}

// TestLongLines: a line of 1 MB costs no memory and does not end the connection.
func TestLongLines(t *testing.T) {
	d, socket := attacked(t)
	before, _ := memory(t, d)
	c := converse(t, socket)
	line := strings.Repeat("x", 1<<20)
	for range 50 {
		for _, text := range []string{"NOOP " + line, "MAIL FROM:<" + line + "@x>", line} {
			if err := c.say(text+"\r\n", "500 5.5.2 Line too long"); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.say("NOOP\r\n", "250 2.0.0 OK"); err != nil {
			t.Fatal(err)
		}
	}
	if now, _ := memory(t, d); now > before+16<<20 {
		t.Errorf("150 lines of 1 MB took %d MB", (now-before)>>20)
	}
}

// outside lists what lies in the mail store and in the directory above it, without what belongs into the Maildir of u1.
func outside(t *testing.T) (names []string) {
	t.Helper()
	inside := filepath.Join(ours.MailRoot(), "example.net/u1/Maildir") + "/"
	err := filepath.WalkDir(filepath.Dir(ours.MailRoot()), func(path string, d fs.DirEntry, err error) error {
		if err != nil || strings.HasPrefix(path, inside) || !strings.HasPrefix(path, ours.MailRoot()) && d.IsDir() && path != ours.Dir {
			return fs.SkipDir
		}
		names = append(names, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestClimbingMailboxes: whatever stands behind the delimiter, the message is in a mailbox of its user.
func TestClimbingMailboxes(t *testing.T) {
	_, socket := attacked(t, "--lmtp_save_to_detail_mailbox", "--lda_mailbox_autocreate=yes", "--lda_mailbox_autosubscribe=yes")
	_, slashes := attacked(t, "--lmtp_save_to_detail_mailbox", "--lda_mailbox_autocreate=yes", "--mail_location=maildir:~/Maildir:LAYOUT=fs")
	c := converse(t, socket)
	if err := c.say(mail+u1+"DATA\r\n.\r\n", "250 ", "250 ", "354 ", "250 "); err != nil {
		t.Fatal(err)
	}
	files(t, ours)
	before := outside(t)
	sent := 0
	for _, detail := range []string{
		"../../etc/x", "..", ".", "/", "/etc/passwd", "/../x", "a/../../b", "a/..", "../", "~root", "~", "~/x", "a//b", "a/", "INBOX/../x", "INBOX", "inbox", ".x", "a.b", "x.",
		"&AC4ALgAv-x", "&", "&-", "%2e%2e%2f", "..\\..\\x", "cur", "new", "tmp", "cur/x", "new/../../x", "tmp/x", "maildirsize", "dovecot-uidlist", "subscriptions",
		"a\u2024b", "\u2025/x", "\u2215etc", "a\u0301", strings.Repeat("x", 250), strings.Repeat("x/", 100) + "x", strings.Repeat("\u00e4", 120), "$(id)", "`id`", "|x", "-rf", "*", "?", " ", "a b", "\u202e",
	} {
		local := `"u1+` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(detail) + `"`
		for _, s := range []string{socket, slashes} {
			c := converse(t, s)
			if err := c.say(mail+"RCPT TO:<"+local+"@example.net>\r\nDATA\r\nx\r\n.\r\n", "250 ", "250 ", "354 ", "250 "); err != nil {
				t.Errorf("%q: %v", detail, err)
				continue
			}
			sent++
			c.Close()
		}
	}
	if after := outside(t); !slices.Equal(after, before) {
		t.Errorf("outside of the Maildir: %q; want %q", after, before)
	}
	stored := 0
	err := filepath.WalkDir(filepath.Join(ours.MailRoot(), "example.net/u1/Maildir"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && filepath.Base(filepath.Dir(path)) == "new" && strings.Contains(d.Name(), ",S=") {
			stored++
		}
		return err
	})
	if err != nil || stored != sent {
		t.Errorf("%d messages are in the Maildir, %v; want %d", stored, err, sent)
	}
	if err := os.RemoveAll(filepath.Join(ours.MailRoot(), "example.net/u1/Maildir")); err != nil {
		t.Fatal(err)
	}
}

// TestSlowSenders: 1,000 clients in the middle of a message that does not end keep nobody else's waiting, and
// hold little memory.
func TestSlowSenders(t *testing.T) {
	const slow, most = 1000, 160 << 20
	d, socket := attacked(t)
	before, _ := memory(t, d)
	var connected sync.WaitGroup
	errs := make(chan error, slow)
	stop := make(chan struct{})
	for range slow {
		c := converse(t, socket)
		connected.Go(func() {
			if err := c.say(mail+u1+"DATA\r\n"+strings.Repeat(strings.Repeat("x", 98)+"\r\n", 200), "250 ", "250 ", "354 "); err != nil {
				errs <- err
				return
			}
			go func() {
				for tick := time.NewTicker(time.Second); ; {
					select {
					case <-stop:
						tick.Stop()
						return
					case <-tick.C:
						io.WriteString(c, "x")
					}
				}
			}()
		})
	}
	connected.Wait()
	defer close(stop)
	select {
	case err := <-errs:
		t.Fatal(err)
	default:
	}
	c := converse(t, socket)
	start := time.Now()
	for range 100 {
		if err := c.say(mail+u2+"DATA\r\nSubject: x\r\n\r\nx\r\n.\r\n", "250 ", "250 ", "354 ", "250 "); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(start)
	now, _ := memory(t, d)
	t.Logf("%d slow senders: %d MB more in memory; 100 messages meanwhile in %v", slow, (now-before)>>20, took)
	if now-before > most {
		t.Errorf("%d slow senders took %d MB; want at most %d", slow, (now-before)>>20, most>>20)
	}
	if took > time.Minute {
		t.Errorf("100 messages took %v beside them", took)
	}
	if n := len(files(t, ours)); n != 100 {
		t.Errorf("%d messages stored; want 100", n)
	}
}

// TestHugeMessage: 2 GB are refused when they are announced, and when they come all the same, without memory growth and
// without a file left.
func TestHugeMessage(t *testing.T) {
	size := int64(256 << 20)
	if long {
		size = 2 << 30
	}
	d, socket := attacked(t, "--message_size_limit=50M")
	before, _ := memory(t, d)
	c := converse(t, socket)
	if err := c.say("MAIL FROM:<a@b.test> SIZE=2147483648\r\n", "552 5.3.4 Message size exceeds administrative limit"); err != nil {
		t.Fatal(err)
	}
	block := []byte(strings.Repeat(strings.Repeat("x", 1022)+"\r\n", 1024))
	send := func() {
		for n := int64(0); n < size; n += int64(len(block)) {
			if _, err := c.Write(block); err != nil {
				t.Error(err)
				return
			}
		}
	}
	const refused = "552 5.3.4 <u1@example.net> Message size exceeds administrative limit"
	if err := c.say(mail+u1+"DATA\r\n", "250 ", "250 ", "354 "); err != nil {
		t.Fatal(err)
	}
	send()
	if err := c.say("QUIT\r\n.\r\n", refused); err != nil {
		t.Fatal(err)
	}
	if err := c.say(fmt.Sprintf(mail+u1+"BDAT %d LAST\r\n", size), "250 ", "250 "); err != nil {
		t.Fatal(err)
	}
	send()
	if err := c.say("NOOP\r\n", refused, "250 2.0.0 OK"); err != nil {
		t.Fatal(err)
	}
	_, peak := memory(t, d)
	t.Logf("2 x %d MB refused, at most %d MB more in memory", size>>20, (peak-before)>>20)
	if peak-before > 32<<20 {
		t.Errorf("%d MB took %d MB of memory", size>>20, (peak-before)>>20)
	}
}

// TestManyLargeMessages: 200 clients send large messages at the same time, more than the spools may hold together: they wait for
// each other, all are delivered, memory is bounded.
func TestManyLargeMessages(t *testing.T) {
	const clients, most = 200, 220 << 20
	size, args := 2<<20, "--spool_limit=32M"
	if long {
		size, args = 20<<20, "--spool_limit=400M"
	}
	d, socket := attacked(t, args)
	before, _ := memory(t, d)
	body := strings.Repeat(strings.Repeat("x", 1022)+"\r\n", size>>10)
	start := time.Now()
	var wait sync.WaitGroup
	for i := range clients {
		c := converse(t, socket)
		wait.Go(func() {
			from := mail
			if i%4 > 0 { // one in four announces nothing
				from = fmt.Sprintf("MAIL FROM:<a@b.test> SIZE=%d\r\n", size)
			}
			if err := c.say(from+"RCPT TO:<u"+strconv.Itoa(i%3+1)+"@example.net>\r\nDATA\r\n", "250 ", "250 ", "354 "); err != nil {
				t.Error(err)
				return
			}
			if err := c.say(body+".\r\n", "250 "); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	_, peak := memory(t, d)
	t.Logf("%d messages of %d MB in %v, at most %d MB more in memory", clients, size>>20, time.Since(start), (peak-before)>>20)
	if peak-before > most {
		t.Errorf("%d MB of memory; want at most %d", (peak-before)>>20, most>>20)
	}
	stored := 0
	for i := range 3 {
		names, err := filepath.Glob(filepath.Join(ours.MailRoot(), "example.net", "u"+strconv.Itoa(i+1), "Maildir/new/*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if info, err := os.Stat(name); err == nil && info.Size() > int64(len(body)-size>>10) {
				stored++
			}
			os.Remove(name)
		}
	}
	if stored != clients {
		t.Errorf("%d messages stored; want %d", stored, clients)
	}
}
