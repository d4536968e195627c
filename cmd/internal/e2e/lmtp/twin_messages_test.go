package lmtp

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
)

// letter is a message that both servers get.
type letter struct {
	name string
	from string   // with brackets and parameters; empty: <a@b.test>
	to   []string // as in RCPT; empty: u1
	text string   // CRLF line ends
	bdat bool     // in chunks: as it is, also without a line end
}

// exception is what Dovecot says or stores, and what lmtpd does.
type exception struct {
	theirs, ours string
	old          bool // of Dovecot 2.3 alone
}

// exceptions are what differs on purpose, by the name of the letter. All of them are addresses in
// UTF-8: lmtpd announces SMTPUTF8, RFC 6531, or Postfix would return what comes for them or from
// them. Dovecot 2.4 takes them, too, but for the parameter, which it does not announce.
var exceptions = map[string]exception{
	"SMTPUTF8":                   {"555 5.5.4 ", "250 2.1.0 OK", false},
	"from <jürgen@exämple.test>": {"Return-Path: <>", "Return-Path: <jürgen@exämple.test>", true},
	"to <u1+ü@example.net>":      {"501 5.5.4 Invalid TO: Missing '>' at end of path", "250 2.1.5 OK", true},
	"to <jürgen@example.net>":    {"501 5.5.4 Invalid TO: Missing '>' at end of path", "550 5.1.1 <jürgen@example.net> User doesn't exist: jürgen@example.net", true},
}

// wipe removes all mail, and what Dovecot and lmtpd know of it.
func wipe(t *testing.T) {
	t.Helper()
	for _, s := range []*stack.Stack{native, ours} {
		if err := os.RemoveAll(filepath.Join(s.MailRoot(), "example.net")); err != nil {
			t.Fatal(err)
		}
	}
}

// bodies are what mail has been seen to hold, and what it should not.
func bodies() map[string]string {
	random := rand.New(rand.NewPCG(1, 2))
	octets := func(n int, from string) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = from[random.IntN(len(from))]
		}
		return string(b)
	}
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	any := strings.ReplaceAll(string(all), "\n", "") // bare LF has letters of its own
	const head = "Subject: x\r\n\r\n"
	b := map[string]string{
		"nothing": "", "an empty line": "\r\n", "two empty lines": "\r\n\r\n", "a header without a body": "Subject: x\r\n",
		"a header and an empty line": head, "a body without a header": "\r\nbody\r\n", "no header, no empty line": "just text\r\nand more\r\n",
		"one dot": head + ".\r\n", "dots": head + "..\r\n...\r\n.\r\n.x\r\n ..\r\n", "only dots": ".\r\n.\r\n.\r\n",
		"a dot first": ".\r\n" + head, "a dot in the header": ".Subject: x\r\n\r\nx\r\n",
		"every octet": head + any + "\r\n", "every octet in the header": "Subject: " + any + "\r\n\r\nx\r\n",
		"NUL": head + "a\x00b\r\n\x00\r\n", "only NUL": strings.Repeat("\x00", 5000) + "\r\n", "NUL in the header": "Subject: a\x00b\r\n\r\nx\r\n",
		"8 bit": head + "\xe4\xf6\xfc \xff\xfe\r\n", "UTF-8": "Subject: Grüße 漢字 🙂\r\nFrom: jürgen@exämple.test\r\n\r\nGrüße\r\n",
		"bare CR": head + "a\rb\r\r\nc\r\n", "only CR": strings.Repeat("\r", 3000) + "\r\n", "CR CR LF": head + "a\r\r\nb\r\r\r\n\r\n",
		"bare LF": head + "a\nb\n\nc\r\n", "bare LF in the header": "A: b\nC: d\n\nx\r\n", "LF CR": head + "a\n\rb\n\r\n",
		"a From line": "From a@b.test Thu Jan  1 00:00:00 1970\r\n" + head + "From x\r\n", "a form feed": head + "a\fb\r\n",
		"a folded header": "Subject: a\r\n b\r\n\tc\r\n\r\nx\r\n", "header fields of odd names": "A\tb: c\r\n: d\r\nSubject : e\r\n\r\nx\r\n",
		"fields of lmtpd's own": "Return-Path: <x@y>\r\nDelivered-To: u1@example.net\r\nReceived: from x by y; now\r\n" + head + "x\r\n",
		"a long header field":   "Subject: " + strings.Repeat("x", 60000) + "\r\n\r\nx\r\n", "many header fields": strings.Repeat("X-A: b\r\n", 5000) + "\r\nx\r\n",
		"many empty lines": head + strings.Repeat("\r\n", 20000), "a trailing blank": head + "a \r\n \r\n",
		"a MIME part": "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n.\r\n--b--\r\n",
		"base64":      head + strings.Repeat(octets(76, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")+"\r\n", 1000),
		"commands":    head + "QUIT\r\nRSET\r\n.\r\nMAIL FROM:<x@y>\r\n",
	}
	for _, n := range []int{76, 77, 997, 998, 999, 1000, 2048, 4094, 4095, 4096, 4097, 8190, 8191, 8192, 16384, 32767, 32768, 65534, 65535, 65536, 65537, 131072, 1 << 20} {
		b[fmt.Sprint("a line of ", n)] = head + strings.Repeat("x", n) + "\r\n"
		b[fmt.Sprint("dots to the edge at ", n)] = head + strings.Repeat("x", n-len(head)) + "\r\n.\r\n..\r\n"
	}
	for _, n := range []int{1, 2, 3, 10, 100, 1023, 1024, 1025, 4000, 10000, 32766, 32768, 32770, 65000, 100000, 262143, 262144, 262145, 300000, 1000000, 3000000} {
		b[fmt.Sprint(n, " octets")] = strings.Repeat("0123456789abcdefghijklmnopqrstuvwxyz\r\n", n/38) + strings.Repeat("y", n%38) + "\r\n"
		if n <= 300000 {
			b[fmt.Sprint(n, " octets of any kind")] = head + octets(n, any) + "\r\n"
			b[fmt.Sprint(n, " octets of line ends and dots")] = head + strings.ReplaceAll(octets(n, "\r\r\n\n..ab\x00"), "\n.", "\nx") + "x\r\n"
		}
	}
	b["5 MB"] = head + strings.Repeat(strings.Repeat("m", 70)+"\r\n", 5<<20/72)
	b["20 MB"] = head + strings.Repeat(strings.Repeat("b", 997)+"\r\n", 20<<20/999)
	return b
}

// letters are all that is sent, in this order.
func letters() (all []letter) {
	texts := bodies()
	names := make([]string, 0, len(texts))
	for name := range texts {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		all = append(all, letter{name: name, text: texts[name]})
	}
	const text = "Subject: x\r\n\r\ntext\r\n"
	for _, from := range []string{"<>", "<root>", `<"a b"@c.test>`, `<"a\"b"@c.test>`, "<@a,@b:c@d.test>", "<jürgen@exämple.test>", "<a+b=c@d.test>", "<A@B.TEST>", "<a@[192.0.2.1]>",
		"<" + strings.Repeat("x", 300) + "@b.test>", "<a@b.test> BODY=8BITMIME", "<a@b.test> BODY=7BIT"} {
		all = append(all, letter{name: "from " + from, from: from, text: text})
	}
	all = append(all, letter{name: "SMTPUTF8", from: "<jürgen@exämple.test> SMTPUTF8", text: text})
	for _, to := range [][]string{
		{"<u2@example.net>"}, {"<u1@example.net>", "<u2@example.net>"}, {"<u1@example.net>", "<u1@example.net>"}, {"<u1@example.net>", "<U1@example.net>", "<u1@EXAMPLE.NET>"},
		{"<u1@example.net>", "<u2@example.net>", "<u3@example.net>", "<u1+x@example.net>"}, {"<u1+foo@example.net>"}, {"<u1+@example.net>"}, {"<u1++@example.net>"}, {"<u1+a+b@example.net>"},
		{"<u1+../../x@example.net>"}, {"<u1+ü@example.net>"}, {"<gone@example.net>"}, {"<gone+x@example.net>"}, {"<jürgen@example.net>"}, {"<gone@example.net>", "<u3@example.net>", "<nobody@example.net>", "<u2@example.net>"},
		{"<u1@elsewhere.test>"}, {"<u1>"}, {`<"u1"@example.net>`}, {`<"u\1"@example.net>`}, {`<"u1 "@example.net>`}, {`<"u1+a b"@example.net>`}, {"<@a.test,@b.test:u2@example.net>"}, {"<@a.test:gone@example.net>"},
		{"<../u1@example.net>"}, {"<u1/../u2@example.net>"}, {"<u1@example.net> ORCPT=rfc822;x+40y.test"},
	} {
		all = append(all, letter{name: "to " + strings.Join(to, " "), to: to, text: text})
	}
	for _, name := range []string{"nothing", "every octet", "dots", "CR CR LF", "bare LF", "NUL", "300000 octets of any kind", "a line of 65536", "commands"} {
		all = append(all, letter{name: name + " in chunks", text: texts[name], bdat: true})
		all = append(all, letter{name: name + " in chunks, no line end", text: strings.TrimRight(texts[name], "\r\n"), bdat: true})
	}
	for i := range 12 { // until it is full
		all = append(all, letter{name: fmt.Sprint("quota ", i), to: []string{"<full@example.net>", "<u3@example.net>"}, text: texts["a line of 4096"]})
	}
	return all
}

// script is the conversation that delivers l.
func (l letter) script() string {
	var b strings.Builder
	from := l.from
	if from == "" {
		from = "<a@b.test>"
	}
	fmt.Fprintf(&b, "LHLO c.test\r\nMAIL FROM:%s\r\n", from)
	for _, to := range l.to {
		fmt.Fprintf(&b, "RCPT TO:%s\r\n", to)
	}
	if l.to == nil {
		b.WriteString(u1)
	}
	if !l.bdat {
		text := strings.ReplaceAll(l.text, "\r\n.", "\r\n..")
		if strings.HasPrefix(text, ".") {
			text = "." + text
		}
		return b.String() + "DATA\r\n" + text + ".\r\n" + quit
	}
	for rest := l.text; ; {
		n := min(len(rest), 1000+len(l.text)/3)
		last := ""
		if n == len(rest) {
			last = " LAST"
		}
		fmt.Fprintf(&b, "BDAT %d%s\r\n%s", n, last, rest[:n])
		if rest = rest[n:]; last != "" {
			return b.String() + quit
		}
	}
}

// stored is a message in a mailbox.
type stored struct {
	user, folder string // "new", "cur"
	path         string
	mode         os.FileMode
	uid          uint32
	sizes        string // ",S=1,W=2", and flags
	head         string // lmtpd's or Dovecot's own fields, without what differs from run to run
	sum          [32]byte
}

func (s stored) String() string {
	return fmt.Sprintf("%s/%s%s %v %d %x %q", s.user, s.folder, s.sizes, s.mode, s.uid, s.sum[:4], s.head)
}

// arrived returns the messages that are not in known, and adds them.
func arrived(t *testing.T, s *stack.Stack, known map[string]stored) (fresh []string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(s.MailRoot(), "example.net/*/Maildir/[nct][eum][wrp]/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range names {
		if _, ok := known[path]; ok {
			continue
		}
		m, err := examine(path)
		if err != nil {
			t.Fatal(err)
		}
		m.user, _, _ = strings.Cut(strings.TrimPrefix(path, s.MailRoot()+"/example.net/"), "/")
		known[path] = m
		fresh = append(fresh, m.String())
	}
	slices.Sort(fresh)
	return fresh
}

func examine(path string) (m stored, err error) {
	text, err := os.ReadFile(path)
	info, e := os.Stat(path)
	if err = errors.Join(err, e); err != nil {
		return m, err
	}
	// Return-Path, Delivered-To, Received and its folded lines.
	end := bytes.Index(text, []byte("Received: from c.test"))
	for end >= 0 && end < len(text) {
		end += bytes.IndexByte(text[end:], '\n') + 1
		if end == len(text) || text[end] != '\t' {
			break
		}
	}
	if end < 0 {
		return m, fmt.Errorf("%s: no Received", path)
	}
	_, sizes, _ := strings.Cut(filepath.Base(path), ",")
	return stored{
		folder: filepath.Base(filepath.Dir(path)), path: path, mode: info.Mode(), uid: info.Sys().(*syscall.Stat_t).Uid, sizes: "," + sizes,
		head: sessionID.ReplaceAllString(date.ReplaceAllString(string(text[:end]), "DATE"), "ID$1$2"), sum: sha256.Sum256(text[end:]),
	}, nil
}

// TestTwinMessages sends the same letters to Dovecot's LMTP and to lmtpd: the replies are the
// same, and so are the files, octet by octet, their modes, owners and sizes. Then all that reads mail shows what
// was sent, and Dovecot has no word to say about it in its log.
func TestTwinMessages(t *testing.T) {
	wipe(t)
	t.Cleanup(func() { wipe(t) })
	theirs, mine := map[string]stored{}, map[string]stored{}
	all := letters()
	began := time.Now()
	for _, l := range all {
		want := normal(talk(t, native.LMTPAddr, l.script()))
		got := normal(talk(t, ours.LMTPAddr, l.script()))
		wantFiles, gotFiles := arrived(t, native, theirs), arrived(t, ours, mine)
		if e, ok := exceptions[l.name]; ok && (old || !e.old) {
			want, got := want+fmt.Sprint(wantFiles), got+fmt.Sprint(gotFiles)
			if !strings.Contains(want, e.theirs) || !strings.Contains(got, e.ours) {
				t.Errorf("%s: an exception that is none any more:\n%s\n%s", l.name, want, got)
			}
			continue
		}
		if got != want {
			t.Errorf("%s: replies differ:\n%s", l.name, difference(got, want))
		}
		if !slices.Equal(gotFiles, wantFiles) {
			t.Errorf("%s: files differ:\n%s", l.name, difference(strings.Join(gotFiles, "\n"), strings.Join(wantFiles, "\n")))
		}
	}
	t.Logf("%d letters, %d files, %v", len(all), len(mine), time.Since(began))
	if len(all) < 200 {
		t.Errorf("only %d letters", len(all))
	}
	testReaders(t, mine)
}
