package rules

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"dovepost/policy"
)

const list = `
# FIELD     PATTERN             ACTION
client      192.0.2.66          OK
client      192.0.2.0/24        REJECT bad network
client      2001:db8::/32       REJECT bad IPv6 network
sender      boss@example.org    DUNNO
sender      example.org         REJECT bad domain
Sender      .Example.NET        450 4.7.1 bad
                                subdomain
sender      @example.info       REJECT bad domain with an at sign
sender      <>                  WARN a bounce
sender      spam@               DISCARD
recipient   closed@example.com  REJECT closed
recipient   example.com         DUNNO
recipient   *                   DEFER not yet
login       mallory@example.com HOLD
login       root                REJECT no root
login       @example.edu        HOLD
`

func request(client, sender, recipient, login string) *policy.Request {
	addr, _ := netip.ParseAddr(client)
	return &policy.Request{State: "RCPT", ClientAddress: addr, Sender: sender, Recipient: recipient, SASLUsername: login}
}

func TestAccessHandles(t *testing.T) {
	a, err := ReadAccess(strings.NewReader(list), "+")
	if err != nil {
		t.Fatal(err)
	}
	if got := a.Len(); got != 15 {
		t.Errorf("%d rules, want 15", got)
	}
	for _, tt := range []struct{ name, client, sender, recipient, login, want string }{
		{"a stranger", "198.51.100.1", "a@b.c", "x@example.com", "", "DUNNO"},
		{"a network", "192.0.2.1", "a@b.c", "x@example.com", "", "REJECT bad network"},
		{"an address before its network", "192.0.2.66", "a@b.c", "x@example.com", "", "OK"},
		{"an IPv4 address in IPv6", "::ffff:192.0.2.1", "a@b.c", "x@example.com", "", "REJECT bad network"},
		{"an IPv6 network", "2001:db8:1::1", "a@b.c", "x@example.com", "", "REJECT bad IPv6 network"},
		{"no address", "", "a@b.c", "x@example.com", "", "DUNNO"},
		{"an exemption before a domain", "198.51.100.1", "boss@example.org", "x@example.com", "", "DUNNO"},
		{"an exemption with an extension", "198.51.100.1", "boss+x@example.org", "x@example.com", "", "DUNNO"},
		{"a domain", "198.51.100.1", "clerk@example.org", "x@example.com", "", "REJECT bad domain"},
		{"capitals", "198.51.100.1", "Clerk@EXAMPLE.org", "x@example.com", "", "REJECT bad domain"},
		{"a subdomain of a listed domain", "198.51.100.1", "a@sub.example.org", "x@example.com", "", "DUNNO"},
		{"a subdomain", "198.51.100.1", "a@sub.example.net", "x@example.com", "", "450 4.7.1 bad subdomain"},
		{"a deep subdomain", "198.51.100.1", "a@c.b.a.example.net", "x@example.com", "", "450 4.7.1 bad subdomain"},
		{"the domain of a subdomain rule", "198.51.100.1", "a@example.net", "x@example.com", "", "DUNNO"},
		{"a domain that only ends alike", "198.51.100.1", "a@notexample.org", "x@example.com", "", "DUNNO"},
		{"a domain with @", "198.51.100.1", "a@example.info", "x@example.com", "", "REJECT bad domain with an at sign"},
		{"the null sender", "198.51.100.1", "", "x@example.com", "", "WARN a bounce"},
		{"a local part", "198.51.100.1", "spam@anything", "x@example.com", "", "DISCARD"},
		{"a local part alone", "198.51.100.1", "spam", "x@example.com", "", "DISCARD"},
		{"a local part with an extension", "198.51.100.1", "spam+1@anything", "x@example.com", "", "DISCARD"},
		{"a recipient", "198.51.100.1", "a@b.c", "closed@example.com", "", "REJECT closed"},
		{"a recipient with an extension", "198.51.100.1", "a@b.c", "closed+x@example.com", "", "REJECT closed"},
		{"an extension without a name", "198.51.100.1", "a@b.c", "+closed@example.com", "", "DUNNO"},
		{"any recipient", "198.51.100.1", "a@b.c", "x@elsewhere", "", "DEFER not yet"},
		{"no recipient", "198.51.100.1", "a@b.c", "", "", "DUNNO"},
		{"a quoted local part with @", "198.51.100.1", `"a@b"@example.org`, "x@example.com", "", "REJECT bad domain"},
		{"a login", "198.51.100.1", "a@b.c", "", "mallory@example.com", "HOLD"},
		{"a login without a domain", "198.51.100.1", "a@b.c", "", "root", "REJECT no root"},
		{"a login of a domain", "198.51.100.1", "a@b.c", "", "x@example.edu", "HOLD"},
		{"the order of the file between fields", "192.0.2.1", "clerk@example.org", "closed@example.com", "root", "REJECT bad network"},
	} {
		got, err := a.Decide(context.Background(), request(tt.client, tt.sender, tt.recipient, tt.login))
		if err != nil || got.String() != tt.want {
			t.Errorf("it handles %s: %v, %v; want %s", tt.name, got, err, tt.want)
		}
	}
}

func TestTheNullSenderIsKnownOnlyAfterMAIL(t *testing.T) {
	a, err := ReadAccess(strings.NewReader("sender <> REJECT\n"), "")
	if err != nil {
		t.Fatal(err)
	}
	for state, want := range map[string]string{"CONNECT": "DUNNO", "EHLO": "DUNNO", "ETRN": "DUNNO", "VRFY": "DUNNO", "MAIL": "REJECT", "RCPT": "REJECT", "DATA": "REJECT", "END-OF-MESSAGE": "REJECT"} {
		if got, _ := a.Decide(context.Background(), &policy.Request{State: state}); got.String() != want {
			t.Errorf("%s: %v, want %s", state, got, want)
		}
	}
}

func TestAnySenderAndLogin(t *testing.T) {
	a, err := ReadAccess(strings.NewReader("sender * HOLD\nlogin * OK\nclient * DISCARD\n"), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ sender, login, want string }{{"a@b", "", "HOLD"}, {"", "x", "OK"}, {"", "", "DISCARD"}} {
		if got, _ := a.Decide(context.Background(), request("", tt.sender, "", tt.login)); got.String() != tt.want {
			t.Errorf("sender %q, login %q: %v, want %s", tt.sender, tt.login, got, tt.want)
		}
	}
}

func TestReadAccessRefuses(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"two words", "client 192.0.2.1\n", "line 1: want FIELD"},
		{"an unknown field", "\nhelo x REJECT\n", "line 2: unknown field"},
		{"an unknown action", "client 192.0.2.1 NO\n", "line 1: not an action"},
		{"an address that is none", "client 192.0.2.256 OK\n", "line 1: \"192.0.2.256\" is neither"},
		{"a network that is none", "client 192.0.2.0/33 OK\n", "is neither"},
		{"host bits", "client 192.0.2.1/24 OK\n", "is it 192.0.2.0/24?"},
		{"a zone", "client fe80::1%eth0 OK\n", "is neither"},
		{"<> as a recipient", "recipient <> OK\n", "for senders"},
		{"a star inside", "sender *@example.com OK\n", "stands alone"},
		{"an @ alone", "sender @ OK\n", "no address"},
		{"a continuation of nothing", " sender a@b OK\n", "continues nothing"},
		{"a line too long", "sender a@b REJECT " + strings.Repeat("x", maxAccessLine) + "\n", "line 1: "},
		{"a logical line too long", "sender a@b REJECT x\n" + strings.Repeat(" "+strings.Repeat("x", 1000)+"\n", 5), "longer than"},
		{"an error in the last line", "# fine\nsender a@b", "line 2: want"},
	} {
		a, err := ReadAccess(strings.NewReader(tt.in), "")
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v; want %q", tt.name, a, err, tt.want)
		}
	}
}

// FuzzAccess: a list that can be read decides as one that is tried line by line.
func FuzzAccess(f *testing.F) {
	f.Add(list, "192.0.2.1", "clerk@sub.example.net", "closed+x@example.com", "root")
	f.Add("sender .b.c HOLD\nsender a@ OK\n", "::1", "A@B.c.b.c", "", "")
	f.Add("login @x OK\nlogin * REJECT\n", "", "", "", "y@x")
	f.Add("client 0.0.0.0/0 OK\nclient ::/0 HOLD\n", "::ffff:1.2.3.4", "a", "b", "c")
	f.Fuzz(func(t *testing.T, text, client, sender, recipient, login string) {
		a, err := ReadAccess(strings.NewReader(text), "+")
		if err != nil {
			return
		}
		r := request(client, sender, recipient, login)
		got, err := a.Decide(context.Background(), r)
		if err != nil {
			t.Fatal(err)
		}
		if want := oneByOne(t, text, r); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	})
}

// oneByOne makes a list of every line alone and returns what the first that matches says.
func oneByOne(t *testing.T, text string, r *policy.Request) policy.Action {
	t.Helper()
	var logical []string
	for _, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || trimmed[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			logical[len(logical)-1] += " " + trimmed
		default:
			logical = append(logical, trimmed)
		}
	}
	for _, line := range logical {
		words := strings.Fields(line)
		a, err := ReadAccess(strings.NewReader(words[0]+" "+words[1]+" HOLD\n"), "+")
		if err != nil {
			t.Fatalf("%q alone: %v", line, err)
		}
		if got, _ := a.Decide(context.Background(), r); !got.IsDunno() {
			action, _ := policy.ParseAction(strings.Join(words[2:], " "))
			return action
		}
	}
	return policy.Dunno
}

func BenchmarkAccess(b *testing.B) {
	var text strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&text, "sender user%d@example%d.com REJECT\nclient 10.%d.%d.%d OK\n", i, i, i>>16, i>>8&255, i&255)
	}
	a, err := ReadAccess(strings.NewReader(text.String()), "+")
	if err != nil {
		b.Fatal(err)
	}
	r := request("192.0.2.1", "clerk@mail.example.net", "x@example.com", "x@example.com")
	b.ReportAllocs()
	for b.Loop() {
		a.Decide(context.Background(), r)
	}
}
