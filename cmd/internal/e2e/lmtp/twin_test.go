// Package lmtp compares lmtpd with Dovecot's LMTP: the same conversations with both,
// the same replies, the same files.
package lmtp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
)

var (
	native, ours *stack.Stack
	users        = []string{"u1", "u2", "u3", "full"}
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

// old says that Dovecot is 2.3.
var old bool

func run(m *testing.M) int {
	version, err := exec.Command("dovecot", "--version").Output()
	if err = errors.Join(err, overInet.prepare()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	args := append(overInet.args(), "--hostname=mail.example.com")
	if old = bytes.HasPrefix(version, []byte("2.3.")); !old {
		args = append(args, "--quota_grace=10M") // its default
	}
	defer os.RemoveAll(overInet.dir)
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i, s := range []**stack.Stack{&native, &ours} {
		options := stack.Options{
			Flavour: []stack.Flavour{stack.Native, stack.Dovepost}[i], Domains: []string{"example.net"},
			DaemonArgs: map[string][]string{"lmtpd": args},
			MainCF:     []string{"lmtp_send_xforward_command = yes"},
		}
		if s == &native {
			options.DovecotConf = overInet.conf()
		}
		for _, user := range users {
			quota := int64(0)
			if user == "full" {
				quota = 20
			}
			options.Users = append(options.Users, stack.User{Email: user + "@example.net", Password: "x", Quota: quota})
		}
		wg.Go(func() { *s, errs[i] = stack.Start(options) })
	}
	wg.Wait()
	code := 1
	if errs[0] == nil && errs[1] == nil {
		code = m.Run()
	}
	for i, s := range []*stack.Stack{native, ours} {
		if errs[i] != nil {
			fmt.Fprintln(os.Stderr, errs[i])
		} else if err := s.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

const (
	lhlo = "LHLO c.test\r\n"
	mail = "MAIL FROM:<a@b.test>\r\n"
	u1   = "RCPT TO:<u1@example.net>\r\n"
	u2   = "RCPT TO:<u2@example.net>\r\n"
	gone = "RCPT TO:<gone@example.net>\r\n"
	quit = "QUIT\r\n"
)

// conversations are sent in one write each: Dovecot and lmtpd both take pipelined
// commands. differs names each place where they shall not be alike: a line of
// Dovecot 2.3's, and ours.
var conversations = []struct {
	name    string
	send    string
	differs []string
}{
	{"the verbs", lhlo + "NOOP\r\nNOOP x\r\nRSET\r\nRSET x\r\nVRFY a\r\nVRFY\r\nHELO x\r\nEHLO x\r\nHELP\r\nEXPN\r\nNOOP\r\nLHLO\r\nLHLO a b\r\nQUIT x\r\n" + quit, nil},
	{"lines that are no commands", "\r\n  \r\n NOOP\r\nNOOP  x\r\nNOOP\tx\r\nNOOP \r\nNOOP\rx\r\nNOOP\x00\r\nNOOP \xe4\r\n.\r\nNOOP\nNOOP " + strings.Repeat("x", 4091) + "\r\n" + "NOOP " + strings.Repeat("x", 5000) + "\r\n" + quit,
		nil},
	{"too many wrong commands", strings.Repeat("FOO\r\n", 12), nil},
	{"wrong commands with a right one among them", strings.Repeat("FOO\r\n", 9) + "NOOP\r\n" + strings.Repeat("FOO\r\n", 9) + quit, nil},
	{"commands in a wrong order", "RCPT TO:<u1@example.net>\r\nDATA\r\n" + mail + mail + "DATA\r\nDATA x\r\n" + gone + "DATA\r\nRSET\r\n" + u1 + mail + lhlo + u1 + quit, nil},
	{"paths of MAIL", "MAIL\r\nMAIL FROM\r\nMAIL FROM:\r\nMAIL FROM:a@b\r\nNOOP\r\nMAIL FROM: <a@b>\r\nMAIL FROM:<a@b\r\nMAIL FROM:<a@b>x\r\nMAIL FROM:<a b@c>\r\nMAIL FROM:<@a>\r\nMAIL FROM:<@a,b:c@d>\r\n" +
		"NOOP\r\nMAIL FROM:<a@b.>\r\nMAIL FROM:<a@b..c>\r\nMAIL FROM:<a@>\r\nMAIL FROM:<@a:>\r\nMAIL FROM:<\"a@b>\r\n" + quit,
		nil},
	{"senders that are no addresses", strings.Join([]string{"", "root>", "@a>", "a@b.>", "a@b..c>", "a@b@c>", "a@>", "@a:>", "a\\b@c>", "a\"b@c>", ":@c>", "a,b@c>", "a@!>",
		"\"a b\"@c@d>", "a@b>>", "<a@b>>", ">x", "a b@c>", "a@b c>", "a>b>", "a@[1.2.3]>"}, "\r\nRSET\r\nMAIL FROM:<")[2:] + "\r\n" + quit, nil},
	{"a message from no address", lhlo + "MAIL FROM:<root> BODY=8BITMIME\r\n" + u1 + "DATA\r\n\r\n.\r\nMAIL FROM:<a@b@c>\r\n" + u1 + "DATA\r\n\r\n.\r\n" + quit, nil},
	{"parameters of MAIL", "MAIL FROM:<a@b>  BODY=7BIT\r\nMAIL FROM:<a@b> =x\r\nMAIL FROM:<a@b> BODY==x\r\nMAIL FROM:<a@b> BODY\r\nMAIL FROM:<a@b> BODY=7BIT BODY=7BIT\r\nNOOP\r\n" +
		"MAIL FROM:<a@b> BODY=BINARYMIME\r\nMAIL FROM:<a@b> RET=FULL\r\nMAIL FROM:<a@b> ENVID=x\r\nMAIL FROM:<a@b> AUTH=<>\r\nMAIL FROM:<a@b> X\r\nMAIL FROM:<a@b> BODY=8bitmime\r\n" + quit, nil},
	{"recipients", mail + "RCPT\r\nRCPT TO:\r\nRCPT TO:<>\r\nRCPT TO: <u1@example.net>\r\nRCPT TO:u1@example.net\r\nNOOP\r\nRCPT TO:<u1@example.net> NOTIFY=NEVER\r\nRCPT TO:<u1@example.net> ORCPT=a\r\n" +
		"RCPT TO:<u1@example.net> ORCPT=rfc822;a+2\r\nRCPT TO:<\"gone x\"@example.net>\r\nRCPT TO:<\"gone\\ x\"@example.net>\r\nRCPT TO:<../../etc/x@example.net>\r\nRCPT TO:<u..1@example.net>\r\n" +
		"RCPT TO:<+x@example.net>\r\nRCPT TO:<u%1@example.net>\r\nRCPT TO:<gone+x@Example.NET>\r\nRCPT TO:<u1@[1.2.3.4]>\r\nRCPT TO:<u1@-x>\r\nRCPT TO:<gone>\r\nRCPT TO:<u1' OR 1=1 -- @example.net>\r\n" +
		"RCPT TO:<u1'@example.net>\r\nRCPT TO:<*@example.net>\r\nRCPT TO:<\"u1@example.net\"@example.net>\r\n" + quit, nil},
	{"one recipient", lhlo + mail + "RCPT TO:<u1+foo@example.net>\r\nDATA\r\nSubject: x\r\n\r\nfoo\r\n.\r\n" + quit, nil},
	{"a quoted recipient and a source route", lhlo + mail + "RCPT TO:<@a,@b:\"u1\"@example.net>\r\nDATA\r\n\r\n.\r\n" + quit, nil},
	{"the null sender, no LHLO", "MAIL FROM:<>\r\n" + u1 + "DATA\r\n.\r\n" + quit, nil},
	{"an LHLO that names nobody", "LHLO -_-).x\r\n" + mail + u1 + "DATA\r\n.\r\n" + quit, nil},
	{"several transactions", lhlo + mail + "RSET\r\n" + mail + u1 + "DATA\r\n.\r\n" + mail + gone + u2 + "DATA\r\n\r\n.\r\n" + mail + u1 + lhlo + mail + u2 + "DATA\r\n.\r\n" + quit, nil},
	{"repeated recipients", lhlo + mail + u1 + "RCPT TO:<u1@EXAMPLE.net>\r\nRCPT TO:<U1@example.net>\r\nRCPT TO:<u1@example.net> ORCPT=rfc822;x@y\r\n" + gone + u2 + "DATA\r\nx\r\n.\r\n" + quit, nil},
	{"one recipient twice", lhlo + mail + u1 + u1 + "DATA\r\nx\r\n.\r\n" + quit, nil},
	{"all recipients refused", lhlo + mail + gone + "DATA\r\nRSET\r\n" + quit, nil},
	{"octets", lhlo + mail + u1 + "DATA\r\na\x00\xe4\rb\nc\r\n..\r\n...x\r\n.x\r\n" + strings.Repeat("z", 70000) + "\r\n.\r\n" + quit, nil},
	{"an end after CR CR LF", lhlo + mail + u1 + "DATA\r\nx\r\r\n.\r\n" + quit, nil},
	{"chunks", lhlo + mail + u1 + "BDAT 3\r\nabcBDAT 3\r\nef\rBDAT 5 LAST\r\n\nghi\n" + mail + u1 + "BDAT 0 LAST\r\n" + mail + u1 + "BDAT 4 LAST\r\n\r\n.x" + quit, nil},
	{"a chunk for nobody", lhlo + "BDAT 6\r\nQUIT\r\nRSET\r\n" + mail + gone + "BDAT 6\r\nQUIT\r\nRSET\r\n" + quit, nil},
	{"odd chunks", lhlo + mail + u1 + "BDAT 1 x\r\nyBDAT 1\r\nzRSET\r\n" + quit, nil},
	{"over quota", lhlo + mail + "RCPT TO:<full@example.net>\r\n" + u2 + "DATA\r\n" + strings.Repeat("0123456789abcdef\r\n", 2000) + ".\r\n" + quit, nil},
	// A server that ends a message at LF.LF, as Dovecot 2.3 does and 2.4 does not, runs what follows as commands.
	{"a smuggled command", lhlo + mail + u1 + "DATA\r\nx\n.\nNOOP\r\n.\r\n" + quit, []string{
		"250 2.0.0 <u1@example.net> ID Saved\n250 2.0.0 OK\n500 5.5.2 Invalid command syntax", "250 2.0.0 <u1@example.net> ID Saved"}},
}

// talk sends text and returns all replies.
func talk(t *testing.T, path, text string) string {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	go io.WriteString(c, text)
	var out bytes.Buffer
	if _, err := io.Copy(&out, c); err != nil {
		t.Logf("%s: %v", path, err)
	}
	return out.String()
}

// What differs from run to run, and what the two announce.
var (
	sessionID  = regexp.MustCompile(`[A-Za-z0-9+/]{22}((?::T\d+)?(?::R\d+)?)( Saved|\n)`)
	date       = regexp.MustCompile(`[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} [\d:]{8} [+-]\d{4}`)
	capability = regexp.MustCompile(`(?m)^250[ -](SIZE.*|SMTPUTF8|8BITMIME|CHUNKING|ENHANCEDSTATUSCODES|PIPELINING|STARTTLS|XCLIENT.*|XFORWARD.*|XRCPTFORWARD)\n`)
	greeting   = regexp.MustCompile(`(?m)^220 mail\.example\.com .*ready\.\n`)
)

func normal(text string) string {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	for from, to := range map[*regexp.Regexp]string{sessionID: "ID$1$2", date: "DATE", capability: "", greeting: "220\n"} {
		text = from.ReplaceAllString(text, to)
	}
	return text
}

// files returns what lies in the mailboxes of s, and removes it.
func files(t *testing.T, s *stack.Stack) (all []string) {
	t.Helper()
	for _, user := range users {
		names, err := filepath.Glob(filepath.Join(s.MailRoot(), "example.net", user, "Maildir/*/*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if folder := filepath.Base(filepath.Dir(name)); folder != "new" && folder != "tmp" && folder != "cur" {
				continue
			}
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
			text = []byte(sessionID.ReplaceAllString(date.ReplaceAllString(string(text), "DATE"), "ID$1$2"))
			all = append(all, fmt.Sprintf("%s %s %q", user, filepath.Base(filepath.Dir(name)), text))
		}
	}
	slices.Sort(all)
	return all
}

func TestTwins(t *testing.T) {
	for _, tt := range conversations {
		t.Run(tt.name, func(t *testing.T) {
			want := normal(talk(t, native.LMTPAddr, tt.send))
			got := normal(talk(t, ours.LMTPAddr, tt.send))
			if old && len(tt.differs) == 2 {
				if !strings.Contains(want, tt.differs[0]) {
					t.Errorf("Dovecot no longer says %q", tt.differs[0])
				}
				want = strings.Replace(want, tt.differs[0], tt.differs[1], 1)
			}
			if got != want {
				t.Errorf("replies differ:\n%s", difference(got, want))
			}
			gotFiles, wantFiles := files(t, ours), files(t, native)
			if (!old || len(tt.differs) == 0) && !slices.Equal(gotFiles, wantFiles) {
				t.Errorf("files differ:\n%s", difference(strings.Join(gotFiles, "\n"), strings.Join(wantFiles, "\n")))
			}
		})
	}
}

// difference shows the first line in which two texts are not alike.
func difference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		var a, b string
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			return fmt.Sprintf("line %d\n got %.500s\nwant %.500s", i+1, a, b)
		}
	}
	return "nothing"
}
