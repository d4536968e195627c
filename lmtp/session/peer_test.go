package session

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// Over a unix socket XFORWARD is for all, and XCLIENT for nobody; what XFORWARD said ends with the transaction,
// and stands above the top Received field.
func TestForwardedName(t *testing.T) {
	const mail = "MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nDATA\r\nReceived: by x id 4TOP; now\r\n\r\n.\r\n"
	m := new(memory)
	c := &script{Reader: strings.NewReader("LHLO c\r\nXCLIENT SESSION=x\r\nXFORWARD ADDR=192.0.2.1 IDENT=4FIRST\r\n" + mail + mail +
		"XFORWARD IDENT=4+2DSECOND\r\nXFORWARD ADDR=192.0.2.2\r\n" + mail +
		"XFORWARD IDENT=4RSET\r\nRSET\r\n" + mail + "XFORWARD IDENT=4LHLO\r\nLHLO c\r\n" + mail +
		"XFORWARD IDENT=a+20b\r\n" + mail + "XFORWARD IDENT=[UNAVAILABLE]\r\n" + mail)}
	if err := newHandler(m).ServeConn(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, env := range m.envs {
		got = append(got, env.Queue)
	}
	if want := "[4FIRST 4TOP 4-SECOND 4TOP 4TOP 4TOP 4TOP]"; fmt.Sprint(got) != want {
		t.Errorf("Queue: %v; want %s", got, want)
	}
	if out := c.out.String(); !strings.Contains(out, "250-XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE\r\n") ||
		strings.Contains(out, "250-XCLIENT") || strings.Count(out, "550 5.7.14") != 1 {
		t.Errorf("got %q; want XFORWARD announced, XCLIENT refused", out)
	}
}

// Whatever attributes say: names are keywords, values come back from xtext, and what is taken for
// a token or an address can stand in a header.
func FuzzAttributes(f *testing.F) {
	for _, s := range []string{
		"NAME=spike.porcupine.org ADDR=168.100.189.2 PROTO=ESMTP", "ADDR=IPV6:2001:db8::1 IDENT=4XYZ", "HELO=a+20b+0D", "ident=[UNAVAILABLE] X", "A=+", "=",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var back []string
		err := eachAttribute(s, func(name, value string) bool {
			if !isKeyword(name) || name != strings.ToUpper(name) {
				t.Fatalf("%q: name %q", s, name)
			}
			back = append(back, name+"="+xtext(value))
			if addr, ok := parseAddr(value); ok && strings.Trim(addrText(addr), "0123456789abcdef:.") != "" {
				t.Fatalf("%q: address %q", s, addrText(addr))
			}
			if isToken(value) && strings.ContainsAny(value, " \t\r\n<>\x00\x7f\"") {
				t.Fatalf("%q: token %q", s, value)
			}
			return true
		})
		if err != nil {
			return
		}
		var again []string
		if err := eachAttribute(strings.Join(back, " "), func(name, value string) bool {
			again = append(again, name+"="+xtext(value))
			return true
		}); err != nil || fmt.Sprint(again) != fmt.Sprint(back) {
			t.Fatalf("%q: %q, written again %q, %v", s, back, again, err)
		}
	})
}

// xtext encodes as RFC 3461 4 says.
func xtext(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == '+' || s[i] == '=' {
			fmt.Fprintf(&b, "+%02X", s[i])
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
