package session

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParsePathHandles(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     Address
		text     string // String
		rest     string
		err      error
	}{
		{"an address", "<a@b.test>", Address{"a", "b.test"}, "a@b.test", "", nil},
		{"what follows", "<a@b.test> SIZE=1", Address{"a", "b.test"}, "a@b.test", " SIZE=1", nil},
		{"the null path", "<>", Address{}, "", "", nil},
		{"no domain", "<root>", Address{"root", ""}, "root", "", nil},
		{"a source route", "<@a,@b.c:u@d>", Address{"u", "d"}, "u@d", "", nil},
		{"quotes that are not needed", `<"a.b"@d>`, Address{"a.b", "d"}, "a.b@d", "", nil},
		{"a space", `<"a b"@d>`, Address{"a b", "d"}, `"a b"@d`, "", nil},
		{"a quoted pair", `<"a\ b\"\\"@d>`, Address{`a b"\`, "d"}, `"a b\"\\"@d`, "", nil},
		{"an @ in quotes", `<"a@b"@d>`, Address{"a@b", "d"}, `"a@b"@d`, "", nil},
		{"a bracket in quotes", `<"a>"@d>`, Address{"a>", "d"}, `"a>"@d`, "", nil},
		{"empty quotes", `<""@d>`, Address{"", "d"}, `""@d`, "", nil},
		{"dots in odd places", "<.a..b.@d>", Address{".a..b.", "d"}, `".a..b."@d`, "", nil},
		{"a way out of the mail root", "<../../etc/x@d>", Address{"../../etc/x", "d"}, `"../../etc/x"@d`, "", nil},
		{"UTF-8", "<ä@ö.test>", Address{"ä", "ö.test"}, "ä@ö.test", "", nil},
		{"an address literal", "<a@[1.2.3.4]>", Address{"a", "[1.2.3.4]"}, "a@[1.2.3.4]", "", nil},
		{"an IPv6 literal", "<a@[IPv6:::1]>", Address{"a", "[IPv6:::1]"}, "a@[IPv6:::1]", "", nil},
		{"underscores and hyphens", "<a@-_x_.-y>", Address{"a", "-_x_.-y"}, "a@-_x_.-y", "", nil},
		{"an empty text", "", Address{}, "", "", errPathEmpty},
		{"blanks before the path", " <a@b>", Address{}, "", "", errPathSpace},
		{"no bracket", "a@b", Address{}, "", "", errPathOpen},
		{"no closing bracket", "<a@b", Address{"a", "b"}, "", "", errPathClose},
		{"text after the domain", "<a@b c>", Address{"a", "b"}, "", "", errPathClose},
		{"a blank in the local part", "<a b@c>", Address{"a", ""}, "", "", errPathClose},
		{"an end in the local part", "<a", Address{"a", ""}, "", "", errPathClose},
		{"a quote in the local part", `<a"b@c>`, Address{"a", ""}, "", "", errPathClose},
		{"an open quote", `<"a@b>`, Address{}, "", "", errQuotedOpen},
		{"a control in quotes", "<\"a\tb\"@c>", Address{}, "", "", errQuotedChar},
		{"a backslash at the end", `<"a\`, Address{}, "", "", errQuotedChar},
		{"no domain after @", "<a@>", Address{}, "", "", errDomainMissing},
		{"a final dot", "<a@b.>", Address{}, "", "", errDomainChar},
		{"two dots in a domain", "<a@b..c>", Address{}, "", "", errDomainEmpty},
		{"a domain of punctuation", "<a@!>", Address{}, "", "", errDomain},
		{"two @", "<a@b@c>", Address{"a", "b"}, "", "", errPathClose},
		{"an open literal", "<a@[1.2.3.4>", Address{}, "", "", errLiteral},
		{"an empty literal", "<a@[]>", Address{}, "", "", errLiteral},
		{"only a route", "<@a:>", Address{}, "", "", errRouteOnly},
		{"a route without an end", "<@a>", Address{}, "", "", errRouteColon},
		{"a route without @", "<@a,b:u@d>", Address{}, "", "", errRouteAt},
		{"a route without a domain", "<@:u@d>", Address{}, "", "", errRouteDomain},
	} {
		a, rest, err := ParsePath(tt.in)
		if err != tt.err {
			t.Errorf("%s: ParsePath(%q): %v; want %v", tt.name, tt.in, err, tt.err)
			continue
		}
		if (err == nil || err == errPathClose) && a != tt.want || err == nil && (rest != tt.rest || a.String() != tt.text) {
			t.Errorf("%s: ParsePath(%q) = %+v (%s), %q; want %+v (%s), %q", tt.name, tt.in, a, a, rest, tt.want, tt.text, tt.rest)
		}
	}
}

func TestSkipPathHandles(t *testing.T) {
	for _, tt := range []struct {
		name, in, rest string
		ok             bool
	}{
		{"no domain", "<root>", "", true},
		{"a final dot", "<a@b.> SIZE=1", " SIZE=1", true},
		{"a backslash", "<a\\b@c>", "", true},
		{"a bracket and a blank in quotes", `<"a> b"@c@d>x`, "x", true},
		{"a quoted quote", `<"a\" b"@c@d>`, "", true},
		{"a quote within", `<a"b c"@d>`, "", false},
		{"a blank", "<a b@c>", "", false},
		{"no bracket", "a@b>", "", false},
		{"no end", "<a@b", "", false},
		{"an open quote", `<"a@b>`, "", false},
		{"nothing", "", "", false},
		{"a backslash at the end", `<"a\`, "", false},
	} {
		if rest, ok := skipPath(tt.in); rest != tt.rest || ok != tt.ok {
			t.Errorf("%s: skipPath(%q) = %q, %v; want %q, %v", tt.name, tt.in, rest, ok, tt.rest, tt.ok)
		}
	}
}

func TestSplitHandles(t *testing.T) {
	for _, tt := range []struct {
		name, in, delimiters string
		user, detail         string
	}{
		{"no extension", "u@d", "+", "u@d", ""},
		{"an extension", "u+x@d", "+", "u@d", "x"},
		{"two delimiters", "u+x-y@d", "-+", "u@d", "x-y"},
		{"the first of any", "u-x+y@d", "+-", "u@d", "x+y"},
		{"no delimiter", "u+x@d", "", "u+x@d", ""},
		{"only an extension", "+x@d", "+", "@d", "x"},
		{"an empty extension", "u+@d", "+", "u@d", ""},
		{"no domain", "u+x", "+", "u", "x"},
		{"quotes", `"a b+c d"@d`, "+", "a b@d", "c d"},
		{"an @ of its own", `"a@b+x"@d`, "+", `"a@b"@d`, "x"},
		{"a wide delimiter", "u§x@d", "§", "u@d", "x"},
	} {
		a, err := ParseAddress(tt.in)
		if err != nil {
			t.Fatal(err)
		}
		if user, detail := a.Split(tt.delimiters); user != tt.user || detail != tt.detail {
			t.Errorf("%s: got %q, %q; want %q, %q", tt.name, user, detail, tt.user, tt.detail)
		}
	}
}

// What was parsed is written so that it parses to the same, on one line.
func FuzzPath(f *testing.F) {
	for _, s := range []string{
		"<a@b>", `<"a\" b"@c.d> SIZE=1`, "<@a,@b:c@d>", "<>", `<"">`, "<a@[IPv6:::1]>", "<ä@ö>", "<..@b>", "<../../etc/x@d>", `<"a>"@b>x`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if _, _, ok := parseCommand([]byte("RCPT " + s)); !ok {
			return // never gets that far
		}
		a, rest, err := ParsePath(s)
		if err != nil {
			return
		}
		if !strings.HasSuffix(s, rest) {
			t.Fatalf("ParsePath(%q): rest %q is not at its end", s, rest)
		}
		text := a.String()
		if strings.ContainsAny(text, "\r\n\x00\t") || !utf8.ValidString(text) {
			t.Fatalf("ParsePath(%q) = %q", s, text)
		}
		b, rest, err := ParsePath("<" + text + ">")
		if b != a || rest != "" || err != nil {
			t.Fatalf("ParsePath(%q) = %+v, and %q = %+v, %q, %v", s, a, text, b, rest, err)
		}
		if !a.IsNull() {
			if b, err := ParseAddress(text); b != a || err != nil {
				t.Fatalf("ParseAddress(%q) = %+v, %v; want %+v", text, b, err, a)
			}
		}
		user, detail := a.Split("+")
		if n := len(a.Local) - len(detail); n < 0 || !strings.HasSuffix(a.Local, detail) || a.Domain != "" && !strings.HasSuffix(user, "@"+a.Domain) {
			t.Fatalf("%+v.Split = %q, %q", a, user, detail)
		}
	})
}
