package expand

import (
	"net/netip"
	"strings"
	"testing"

	"dovepost/auth"
)

// expanded is a text with its variables expanded.
func expanded(t *testing.T, text string, in Values) string {
	t.Helper()
	p, err := Parse(text, Scan)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	s, err := p.Expand(in)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return s
}

// variables and modifiers expand as in Dovecot 2.3.19: what is wanted here was
// shown by doveadm auth lookup with these templates.
func TestVariables(t *testing.T) {
	templates := []string{
		"%u|%n|%d|%s", "%Lu|%Uu|%Un", "%2.3u|%-2.3u|%3u|%-4.2u|%.2u|%1.-2n", "%Hu|%32Hu|%2.256Hu|%Nu|%16Nu|%3.4096Nu",
		"%Mu|%Ru|%LRu|%Dd|%Tu|%Xn|%5Xn", "%{user}|%{username}|%{domain}|%{domain_first}|%{domain_last}|%{service}",
		"%{orig_user}|%{auth_user}|%{login_user}|%{master_user}|%{auth_domain}", "%l|%r|%a|%b|%m|%k|%{session}|%{lport}",
		"%%|100%%|%05n|%010n|%-3n|%0.4n|%0.04n|%3.0n|%100.2n|%-100.2n|%2.-100n|%2.-1n",
		"%{md5:user}|%{sha1:username}|%L{user}|%2.3{domain}|%08X{lport}",
	}
	for user, want := range map[string][]string{
		"Bob.X@Sub.Example.COM": {
			"Bob.X@Sub.Example.COM|Bob.X|Sub.Example.COM|imap", "bob.x@sub.example.com|BOB.X@SUB.EXAMPLE.COM|BOB.X",
			"b.X|OM|Bob|.C|Bo|ob", "538d39d|1d|9d|80f5000a|a|00a",
			"f0fbdc7380f5000af3a5c0353d4358b5|MOC.elpmaxE.buS@X.boB|moc.elpmaxe.bus@x.bob|Sub,dc=Example,dc=COM|Bob.X@Sub.Example.COM|0|0",
			"Bob.X@Sub.Example.COM|Bob.X|Sub.Example.COM|Sub.Example.COM|Sub.Example.COM|imap",
			"Bob.X@Sub.Example.COM|Bob.X@Sub.Example.COM|||Sub.Example.COM", "10.0.0.1|::1|143|4711|||abc|143",
			"%|100%|Bob.X|00000Bob.X|Bob|Bob.|Bob.X|.X||Bo|b.X|b.",
			"f0fbdc7380f5000af3a5c0353d4358b5|54dfdbbe99fff200fba95779a30eb04dd35e0fa5|bob.x@sub.example.com|b.E|0000008f"},
	} {
		r := &auth.Request{User: user, Service: "imap", LocalIP: netip.MustParseAddr("10.0.0.1"), RemoteIP: netip.MustParseAddr("::1"),
			LocalPort: 143, RemotePort: 4711, Session: "abc"}
		for i, template := range templates {
			if got := expanded(t, template, Values{Request: r}); got != want[i] {
				t.Errorf("%s of %s:\n got %s\nwant %s", template, user, got, want[i])
			}
		}
	}
}

// names without a domain, or with two.
func TestVariablesParts(t *testing.T) {
	for user, want := range map[string]string{"alice": "alice|||", "a@b@c.d": "a|b@c.d|b|c.d", "@d": "|d|d|d", "a@": "a|||"} {
		if got := expanded(t, "%n|%d|%{domain_first}|%{domain_last}", Values{Request: &auth.Request{User: user}}); got != want {
			t.Errorf("%s: got %s, want %s", user, got, want)
		}
	}
	for want, r := range map[string]*auth.Request{"||x": {User: "x"}, "secured||x": {User: "x", Secured: true},
		"TLS|valid|X@d": {User: "x@d", Login: "X@d", Secured: true, TLS: true, ClientCert: true}} {
		if got := expanded(t, "%c|%k|%{auth_user}", Values{Request: r}); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// a mask is a glob.
func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		mask, name string
		want       bool
	}{
		{"*", "a@b", true}, {"*", "", true}, {"a@b", "a@b", true}, {"a@b", "A@b", false}, {"*@b", "a@b", true},
		{"*@b", "a@bc", false}, {"a?b", "a@b", true}, {"a?b", "ab", false}, {"*a*b*", "xxaxxbxx", true}, {"*a*b*", "xxbxxaxx", false},
		{"**", "x", true}, {"a*", "b", false}, {"?", "", false}, {"*?", "", false}, {"a*a", "a", false}, {"[a]", "a", false},
	} {
		if got := Match(tt.mask, tt.name); got != tt.want {
			t.Errorf("%q of %q: got %v", tt.mask, tt.name, got)
		}
	}
	if Match(strings.Repeat("*a", 1000), strings.Repeat("a", 1000)+"b") {
		t.Error("matches")
	}
}

// functions expand as in Dovecot 2.3.19.
func TestFunctions(t *testing.T) {
	t.Setenv("EXPAND_TEST", "from env")
	r := &auth.Request{User: "o'brien@example.com", Service: "imap", Password: "pw", MasterUser: "root@example.com",
		Forward: auth.Fields{{Name: "x", Value: "fx"}}, Row: &auth.Credentials{Fields: auth.Fields{{Name: "host", Value: "h1"}}, Userdb: auth.Fields{{Name: "home", Value: "/h"}}}}
	for text, want := range map[string]string{
		"%{if;%s;eq;imap;yes;no}": "yes", "%{if;%s;eq;pop3;yes;no}": "no", "%{if;%s;eq;pop3;yes}": "", "%{if;%s;ne;;%Un@%d;x}": "O'BRIEN@example.com",
		"%{if;%{lport};==;0;zero;%{if;1;<;2;a;b}}": "zero", "%{if;%u;*;*@example.com;in;out}": "in", "%{if;%u;!*;*@example.com;in;out}": "out",
		"%{if;%d;~;^exam[a-z]+;re;-}": "re", "%{if;%s;eq;imap;a\\;b\\:c;d}": "a;b:c", "%L{if;1;==;1;ABC}": "abc", "%{if;%s;eq;imap;a:b;c}": "a",
		"%{env:EXPAND_TEST}": "from env", "%{env:EXPAND_NONE}": "", "%{passdb:host}": "h1", "%{passdb:none:dflt}": "dflt", "%{passdb:forward_x}": "fx",
		"%{userdb:home}": "/h", "%{userdb:none}": "", "%w": "pw", "%{master_user}|%{auth_user}": "root@example.com|root@example.com", "%!": "1", "%p": "0",
	} {
		if got := expanded(t, text, Values{Request: r}); got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
	for _, text := range []string{"%{if;a}", "%{if;a;zz;b;c}", "%{if;%u;==;x;a;b}", "%{if;a;~;(;c}", "%{if;%z;eq;a;b}", "%{sha9:user}", "%{sha256:u}",
		"%{sha256;rounds=0:user}", "%{sha256;rounds=999999999:user}", "%{sha256;format=x:user}", "%{pkcs5;salt=%z:user}", "%{user", "%{u}", "%z", "%", "%5", "%L", "%'", "% ",
		strings.Repeat("%{if;", 10) + "1" + strings.Repeat(";==;1;a;b}", 10)} {
		if p, err := Parse(text, Scan); err == nil {
			t.Errorf("%s is taken: %+v", text, p)
		}
	}
	p, err := Parse("%{if;%u;==;%d;a;b}", Scan)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := p.Expand(Values{Request: r}); err == nil {
		t.Errorf("numbers that are none compare as %q", got)
	}
}

// what a client can choose is escaped before it is cut or hashed; what it cannot choose, never.
func TestEscape(t *testing.T) {
	in := Values{Request: &auth.Request{User: "o'b@x", Service: "'"}, Escape: func(s string) string { return strings.ReplaceAll(s, "'", `\'`) }}
	for text, want := range map[string]string{"%u": `o\'b@x`, "%3u": `o\'`, "%Rn": `b'\o`, "%s": "'", "%{if;%n;eq;o\\'b;same;other}": "other"} {
		if got := expanded(t, text, in); got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
}

// variables of 2.4 expand as in Dovecot 2.4.
func TestModern(t *testing.T) {
	r := &auth.Request{User: "Al.X@Example.com", Service: "imap"}
	for text, want := range map[string]string{
		"%{user}": "Al.X@Example.com", "%{user | domain}": "Example.com", "%{user|username|lower}": "al.x", "%{protocol}": "imap", "%{ user | upper }": "AL.X@EXAMPLE.COM",
		"%{user | substr(0, 2)}": "Al", "%{user | substr(-3)}": "com", "%{local_name | default('x y')}": "x y", "%{protocol | if('eq', 'imap', 'a', \"b\")}": "a",
		"%{user | domain | index('.', 0)}": "Example", "%{literal('a|b}')}": "a|b}", "100%% or %": "100% or %", "%{user | concat('!', '?')}": "Al.X@Example.com!?",
		"%{user | length}": "16", "%{user | username | sha1}": "",
		// Octets are written in hexadecimal at the end only.
		"%{protocol | md5}": "b2a4d1002579716e40261daba3be0fc7", "%{protocol | md5 | hexlify(4)}": "b2a4", "%{protocol | md5 % 256}": "199", "%{protocol | md5 % 256 | hex(4)}": "00c7",
		"%{protocol | md5 | base64}": "sqTRACV5cW5AJh2ro74Pxw==", "%{protocol | md5 | hexlify | substr(-3)}": "fc7",
	} {
		p, err := Parse(text, ScanModern)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := p.Expand(Values{Request: r}); err != nil || got != want && want != "" {
			t.Errorf("%s: got %q, %v; want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"%{u}", "%{user", "%{user | nonsense}", "%{user | substr(x)}", "%{user | lower(1)}", "%{}", "%{user |}", "%{user lower}", "%{user | concat('a'", "%{user | if('zz','a','b','c')}", "%{user | if('=','a','b','c')}",
		"%{user | hash(size)}", "%{user | hash('nosuch')}", "%{user | sha1(x=1)}", "%{user % 0}", "%{user % x}", "%{user | hexlify(-1)}", "%{user | hex(9999)}", "%{user | truncate(-1)}"} {
		if p, err := Parse(text, ScanModern); err == nil {
			t.Errorf("%s is taken: %+v", text, p)
		}
	}
}

// A variable takes no more than there is, is stable, and never gives out more
// octets than its width and the value allow.
func FuzzScan(f *testing.F) {
	for _, text := range []string{"%u", "%-2.3Ln", "%08X{lport}", "%2.256Hu", "%{sha256:user}x", "%65536.-65536Nu", "%{if;%u;*;%d*;%{md5:user};x}"} {
		f.Add(text, "Bob.X@Sub.Example.COM")
	}
	f.Fuzz(func(t *testing.T, text, user string) {
		if !strings.HasPrefix(text, "%") || strings.Contains(text, "env:") || strings.Contains(text, "rounds") || strings.Contains(text, "pkcs5") {
			return
		}
		for _, scanner := range []Scanner{Scan, ScanModern} {
			v, n, err := scanner(text)
			if err != nil || v == nil {
				continue
			}
			if n < 2 || n > len(text) {
				t.Fatalf("%q: %d octets", text, n)
			}
			again, m, err := scanner(text[:n])
			if err != nil || m != n {
				t.Fatalf("%q reads as %d octets, these as %d, %v", text, n, m, err)
			}
			in := Values{Request: &auth.Request{User: user, Service: "imap"}}
			got, err := v.Value(in)
			if other, _ := again.Value(in); other != got {
				t.Errorf("%q of %q is not stable", text, user)
			}
			if err != nil && !v.Fallible() {
				t.Errorf("%q of %q: %v", text, user, err)
			}
			if limit := (len(text)+1)*(1<<17) + 600*(len(user)+1)*(len(text)+1); len(got) > limit {
				t.Errorf("%q of %q has %d octets", text, user, len(got))
			}
		}
	})
}
