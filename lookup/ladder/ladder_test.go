package ladder

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"dovepost/lookup"
)

// table is a fake table that remembers what it was asked.
type table struct {
	name   string
	rows   map[string][]string
	broken map[string]error
	asked  *[]string
}

func (t table) Lookup(_ context.Context, key string) ([]string, error) {
	if t.asked != nil {
		*t.asked = append(*t.asked, t.name+key)
	}
	if err := t.broken[key]; err != nil {
		return nil, err
	}
	if values, ok := t.rows[key]; ok {
		return values, nil
	}
	return nil, fmt.Errorf("table %s: %w", t.name, lookup.ErrNotFound)
}

// The keys are what Postfix 3.7 was seen to ask a mysql: table for (general log of
// the server), bar the folding, which it does in between.
func TestKeys(t *testing.T) {
	plus := Options{RecipientDelimiter: "+"}
	for _, tt := range []struct {
		name    string
		kind    Kind
		options Options
		key     string
		want    string // separated by blanks; ~ stands for a blank in a key
	}{
		{"an extension", Address, plus, "user+ext@example.com", "user+ext@example.com user@example.com @example.com"},
		{"no delimiter set", Address, Options{}, "user+ext@example.com", "user+ext@example.com @example.com"},
		{"no extension", Address, plus, "user@example.com", "user@example.com @example.com"},
		{"upper case", Address, plus, "User+Ext@Example.COM", "user+ext@example.com user@example.com @example.com"},
		{"sharp s", Address, plus, "Straße@example.com", "strasse@example.com @example.com"},
		{"two delimiters in the address", Address, plus, "a+b+c@d.example", "a+b+c@d.example a@d.example @d.example"},
		{"the first of several delimiters", Address, Options{RecipientDelimiter: "+-"}, "a-b+c@d.example", "a-b+c@d.example a@d.example @d.example"},
		{"a delimiter in front", Address, plus, "+ext@example.com", "+ext@example.com @example.com"},
		{"an empty extension", Address, plus, "user+@example.com", "user+@example.com user@example.com @example.com"},
		{"a delimiter in the domain", Address, plus, "user@exa+mple.com", "user@exa+mple.com @exa+mple.com"},
		{"no domain", Address, plus, "user+ext", "user+ext user"},
		{"an empty domain", Address, plus, "user@", "user@ @"},
		{"postmaster", Address, Options{RecipientDelimiter: "o"}, "Postmaster@example.com", "postmaster@example.com @example.com"},
		{"mailer-daemon", Address, Options{RecipientDelimiter: "-"}, "MAILER-DAEMON@example.com", "mailer-daemon@example.com @example.com"},
		{"double-bounce", Address, Options{RecipientDelimiter: "-"}, "double-bounce@example.com", "double-bounce@example.com @example.com"},
		{"owner-list", Address, Options{RecipientDelimiter: "-"}, "Owner-list@example.com", "owner-list@example.com @example.com"},
		{"list-request", Address, Options{RecipientDelimiter: "-"}, "list-Request@example.com", "list-request@example.com @example.com"},
		{"owner with another delimiter", Address, plus, "owner-l+x@d.example", "owner-l+x@d.example owner-l@d.example @d.example"},
		{"a lone -request", Address, Options{RecipientDelimiter: "-"}, "a-b-request@d.example", "a-b-request@d.example @d.example"},
		{"a quoted local part", Address, plus, `"c d"@example.com`, `"c~d"@example.com c~d@example.com @example.com`},
		{"its unquoted second request", Address, plus, `c d@example.com`, `c~d@example.com @example.com`},
		{"a quoted local part with an extension", Address, plus, `"C d+E"@example.com`,
			`"c~d+e"@example.com c~d+e@example.com "c~d"@example.com c~d@example.com @example.com`},
		{"an extension that wants the quotes", Address, plus, `"c+d e"@example.com`,
			`"c+d~e"@example.com c+d~e@example.com c@example.com @example.com`},
		{"a quoted at sign", Address, plus, `"a@b"@example.com`, `"a@b"@example.com a@b@example.com @example.com`},
		{"the null sender of canonical_maps", Alias, plus, `""`, `""`},
		{"the null sender of sender_dependent maps", Address, plus, `"<>"`, `"<>" <>`},
		{"the same, second request", Address, plus, `<>`, `<>`},
		{"a local domain", Address, Options{RecipientDelimiter: "+", LocalDomains: []string{"Example.com"}}, "u+e@example.COM",
			"u+e@example.com u@example.com u+e u @example.com"},
		{"a quoted user of a local domain", Address, Options{LocalDomains: []string{"example.com"}}, `"c d"@example.com`,
			`"c~d"@example.com c~d@example.com "c~d" c~d @example.com`},
		{"a domain in U-labels", Address, plus, "u+x@exämple.com",
			"u+x@exämple.com u@exämple.com @exämple.com"},
		{"a domain in A-labels", Address, plus, "u@XN--exmple-cua.com", "u@xn--exmple-cua.com @xn--exmple-cua.com"},
		{"an A-label that is none", Address, plus, "u@xn--a.com", "u@xn--a.com @xn--a.com"},
		{"an ideographic full stop", Address, plus, "u@example。com", "u@example。com @example。com"},
		{"capitals in U-labels", Domain, plus, "EXÄMPLE.com", "exämple.com"},

		{"an alias", Alias, plus, "user+ext@example.com", "user+ext@example.com user@example.com @example.com"},
		{"a quoted alias", Alias, plus, `"c d"@example.com`, `"c~d"@example.com @example.com`},
		{"an unquoted alias", Alias, plus, `c d@example.com`, `c~d@example.com @example.com`},

		{"a domain", Domain, plus, "Sub.Example.com", "sub.example.com"},
		{"a domain in U-labels", Domain, plus, "exämple.com", "exämple.com"},
		{"a domain with parents", DomainParents, plus, "a.b.Example.com", "a.b.example.com b.example.com example.com com"},
		{"dotted parents by choice", DomainParents, Options{Parents: DotParents}, "a.example.com", "a.example.com .example.com .com"},
		{"a trailing dot", DomainParents, plus, "example.com.", "example.com. com."},
		{"a leading dot", DomainParents, plus, ".example.com", ".example.com com"},
		{"an address for a name", DomainParents, plus, "192.0.2.1", "192.0.2.1"},
		{"an address literal", DomainParents, plus, "[127.0.0.1]", "[127.0.0.1] 0.0.1] 0.1] 1]"},

		{"a transport", Transport, plus, "No+Ext@sub.example.com",
			"no+ext@sub.example.com no@sub.example.com sub.example.com .example.com .com"},
		{"bare parents by choice", Transport, Options{Parents: BareParents}, "u@sub.example.com", "u@sub.example.com sub.example.com example.com com"},
		{"the wildcard", Transport, plus, "*", "*"},

		{"a sender", AccessAddress, plus, "send+er@other.test", "send+er@other.test send@other.test other.test test send+er@ send@"},
		{"a quoted sender", AccessAddress, plus, `"c d"@other.test`, `"c~d"@other.test c~d@other.test other.test test "c~d"@ c~d@`},
		{"the null sender", AccessAddress, plus, "<>", "<>"},

		{"a client name", AccessClient, plus, "mx.Example.com", "mx.example.com example.com com"},
		{"an unknown client", AccessClient, plus, "unknown", "unknown"},
		{"an IPv4 client", AccessClient, plus, "127.0.0.1", "127.0.0.1 127.0.0 127.0 127"},
		{"an IPv6 client", AccessClient, plus, "2001:db8::1", "2001:db8::1 2001:db8: 2001:db8 2001"},
		{"IPv6 loopback", AccessClient, plus, "::1", "::1 :"},

		{"an exact key", Exact, plus, "User+Ext@exämple.com", "user+ext@exämple.com"},
	} {
		t.Run(string(tt.kind)+" handles "+tt.name, func(t *testing.T) {
			var asked []string
			l := New(tt.kind, []lookup.Map{table{asked: &asked}}, tt.options)
			values, err := l.Lookup(t.Context(), tt.key)
			if values != nil || !errors.Is(err, lookup.ErrNotFound) {
				t.Errorf("Lookup = %q, %v; want not found", values, err)
			}
			if got := strings.Join(asked, "|"); got != strings.NewReplacer(" ", "|", "~", " ").Replace(tt.want) {
				t.Errorf("%s asked for %q; want %q", tt.key, got, tt.want)
			}
		})
	}
}

func TestNeverAsked(t *testing.T) {
	for _, kind := range kinds {
		for _, key := range []string{"", "a\xff@example.com", "alice\x00@example.com"} {
			var asked []string
			_, err := New(kind, []lookup.Map{table{asked: &asked}}, Options{}).Lookup(t.Context(), key)
			if !errors.Is(err, lookup.ErrNotFound) || len(asked) > 0 {
				t.Errorf("%s: %q: asked %q, %v; want nothing and not found", kind, key, asked, err)
			}
		}
	}
}

func TestOrder(t *testing.T) {
	broken := errors.New("connection refused")
	for _, tt := range []struct {
		name   string
		tables []table
		asked  string
		want   []string
		err    error
	}{
		{"an address that beats the catch-all of the table before", []table{
			{name: "1:", rows: map[string][]string{"@example.com": {"all"}}},
			{name: "2:", rows: map[string][]string{"user@example.com": {"user"}}},
		}, "1:user+x@example.com 2:user+x@example.com 1:user@example.com 2:user@example.com", []string{"user"}, nil},
		{"the first of two tables", []table{
			{name: "1:", rows: map[string][]string{"user+x@example.com": {"one"}}},
			{name: "2:", rows: map[string][]string{"user+x@example.com": {"two"}}},
		}, "1:user+x@example.com", []string{"one"}, nil},
		{"an error that ends the search", []table{
			{name: "1:", broken: map[string]error{"user+x@example.com": broken}},
			{name: "2:", rows: map[string][]string{"user+x@example.com": {"two"}}},
		}, "1:user+x@example.com", nil, broken},
		{"an error after a miss", []table{
			{name: "1:", broken: map[string]error{"@example.com": broken}},
		}, "1:user+x@example.com 1:user@example.com 1:@example.com", nil, broken},
		{"no table", nil, "", nil, lookup.ErrNotFound},
	} {
		t.Run("it handles "+tt.name, func(t *testing.T) {
			var asked []string
			var tables []lookup.Map
			for _, one := range tt.tables {
				one.asked = &asked
				tables = append(tables, one)
			}
			got, err := New(Address, tables, Options{RecipientDelimiter: "+"}).Lookup(t.Context(), "user+x@example.com")
			if !slices.Equal(got, tt.want) || !errors.Is(err, tt.err) {
				t.Errorf("Lookup = %q, %v; want %q, %v", got, err, tt.want, tt.err)
			}
			if got := strings.Join(asked, " "); got != tt.asked {
				t.Errorf("asked %q; want %q", got, tt.asked)
			}
		})
	}
}

func TestParseKind(t *testing.T) {
	for _, k := range kinds {
		if got, err := ParseKind(string(k)); got != k || err != nil {
			t.Errorf("ParseKind(%q) = %q, %v", k, got, err)
		}
	}
	if _, err := ParseKind("adress"); err == nil || !strings.Contains(err.Error(), "access-client") {
		t.Errorf("ParseKind(adress) = %v; want an error that names the kinds", err)
	}
}

func BenchmarkLadder(b *testing.B) {
	rows := table{rows: map[string][]string{"user@example.com": {"one@example.com"}, "@example.net": {"all@example.com"}}}
	for _, key := range []string{"user@example.com", "user+ext@example.com", "User@example.net", "nobody@example.org"} {
		b.Run(key, func(b *testing.B) {
			l := New(Alias, []lookup.Map{rows}, Options{RecipientDelimiter: "+", Propagate: true})
			b.ReportAllocs()
			for b.Loop() {
				l.Lookup(b.Context(), key)
			}
		})
	}
}
