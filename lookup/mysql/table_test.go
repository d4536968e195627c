package mysql

import (
	"context"
	"errors"
	"strings"
	"testing"

	"dovepost/lookup"
)

func testTable(t *testing.T, text string) *Table {
	t.Helper()
	f, err := parseFile("f.cf", []byte("dbname = mail\nhosts = unix:/nonexistent/socket\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	m, err := NewTable(f, OpenPool(f.Config(), 1))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// a key that lacks what the templates need is not found, without asking; any
// other is asked, and there is no server here.
func TestSuppression(t *testing.T) {
	tests := []struct {
		name, text   string
		asked, never []string
	}{
		{"the whole key", "query = SELECT '%s'", []string{"a", "@d", "a@", "a@d", " ", "@"}, []string{"", "a\xff@d"}},
		{"the local part", "query = SELECT '%u'", []string{"a", "a@", "a@d"}, []string{"@d", "@", ""}},
		{"the domain", "query = SELECT '%d'", []string{"a@d", "@d", "a@b@d"}, []string{"a", "a@", "@"}},
		{"both", "query = SELECT '%u', '%D'", []string{"a@d"}, []string{"a", "@d", "a@"}},
		{"capitals", "query = SELECT '%U'", []string{"a"}, []string{"@d"}},
		{"labels", "query = SELECT '%2'", []string{"a@b.c", "a@.b..c.", "@b.c"}, []string{"a@b", "a@.b.", "a@", "a"}},
		{"variables in comments", "query = SELECT '%s' # %d", []string{"a@d"}, []string{"a"}},
		{"the key in the result format", "query = SELECT '%s'\nresult_format = %D %1", []string{"a@d"}, []string{"a", "a@"}},
		{"the value in the result format", "query = SELECT '%s'\nresult_format = %u@%d", []string{"a", "@d", "a@"}, nil},
		{"the domain list", "query = SELECT '%s'\ndomain = d.example ß.example", []string{"a@d.example", "a@D.Example", "a@ss.example"},
			[]string{"a", "@d.example", "a@", "a@x.d.example", "d.example"}},
	}
	for _, tt := range tests {
		m := testTable(t, tt.text)
		for _, key := range tt.asked {
			if _, err := m.Lookup(context.Background(), key); err == nil || errors.Is(err, lookup.ErrNotFound) || !Unreachable(err) {
				t.Errorf("%s: %q: got %v, want that no server answers", tt.name, key, err)
			}
		}
		for _, key := range tt.never {
			if _, err := m.Lookup(context.Background(), key); !errors.Is(err, lookup.ErrNotFound) {
				t.Errorf("%s: %q: got %v, want not found", tt.name, key, err)
			}
		}
	}
}

// result_format handles values and keys.
func TestResultFormat(t *testing.T) {
	for _, tt := range []struct{ format, value, key, want string }{
		{"%s", "v", "k", "v"},
		{"<%s|%u|%d|%S|%U|%D|%1|%%>", "a@b@c", "k@d.e", "<a@b@c|a@b|c|k@d.e|k|d.e|e|%>"},
		{"%u", "v", "k", "v"},
		{"%u", "@d", "k", "-"},
		{"%d", "v", "k", "-"},
		{"%d", "v@", "k", "-"},
		{"%d", "@d", "k", "d"},
		{"smtp:[%s]", "h", "k", "smtp:[h]"},
	} {
		m := testTable(t, "query = SELECT '%s'\nresult_format = "+tt.format)
		k := m.split(tt.key)
		if k == nil {
			t.Fatal(tt)
		}
		got, ok := m.format(tt.value, k)
		if !ok {
			got = "-"
		}
		if got != tt.want {
			t.Errorf("%q of %q: got %q, want %q", tt.format, tt.value, got, tt.want)
		}
	}
}

// the zero table of errors: errors name the file and never the password.
func TestErrors(t *testing.T) {
	m := testTable(t, "query = SELECT '%s'\nuser = u\npassword = geheim")
	_, err := m.Lookup(context.Background(), "key")
	if err == nil || !strings.HasPrefix(err.Error(), "mysql:f.cf: connect to unix:/nonexistent/socket: ") || strings.Contains(err.Error(), "geheim") {
		t.Errorf("got %v", err)
	}
	if err := m.Prepare(context.Background()); !Unreachable(err) {
		t.Errorf("Prepare: got %v, want unreachable", err)
	}
}
