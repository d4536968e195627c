package main

import (
	"bufio"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dovepost/lookup"
	"dovepost/lookup/ladder"
	"dovepost/lookup/postconf"
)

func TestReadTextHandles(t *testing.T) {
	for _, tt := range []struct{ name, in, key, want string }{
		{"a line", "a@d b@d\n", "a@d", "b@d"},
		{"capitals in the key", "A@D B@D\n", "a@d", "B@D"},
		{"tabs and blanks", "a@d \t b@d, c@d  \n", "a@d", "b@d, c@d"},
		{"a continuation", "a@d b@d,\n  c@d\n", "a@d", "b@d, c@d"},
		{"a comment in a continuation", "a@d b@d,\n# no\n   # neither\n  c@d\n", "a@d", "b@d, c@d"},
		{"a key twice", "a@d first\nA@d second\n", "a@d", "first"},
		{"no line end", "a@d b@d", "a@d", "b@d"},
		{"CR LF", "a@d b@d\r\nc d\r\n", "a@d", "b@d"},
		{"quotes", `"q r"@d b@d`, `"q r"@d`, "b@d"},
		{"a quoted quote", `"q\" r"@d b@d`, `"q\" r"@d`, "b@d"},
		{"no value", "a@d\nb x\n", "a@d", ""},
		{"a domain", "@d @e\n", "@d", "@e"},
	} {
		table, err := readText(strings.NewReader(tt.in))
		if got := table[tt.key]; err != nil || got != tt.want {
			t.Errorf("it handles %s: %q, %v; want %q", tt.name, got, err, tt.want)
		}
	}
	for name, in := range map[string]string{"a long line": "a " + strings.Repeat("x", maxTextLine), "many lines": "a " + strings.Repeat("xxxxxxxxx\n ", maxTextLine/9)} {
		if _, err := readText(strings.NewReader(in)); !errors.Is(err, bufio.ErrTooLong) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReadInline(t *testing.T) {
	for in, want := range map[string]textTable{
		"{a@d=b@d}":                          {"a@d": "b@d"},
		"{ A@d = b@d }":                      nil, // Postfix takes "A@d" for a pair
		"{ a@d=b@d, { c@d = d@d, e@d } x=y}": {"a@d": "b@d", "c@d": "d@d, e@d", "x": "y"},
		"{{@D=x}{y=z}}":                      {"@d": "x", "y": "z"},
		"{a=b=c}":                            {"a": "b=c"},
		"{a=}":                               {"a": ""}, // not found
		"{}":                                 {},
		"":                                   nil, "{": nil, "}": nil, "x": nil, "{a=b": nil, "{{a=b}": nil, "{a}": nil, "{=a}": nil, "{a=b}x": nil,
	} {
		if got, err := readInline(in); !maps.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%q: %v, %v; want %v", in, got, err, want)
		}
	}
}

// FuzzReadInline: what is read, written out in braces, reads the same again.
func FuzzReadInline(f *testing.F) {
	f.Add("{ a@d=b@d, { c@d = d@d, e@d } }")
	f.Add("{{a=b}")
	f.Fuzz(func(t *testing.T, in string) {
		table, err := readInline(in)
		if err != nil {
			return
		}
		out := "{"
		for key, value := range table {
			out += "{" + key + " = " + value + "}"
		}
		if again, err := readInline(out + "}"); strings.Count(out, "{") == 1+len(table) && strings.Count(out, "}") == len(table) && (err != nil || !maps.Equal(again, table)) {
			t.Errorf("%q: %v, then %q: %v, %v", in, table, out, again, err)
		}
	})
}

// FuzzReadText: what is read, written out a line for each key, reads the same again.
func FuzzReadText(f *testing.F) {
	f.Add("a@d b@d,\n  c@d\n# x\n\"q r\"@d v\n")
	f.Add("A b\na c\n \t\r\n")
	f.Fuzz(func(t *testing.T, in string) {
		table, err := readText(strings.NewReader(in))
		if err != nil {
			return
		}
		var out strings.Builder
		for key, value := range table {
			if key == "" || value == "" {
				t.Fatalf("%q: %q has the value %q", in, key, value)
			}
			if strings.HasPrefix(key, "#") {
				return // a comment
			}
			out.WriteString(key + " " + value + "\n")
		}
		again, err := readText(strings.NewReader(out.String()))
		if err != nil || len(again) > len(table) {
			t.Errorf("%q: %q, again %q, %v", in, table, again, err)
		}
	})
}

func TestTablesThatAreNotInMySQL(t *testing.T) {
	file := filepath.Join(t.TempDir(), "virtual")
	if err := os.WriteFile(file, []byte("one@d two@d\n@d other@d\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &builder{}
	m, err := b.table(parameter{name: "virtual_alias_maps", kind: ladder.Alias}, []postconf.Table{{Text: "hash:" + file}, {Text: "texthash:" + file}})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"One@d": "two@d", "x@d": "other@d"} {
		if got, err := m.Lookup(t.Context(), key); err != nil || strings.Join(got, ",") != want {
			t.Errorf("%s: %q, %v; want %s", key, got, err, want)
		}
	}
	m, err = b.table(parameter{name: "virtual_mailbox_domains", kind: ladder.Domain}, []postconf.Table{{Text: "D.example"}, {Text: "e.example"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Lookup(t.Context(), "d.example"); err != nil {
		t.Error(err)
	}
	if _, err := m.Lookup(t.Context(), "sub.d.example"); !errors.Is(err, lookup.ErrNotFound) {
		t.Error(err)
	}
	for _, text := range []string{"pcre:/x", "ldap:x", "socketmap:unix:x:y", "hash:/nonexistent", "!mysql:/x", "word"} {
		if m, err := b.table(parameter{name: "virtual_alias_maps", kind: ladder.Alias}, []postconf.Table{{Text: text}}); err == nil {
			t.Errorf("%s: %v, want an error: who gets the mail cannot be told", text, m)
		}
	}
	if m, err := b.table(parameter{name: "transport_maps", kind: ladder.Transport}, nil); m != nil || err != nil {
		t.Errorf("no tables: %v, %v", m, err)
	}
}

func TestTransportsOfOurs(t *testing.T) {
	for _, tt := range []struct {
		ours, transport string
		want            bool
	}{
		{"lmtp:unix:dovepost/lmtp", "lmtp:unix:dovepost/lmtp", true},
		{"lmtp:unix:dovepost/lmtp", ":", true},
		{"lmtp:unix:dovepost/lmtp", "virtual", true},
		{"lmtp:unix:dovepost/lmtp", "virtual:", true},
		{"lmtp:unix:dovepost/lmtp", "lmtp", true},
		{"dovecot", "dovecot", true},
		{"dovecot", "dovecot:", true},
		{"lmtp:unix:dovepost/lmtp", "lmtp:inet:backend2:24", false},
		{"lmtp:unix:dovepost/lmtp", "smtp:[mx2.example]", false},
		{"lmtp:unix:dovepost/lmtp", "relay", false},
		{"virtual", ":[mx2.example]", false},
		{"virtual", "error:5.1.1 gone", false},
	} {
		if got := (&addresses{transport: tt.ours}).ours(tt.transport); got != tt.want {
			t.Errorf("virtual_transport = %s, %s: %v, want %v", tt.ours, tt.transport, got, tt.want)
		}
	}
}
