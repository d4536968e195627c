package session

import (
	"bytes"
	"context"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"
)

// script is a connection that reads a fixed text and collects the replies.
type script struct {
	io.Reader
	out bytes.Buffer
}

func (s *script) Write(p []byte) (int, error)      { return s.out.Write(p) }
func (s *script) Close() error                     { return nil }
func (s *script) LocalAddr() net.Addr              { return nil }
func (s *script) RemoteAddr() net.Addr             { return nil }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

var (
	replyLine = regexp.MustCompile(`^[2345]\d\d[ -][\x20-\x7e\x80-\xff]*$`)
	saved     = regexp.MustCompile(`(?m)^250 2\.0\.0 <.*> ID\S* Saved\r$`)
)

// Whatever the client sends: replies are single lines that begin with a code, as
// many messages are stored as are acknowledged (copies for repeated recipients
// aside), nothing is left in use, and where the packets end changes nothing.
func FuzzSession(f *testing.F) {
	f.Add([]byte("LHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n"), []byte{3})
	f.Add([]byte("MAIL FROM:<a@b> SIZE=3\r\nRCPT TO:<u1@example.test>\r\nRCPT TO:<full@example.test>\r\nBDAT 3\r\nabcBDAT 2 LAST\r\nde"), []byte{})
	f.Add([]byte("MAIL FROM:<>\r\nBDAT 6\r\nQUIT\r\nNOOP\r\nRCPT TO:<gone@example.test>\r\nBDAT 6 LAST\r\nQUIT\r\nVRFY x\r\n"), []byte{0, 0, 0, 0})
	f.Add([]byte("MAIL FROM:<>\r\nRCPT TO:<\"a\\\" b\"@c> ORCPT=rfc822;+41\r\nDATA\r\nRSET\r\n"), []byte{200})
	f.Add([]byte("MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nDATA\r\na\n.\nMAIL FROM:<x@y>\r\n\r.\r\n.\r\n"), []byte{1, 1, 1})
	f.Add([]byte("LHLO a\r\nXFORWARD ADDR=1.2.3.4 IDENT=4+2BX\r\nMAIL FROM:<>\r\nXFORWARD IDENT=x\r\nRCPT TO:<u2@example.test>\r\nDATA\r\n.\r\nXCLIENT ADDR=1\r\nSTARTTLS\r\n"), []byte{9, 1})
	f.Fuzz(func(t *testing.T, in, lengths []byte) {
		talk := func(r io.Reader) (string, *memory) {
			m := new(memory)
			h := newHandler(m)
			h.MaxSize, h.MaxRecipients, h.UserConcurrency = 1000, 4, 3
			c := &script{Reader: r}
			h.ServeConn(context.Background(), c)
			if len(h.users) != 0 || h.usage.memory.Load() != 0 || h.usage.disk.used != 0 {
				t.Fatalf("%q: left in use: users %v, memory %d, disk %d", in, h.users, h.usage.memory.Load(), h.usage.disk.used)
			}
			return c.out.String(), m
		}
		out, m := talk(bytes.NewReader(in))
		for line := range strings.SplitSeq(strings.TrimSuffix(out, "\r\n"), "\r\n") {
			if !replyLine.MatchString(line) {
				t.Fatalf("%q: reply %q", in, line)
			}
		}
		if acks := len(saved.FindAllString(out, -1)); acks < len(m.boxes) || acks > 0 && len(m.boxes) == 0 {
			t.Fatalf("%q: %d acknowledged, %d stored: %q", in, acks, len(m.boxes), out)
		}
		if again, _ := talk(&pieces{bytes.Clone(in), lengths}); again != out {
			t.Fatalf("%q in pieces: got %q; want %q", in, again, out)
		}
	})
}

// What is taken for a command is UTF-8 without a control, and its parts are in it.
func FuzzCommand(f *testing.F) {
	for _, s := range []string{"NOOP", "mail FROM:<a@b> SIZE=1", " x", "RCPT  TO:", "", "A\tB", "NOOP\x00", "BDAT 5 LAST \t"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		verb, arg, ok := parseCommand(line)
		if !ok {
			return
		}
		if strings.ContainsAny(arg, "\r\n\x00\x7f") || strings.Trim(verb, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			t.Fatalf("parseCommand(%q) = %q, %q", line, verb, arg)
		}
		if text := string(line); !strings.EqualFold(verb, text[:len(verb)]) || !strings.Contains(text, arg) {
			t.Fatalf("parseCommand(%q) = %q, %q", line, verb, arg)
		}
	})
}
