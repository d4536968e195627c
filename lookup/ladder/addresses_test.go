package ladder

import (
	"slices"
	"strings"
	"testing"

	"dovepost/lookup"
	"dovepost/lookup/fold"
)

// What Postfix 3.7 made of the same rows in a mysql: table was the model: the
// recipients that stood in the queue file.
func TestAliasValues(t *testing.T) {
	for _, tt := range []struct {
		name string
		key  string
		rows map[string][]string
		want []string
	}{
		{"a whole match", "u+x@d.example", map[string][]string{"u+x@d.example": {"A B <b@x>, c@y"}}, []string{"A B <b@x>, c@y"}},
		{"one target", "u+x@d.example", map[string][]string{"u@d.example": {"a@x"}}, []string{"a+x@x"}},
		{"an extension that keeps its case", "Alias+Ext@D.Example", map[string][]string{"alias@d.example": {"a@x"}}, []string{"a+Ext@x"}},
		{"several rows", "u+x@d.example", map[string][]string{"u@d.example": {"a@x", "b@y"}}, []string{"a+x@x", "b+x@y"}},
		{"a comma list", "u+x@d.example", map[string][]string{"u@d.example": {"a@x, b@y,c@z"}}, []string{"a+x@x", "b+x@y", "c+x@z"}},
		{"a list of blanks", "u+x@d.example", map[string][]string{"u@d.example": {"a@x b@y"}}, []string{"a+x@x", "b+x@y"}},
		{"a list of lines", "u+x@d.example", map[string][]string{"u@d.example": {"a@x\r\nb@y\r\n"}}, []string{"a+x@x", "b+x@y"}},
		{"phrases and quotes", "u+x@d.example", map[string][]string{"u@d.example": {`A B <b@x>, "c d"@y`}}, []string{"b+x@x", `"c d+x"@y`}},
		{"a target that has an extension", "u+x@d.example", map[string][]string{"u@d.example": {"a+list@x"}}, []string{"a+list+x@x"}},
		{"a bare name", "u+x@d.example", map[string][]string{"u@d.example": {"root"}}, []string{"root+x"}},
		{"user%domain", "u+x@d.example", map[string][]string{"u@d.example": {"a%y"}}, []string{"a+x@y"}},
		{"domain!user", "u+x@d.example", map[string][]string{"u@d.example": {"y!a%z"}}, []string{"a%z+x@y"}},
		{"a source route", "u+x@d.example", map[string][]string{"u@d.example": {"<@h,@i:a@x>"}}, []string{"a+x@x"}},
		{"a user that looks like a source route", `@h:u@d.example`, map[string][]string{"@d.example": {"@other"}}, []string{"u@other"}},
		{"an extension that wants quotes", `"u+a b"@d.example`, map[string][]string{"u@d.example": {"a@x"}}, []string{`"a+a b"@x`}},
		{"itself", "u+x@d.example", map[string][]string{"u@d.example": {"u@d.example"}}, []string{"u+x@d.example"}},
		{"a catch-all, which passes nothing on", "u+x@d.example", map[string][]string{"@d.example": {"all@x"}}, []string{"all@x"}},
		{"an alias domain", "U+X@d.example", map[string][]string{"@d.example": {"@other"}}, []string{"U+X@other"}},
		{"another domain for a whole match", "u+x@d.example", map[string][]string{"u+x@d.example": {"@other"}}, []string{"u+x@other"}},
		{"another domain for a match without extension", "u+x@d.example", map[string][]string{"u@d.example": {"@other"}}, []string{"u+x@other"}},
		{"another domain for a quoted user", `"c d"@d.example`, map[string][]string{"@d.example": {"@other"}}, []string{`"c d"@other`}},
		{"another domain and more, as one address", "u@d.example", map[string][]string{"@d.example": {"@other", "b@x"}}, []string{`"u@other,b"@x`}},
		{"a bare user of a local domain", "u+x@local.example", map[string][]string{"u": {"a@x"}}, []string{"a+x@x"}},
	} {
		t.Run("it handles "+tt.name, func(t *testing.T) {
			o := Options{RecipientDelimiter: "+", Propagate: true, LocalDomains: []string{"local.example"}}
			got, err := New(Alias, []lookup.Map{table{rows: tt.rows}}, o).Lookup(t.Context(), tt.key)
			if !slices.Equal(got, tt.want) || err != nil {
				t.Errorf("Lookup(%q) = %q, %v; want %q", tt.key, got, err, tt.want)
			}
		})
	}
}

func TestAliasNoPropagation(t *testing.T) {
	rows := table{rows: map[string][]string{"u@d.example": {"a@x , b@y"}, "v@d.example": {"@other"}}}
	l := New(Alias, []lookup.Map{rows}, Options{RecipientDelimiter: "+"})
	for key, want := range map[string]string{"u+x@d.example": "a@x , b@y", "v+x@d.example": "v@other"} {
		if got, err := l.Lookup(t.Context(), key); len(got) != 1 || got[0] != want || err != nil {
			t.Errorf("Lookup(%q) = %q, %v; want %q", key, got, err, want)
		}
	}
}

// A value without an address is a mistake in the table. To smtpd the alias is there, and
// cleanup puts the message off, as Postfix 3.7 does with a mysql: table.
func TestAliasNoAddress(t *testing.T) {
	for _, value := range []string{",", " ", "(nobody)", "; ,"} {
		rows := table{rows: map[string][]string{"u@d.example": {value}}}
		got, err := New(Alias, []lookup.Map{rows}, Options{RecipientDelimiter: "+", Propagate: true}).Lookup(t.Context(), "u+x@d.example")
		if len(got) != 1 || got[0] != value || err != nil {
			t.Errorf("value %q: %q, %v; want it as it is", value, got, err)
		}
	}
}

func TestParseAddresses(t *testing.T) {
	for _, tt := range []struct {
		name, in, want string // want is separated by |
	}{
		{"one", "a@x", "a@x"},
		{"commas", "a@x,b@y , c@z", "a@x|b@y|c@z"},
		{"missing commas", "a@x b@y, <c@z> d@w", "a@x|b@y|c@z|d@w"},
		{"addresses for a phrase", "a@x b@y <c@z>", "c@z"},
		{"empty places", ",a@x,,b@y,", "a@x|b@y"},
		{"a phrase", "Joe B. User <a@x>", "a@x"},
		{"a phrase with a comma in quotes", `"User, Joe" <a@x>, b@y`, "a@x|b@y"},
		{"comments", "a@x (one, (two) \\) three) , (four) b@y", "a@x|b@y"},
		{"a comment in an address", "a(b)@x", "a@x"},
		{"a comment without an end", "a@x (b, c@y", "a@x"},
		{"a group", "staff: a@x, b@y;, c@z", "a@x|b@y|c@z"},
		{"two groups", "s: a@x;, t: b@y, c@z;", "a@x|b@y|c@z"},
		{"two groups without a comma, as Postfix loses the first", "s: a@x; t: b@y, c@z;", "b@y|c@z"},
		{"an empty group", "undisclosed:;", ""},
		{"a group with routes in it", "s: J <a@x>, K <b@y>;", "a@x|b@y"},
		{"semicolons", "a@x;b@y", "a@x|b@y"},
		{"a source route", "<@h,@i:a@x>", "@h,@i:a@x"},
		{"a quoted local part", `"c d"@y`, "c d@y"},
		{"an escaped quote", `"c\"d"@y`, `c"d@y`},
		{"a backslash", `c\ d@y`, "c d@y"},
		{"a domain literal", "a@[192.0.2.1]", "a@[192.0.2.1]"},
		{"blanks around operators", "a @ x . y", "a@x.y"},
		{"nothing", "", "<>"},
		{"the null address", "<>", "<>"},
		{"the null address among others", "<>, a@x", "a@x"},
		{"a half route", "a@x>", "a@x"},
		{"the other half", "<a@x", "<a@x"},
		{"an end in a quote", `"a@x`, "a@x"},
		{"an end in a backslash", `a\`, "a"},
		{"a quoted empty word", `""`, "<>"},
		{"8-bit", "jürgen@exämple.com", "jürgen@exämple.com"},
	} {
		t.Run("it handles "+tt.name, func(t *testing.T) {
			all := parseAddresses(tt.in)
			for i := range all {
				if all[i] == "" {
					all[i] = "<>"
				}
			}
			if got := strings.Join(all, "|"); got != tt.want {
				t.Errorf("parseAddresses(%q) = %q; want %q", tt.in, got, tt.want)
			}
		})
	}
}

func TestQuote(t *testing.T) {
	for _, tt := range []struct{ name, internal, external string }{
		{"a dot string", "a.b@x", "a.b@x"},
		{"no domain", "a", "a"},
		{"nothing", "", `""`},
		{"an empty local part", "@x", `""@x`},
		{"a blank", "a b@x", `"a b"@x`},
		{"a dot in front", ".a@x", `".a"@x`},
		{"a dot behind", "a.@x", `"a."@x`},
		{"two dots", "a..b@x", `"a..b"@x`},
		{"an at sign", "a@b@x", `"a@b"@x`},
		{"a quote", `a"b@x`, `"a\"b"@x`},
		{"a backslash", `a\b@x`, `"a\\b"@x`},
		{"a tab", "a\tb@x", "\"a\tb\"@x"},
		{"8-bit", "ä@x", "ä@x"},
		{"a source route", "@h:a b@x", `@h:"a b"@x`},
	} {
		if got := quote(tt.internal); got != tt.external {
			t.Errorf("it handles %s: quote(%q) = %q; want %q", tt.name, tt.internal, got, tt.external)
		}
		if got := unquote(tt.external); got != tt.internal {
			t.Errorf("it handles %s: unquote(%q) = %q; want %q", tt.name, tt.external, got, tt.internal)
		}
	}
	if got := unquote(`a@"b c"`); got != `a@"b c"` {
		t.Errorf("unquote leaves the domain alone: got %q", got)
	}
	if got := quoteLocal("a@b"); got != `"a@b"` {
		t.Errorf("quoteLocal(a@b) = %q", got)
	}
}

func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "a@x", "a b@x", `a"\@x`, "@h:a@x", "a@b@c", "ä.@x", "..", `\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, internal string) {
		if strings.IndexByte(internal, '@') == 0 {
			return // a source route has its own quoting
		}
		domain := internal[strings.LastIndexByte(internal, '@')+1:]
		if strings.ContainsAny(domain, `"\`) && domain != internal {
			return // a domain is never unquoted
		}
		if got := unquote(quote(internal)); got != internal {
			t.Errorf("unquote(quote(%q)) = %q by way of %q", internal, got, quote(internal))
		}
	})
}

// Whatever an alias says, its addresses come out in a form that Postfix reads as
// the same addresses, and the extension is in each.
func FuzzAddresses(f *testing.F) {
	for _, s := range []string{"a@x, b@y", `A B <b@x>, "c d"@y`, "@other", "s: a@x, b@y;", "a%x", "<@h:a@x>", "(c", "a@x b@y\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if value == "" || strings.IndexByte(value, 0) >= 0 {
			return // no table answers that
		}
		got, err := form{local: "u", ext: "+x"}.addresses([]string{value}, true)
		if err != nil {
			return
		}
		for _, addr := range got {
			if strings.ContainsAny(addr[strings.LastIndexByte(addr, '@')+1:], operators+"\" ") {
				return // only local parts are ever quoted
			}
		}
		again := parseAddresses(strings.Join(got, ","))
		for i, addr := range again {
			if !strings.Contains(addr, "+x") {
				t.Errorf("%q became %q: address %d has no extension", value, got, i)
			}
		}
		if strings.LastIndexByte(got[0], '@') == 0 {
			t.Errorf("%q became %q: Postfix would put a user before that", value, got)
		}
	})
}

// Every key asked for is folded and a part of the whole key; the whole key comes
// first; nothing is asked twice in a row.
func FuzzKeys(f *testing.F) {
	for _, key := range []string{"User+Ext@Example.com", `"c d+e"@x.y.z`, "a@xn--exmple-cua.com", "192.0.2.1", "2001:db8::1", "*", "<>", "@", "a..b", "ß@ẞ"} {
		for kind := range kinds {
			f.Add(uint8(kind), key)
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, key string) {
		var asked []string
		l := New(kinds[int(kind)%len(kinds)], []lookup.Map{table{asked: &asked}},
			Options{RecipientDelimiter: "+-", LocalDomains: []string{"x.y.z"}})
		if _, err := l.Lookup(t.Context(), key); err != lookup.ErrNotFound {
			t.Fatalf("Lookup(%q) = %v; want not found", key, err)
		}
		if len(asked) > 0 && asked[0] != fold.String(key) && !strings.ContainsAny(key, `"\`) {
			t.Errorf("%s: asked first for %q; want %q", key, asked[0], fold.String(key))
		}
		for i, k := range asked {
			if k == "" || k != fold.String(k) || i > 0 && k == asked[i-1] {
				t.Errorf("%q: asked for %q after %q", key, k, asked[:i])
			}
		}
		if len(asked) > 6*(strings.Count(key, ".")+strings.Count(key, ":")+6) {
			t.Errorf("%q: asked %d times", key, len(asked))
		}
	})
}
