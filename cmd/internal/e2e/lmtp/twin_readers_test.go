package lmtp

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"dovepost/cmd/internal/stack/mailclient"
)

// reading is what a reader shall see of a file.
type reading struct {
	text  string // CRLF line ends; NUL is 0x80, as IMAP has no other way
	sizes string
}

// crlf is how Dovecot shows a file: each LF has a CR before it.
func crlf(text []byte) []byte {
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	return bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
}

// testReaders compares the files that lmtpd made with what doveadm, IMAP and POP3 show of them.
func testReaders(t *testing.T, files map[string]stored) {
	for _, user := range users {
		var want []reading
		var storage, virtual int
		for _, f := range files {
			if f.user != user {
				continue
			}
			text, err := os.ReadFile(f.path)
			if err != nil {
				t.Fatal(err)
			}
			shown := crlf(text)
			if sizes := fmt.Sprintf(",S=%d,W=%d", len(text), len(shown)); f.sizes != sizes {
				t.Errorf("%s: is %s", f.path, sizes)
			}
			storage, virtual = storage+len(text), virtual+len(shown)
			want = append(want, reading{string(bytes.ReplaceAll(shown, []byte{0}, []byte{0x80})), fmt.Sprintf("%d %d", len(text), len(shown))})
		}
		address := user + "@example.net"
		testQuota(t, address, len(want), storage, virtual)
		slices.SortFunc(want, func(a, b reading) int { return strings.Compare(a.text, b.text) })
		testDoveadm(t, address, want)
		testIMAP(t, address, want)
		testPOP3(t, address, want)
	}
	testIdle(t)
	log, err := os.ReadFile(filepath.Join(ours.Dir, "dovecot/dovecot.log"))
	if err != nil || len(log) > 0 {
		t.Errorf("Dovecot has logged %q, %v", log[:min(len(log), 2000)], err)
	}
}

// testQuota: Dovecot counts what lmtpd delivered, with maildirsize and in its own indexes.
func testQuota(t *testing.T, user string, messages, storage, virtual int) {
	t.Helper()
	conf, err := os.ReadFile(filepath.Join(ours.Dir, "dovecot/dovecot.conf"))
	if err != nil {
		t.Fatal(err)
	}
	count := strings.Replace(string(conf), "  driver = maildir\n", "  driver = count\n", 1)
	count = strings.Replace(count, "quota = maildir:User quota\n", "quota = count:User quota\n  quota_vsizes = yes\n", 1)
	for driver, text := range map[string]string{"maildir": string(conf), "count": count} {
		path := filepath.Join(ours.Dir, "dovecot", driver+".conf")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("doveadm", "-c", path, "-f", "tab", "quota", "get", "-u", user).CombinedOutput()
		if err != nil {
			t.Fatalf("doveadm quota get: %v: %s", err, out)
		}
		octets := storage
		if driver == "count" {
			octets = virtual
		}
		for what, want := range map[string]int{"STORAGE": (octets + 1023) / 1024, "MESSAGE": messages} {
			m := regexp.MustCompile(what + `\t(\d+)\t`).FindSubmatch(out)
			if m == nil || string(m[1]) != strconv.Itoa(want) {
				t.Errorf("%s: quota %s: %q; want %s %d", user, driver, out, what, want)
			}
		}
	}
}

func testDoveadm(t *testing.T, user string, want []reading) {
	t.Helper()
	out, err := ours.Doveadm("-f", "tab", "fetch", "-u", user, "size.physical size.virtual", "mailbox", "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	_, out, _ = strings.Cut(strings.TrimSpace(out), "\n") // names
	got := strings.Split(strings.ReplaceAll(out, "\t", " "), "\n")
	sizes := make([]string, len(want))
	for i, m := range want {
		sizes[i] = m.sizes
	}
	slices.Sort(got)
	slices.Sort(sizes)
	if strings.TrimSpace(strings.Join(got, "\n")) != strings.Join(sizes, "\n") {
		t.Errorf("doveadm of %s: sizes: %s", user, difference(strings.Join(got, "\n"), strings.Join(sizes, "\n")))
	}
	if out, err = ours.Doveadm("fetch", "-u", user, "text", "mailbox", "INBOX"); err != nil {
		t.Fatal(err)
	}
	// doveadm prints LF line ends.
	plain := strings.NewReplacer("\x00", "\x80", "\r", "")
	out = plain.Replace(out)
	for _, m := range want {
		if !strings.Contains(out, plain.Replace(m.text)) {
			t.Errorf("doveadm of %s does not show %.300q", user, m.text)
		}
	}
}

func testIMAP(t *testing.T, user string, want []reading) {
	t.Helper()
	c, err := mailclient.LoginIMAP(ours.IMAPAddr, ours.Roots, user, "x")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Must("SELECT INBOX"); err != nil {
		t.Fatal(err)
	}
	numbers, err := c.Find("ALL")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range numbers {
		a, err := c.Must("FETCH %s RFC822.SIZE", n)
		if err != nil || len(a.Untagged) != 1 {
			t.Fatalf("FETCH %s: %v, %v", n, a, err)
		}
		text, err := c.Fetch(n)
		if err != nil {
			t.Fatalf("FETCH %s: %v", n, err)
		}
		if size := fmt.Sprintf("RFC822.SIZE %d)", len(text)); !strings.Contains(a.Untagged[0], size) {
			t.Errorf("IMAP of %s: %s, and %d octets", user, a.Untagged[0], len(text))
		}
		got = append(got, text)
	}
	sameTexts(t, "IMAP of "+user, got, want, 0)
}

// sameTexts wants texts that are the same but for cut octets at the end.
func sameTexts(t *testing.T, what string, got []string, want []reading, cut int) {
	t.Helper()
	slices.Sort(got)
	if len(got) != len(want) {
		t.Errorf("%s: %d messages; want %d", what, len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if g, w := got[i], want[i].text; g != w && (cut == 0 || strings.TrimRight(g, "\r\n") != strings.TrimRight(w, "\r\n")) {
			t.Errorf("%s: %d octets; want %d: %s", what, len(g), len(w), difference(g, w))
		}
	}
}

// lines is a connection to Dovecot, over TLS.
type lines struct {
	t *testing.T
	net.Conn
	*bufio.Reader
}

// connect does what starts TLS.
func connect(t *testing.T, addr, start string) *lines {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	c := &lines{t, conn, bufio.NewReader(conn)}
	c.line()
	c.say(start)
	secure := tls.Client(conn, &tls.Config{RootCAs: ours.Roots, ServerName: "127.0.0.1"})
	return &lines{t, secure, bufio.NewReader(secure)}
}

func (c *lines) line() string {
	c.t.Helper()
	line, err := c.ReadString('\n')
	if err != nil {
		c.t.Fatal(err)
	}
	return line
}

// say sends a command and returns the first line of the answer that is not untagged.
func (c *lines) say(command string) string {
	c.t.Helper()
	if _, err := fmt.Fprintf(c, "%s\r\n", command); err != nil {
		c.t.Fatal(err)
	}
	for {
		if line := c.line(); !strings.HasPrefix(line, "* ") {
			return line
		}
	}
}

func (c *lines) must(command, answer string) string {
	c.t.Helper()
	line := c.say(command)
	if !strings.HasPrefix(line, answer) {
		c.t.Fatalf("%s: %s", command, line)
	}
	return line
}

func testPOP3(t *testing.T, user string, want []reading) {
	t.Helper()
	c := connect(t, ours.POP3Addr, "STLS")
	c.must("USER "+user, "+OK")
	c.must("PASS x", "+OK")
	var got []string
	for i := range want {
		c.must(fmt.Sprint("RETR ", i+1), "+OK")
		var b strings.Builder
		for {
			line := c.line()
			if line == ".\r\n" {
				break
			}
			b.WriteString(strings.TrimPrefix(line, "."))
		}
		got = append(got, strings.ReplaceAll(b.String(), "\x00", "\x80"))
	}
	c.must("QUIT", "+OK")
	sameTexts(t, "POP3 of "+user, got, want, 2) // there every message ends in a line end
}

// testIdle: a client that waits is told at once, and not when it would look by itself, after 30 s.
func testIdle(t *testing.T) {
	t.Helper()
	c := connect(t, ours.IMAPAddr, "a STARTTLS")
	c.must(`b LOGIN u2@example.net x`, "b OK")
	c.must("c SELECT INBOX", "c OK")
	c.must("d IDLE", "+ ")
	for range 3 {
		if reply := talk(t, ours.LMTPAddr, letter{to: []string{"<u2@example.net>"}, text: "Subject: idle\r\n\r\nx\r\n"}.script()); !strings.Contains(reply, "Saved") {
			t.Fatal(reply)
		}
		told := time.Now()
		for !strings.HasSuffix(c.line(), " EXISTS\r\n") {
		}
		if took := time.Since(told); took > 20*time.Second {
			t.Errorf("IDLE was told after %v", took)
		}
		for !strings.HasSuffix(c.line(), " RECENT\r\n") {
		}
	}
}
