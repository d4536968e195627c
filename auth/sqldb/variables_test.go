package sqldb

import (
	"net/netip"
	"strings"
	"testing"

	"dovepost/auth"
	"dovepost/lookup/mysql"
)

// expand expands a template as if it stood in quotes.
func expand(t *testing.T, template string, r *auth.Request) string {
	t.Helper()
	p, err := compilePath(template)
	if err != nil {
		t.Fatalf("%s: %v", template, err)
	}
	var b strings.Builder
	for _, part := range p {
		b.WriteString(part.text)
		if part.variable != nil {
			b.WriteString(part.variable.value(r))
		}
	}
	return b.String()
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
			if got := expand(t, template, r); got != want[i] {
				t.Errorf("%s of %s:\n got %s\nwant %s", template, user, got, want[i])
			}
		}
	}
}

// names without a domain, or with two.
func TestVariablesParts(t *testing.T) {
	for user, want := range map[string]string{"alice": "alice|||", "a@b@c.d": "a|b@c.d|b|c.d", "@d": "|d|d|d", "a@": "a|||"} {
		if got := expand(t, "%n|%d|%{domain_first}|%{domain_last}", &auth.Request{User: user}); got != want {
			t.Errorf("%s: got %s, want %s", user, got, want)
		}
	}
	for want, r := range map[string]*auth.Request{"||x": {User: "x"}, "secured||x": {User: "x", Secured: true},
		"TLS|valid|X@d": {User: "x@d", Login: "X@d", Secured: true, TLS: true, ClientCert: true}} {
		if got := expand(t, "%c|%k|%{auth_user}", r); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// what is unknown or must not reach the database is refused.
func TestVariablesRefused(t *testing.T) {
	for _, text := range []string{"%w", "%Lw", "%{password}", "%{md5:password}", "%z", "%{nonsense}", "%", "%5", "%L", "%{user", "%{u}",
		"%{if;%u;eq;x;y;z}", "%{passdb:x}", "%'", "% ", "%p"} {
		if v, err := scan(text); err == nil {
			t.Errorf("%q is taken: %+v", text, v)
		}
	}
}

// A variable takes no more than there is, is stable, and never gives out more
// octets than its width and the value allow.
func FuzzVariables(f *testing.F) {
	for _, text := range []string{"%u", "%-2.3Ln", "%08X{lport}", "%2.256Hu", "%{sha256:user}x", "%65536.-65536Nu"} {
		f.Add(text, "Bob.X@Sub.Example.COM")
	}
	f.Fuzz(func(t *testing.T, text, user string) {
		if !strings.HasPrefix(text, "%") || strings.Contains(text, "env:") {
			return
		}
		v, err := scan(text)
		if err != nil || v.Literal {
			return
		}
		if v.Len < 2 || v.Len > len(text) {
			t.Fatalf("%q: %d octets", text, v.Len)
		}
		again, err := scan(text[:v.Len])
		if err != nil || again.Len != v.Len {
			t.Fatalf("%q reads as %d octets, these as %d, %v", text, v.Len, again.Len, err)
		}
		r := &auth.Request{User: user, Service: "imap"}
		got := v.Value.value(r)
		if got != again.Value.value(r) {
			t.Errorf("%q of %q is not stable", text, user)
		}
		if w := v.Value.width; w > 0 && !v.Value.zero && !strings.ContainsAny(v.Value.modifiers, "HN") && len(got) > w {
			t.Errorf("%q of %q is %q, longer than %d", text, user, got, w)
		}
		if len(got) > 1<<17+64*len(user)+1024 {
			t.Errorf("%q of %q has %d octets", text, user, len(got))
		}
	})
}

// variables in the queries of real sites end up bound, or checked as names.
func TestTemplates(t *testing.T) {
	r := &auth.Request{User: "o'Brien@example.com", Service: "imap", Secured: true, TLS: true}
	for _, tt := range []struct{ query, text, args string }{
		{"SELECT '/var/vmail/%d/%n' AS home FROM u WHERE e = '%Lu'", "SELECT ? AS home FROM u WHERE e = ?", "/var/vmail/example.com/o'Brien|o'brien@example.com"},
		{"SELECT a FROM m WHERE m.enable%Ls%Lc=1 AND u='%u'", "SELECT a FROM m WHERE m.enableimaptls=1 AND u=?", "o'Brien@example.com"},
		{"SELECT a FROM m WHERE %Ls = 'Y' AND LOCATE('%Us', r) > 0", "SELECT a FROM m WHERE imap = 'Y' AND LOCATE(?, r) > 0", "IMAP"},
		{"SELECT a FROM m WHERE disable%Ls = 'n' AND '%s' IN ('imap', 'pop3') AND x LIKE '%%a'", "SELECT a FROM m WHERE disableimap = 'n' AND ? IN ('imap', 'pop3') AND x LIKE '%a'", "imap"},
	} {
		c, err := mysql.Compile(tt.query, scan)
		if err != nil {
			t.Errorf("%s: %v", tt.query, err)
			continue
		}
		text, args, err := c.Expand(func(v *variable) string { return v.value(r) })
		var got []string
		for _, arg := range args {
			got = append(got, arg.(string))
		}
		if err != nil || text != tt.text || strings.Join(got, "|") != tt.args {
			t.Errorf("%s:\n got %s %q, %v\nwant %s %s", tt.query, text, got, err, tt.text, tt.args)
		}
	}
	for _, query := range []string{"SELECT enable%u FROM t", "SELECT a FROM t WHERE %u = 'x'", "SELECT a FROM t WHERE b = %n"} {
		c, err := mysql.Compile(query, scan)
		if err != nil {
			t.Fatal(err)
		}
		if text, _, err := c.Expand(func(v *variable) string { return v.value(r) }); err == nil {
			t.Errorf("%s: got %s, want an error", query, text)
		}
	}
}
