package lmtp

import (
	"slices"
	"strings"
	"testing"
)

func header(text string) (all []string) {
	for name, value := range Header(Text(text)) {
		all = append(all, name+"="+value)
	}
	return all
}

func TestHeader(t *testing.T) {
	tests := []struct {
		name, in string
		want     []string
	}{
		{"fields", "A: 1\nB:2\n\nC: 3\n", []string{"A=1", "B=2"}},
		{"a message without a body", "A: 1", []string{"A=1"}},
		{"a message that is empty", "", nil},
		{"a message without a header", "\nA: 1\n", nil},
		{"folded fields", "A: 1\n 2\n\t3\nB: 4\n\n", []string{"A=1 2\t3", "B=4"}},
		{"a blank line that folds", "A: 1\n \nB: 2\n", []string{"A=1", "B=2"}},
		{"a blank before the colon", "A : 1\n\n", []string{"A=1"}},
		{"text in the place of a header", "hello world: 1\nA: 1\n", nil},
		{"a line that is no field", "A: 1\nhello\nB: 2\n", []string{"A=1"}},
		{"a folded line at first", " A: 1\nB: 2\n", nil},
		{"an empty value", "A:\nB: \n\n", []string{"A=", "B="}},
		{"CRLF", "A: 1\r\n 2\r\n\r\nB: 3\r\n", []string{"A=1 2"}},
		{"octets of no charset", "A: \xff\xfe\x00\n\n", []string{"A=\xff\xfe\x00"}},
		{"a field of a megabyte", "A: 1\nB: " + strings.Repeat("x", 1<<20) + "\n\n", []string{"A=1", "B=" + strings.Repeat("x", maxField-3)}},
		{"the field after a long one", "A: " + strings.Repeat("x", 30<<10) + "\nB: 2\n\n", []string{"A=" + strings.Repeat("x", maxField-3), "B=2"}},
	}
	for _, tt := range tests {
		if got := header(tt.in); !slices.Equal(got, tt.want) {
			t.Errorf("it handles %s: %.80q; want %.80q", tt.name, got, tt.want)
		}
	}
}

// What is written as fields is read as them, and no value has a line end.
func FuzzHeader(f *testing.F) {
	f.Add("X-Spam-Flag", "YES", "body\n")
	f.Add("Subject", "a\n b", "")
	f.Add("A", "\r\n\r\nB: 1", "C: 2")
	f.Fuzz(func(t *testing.T, name, value, rest string) {
		for n, v := range Header(Text(name + ":" + value + "\n\n" + rest)) {
			if n == "" || strings.ContainsAny(n, ": \t\n") || strings.Contains(v, "\n") || len(v) > maxField {
				t.Fatalf("field %q = %q", n, v)
			}
		}
		if strings.Trim(name, "!#$%&'*+-./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ^_abcdefghijklmnopqrstuvwxyz") != "" || name == "" ||
			strings.ContainsAny(value, "\r\n") || len(name)+len(value) > maxField-2 {
			return
		}
		if got := header(name + ": " + value + "\n\n" + rest); len(got) != 1 || got[0] != name+"="+strings.TrimSpace(value) && strings.Trim(value, " \t") == strings.TrimSpace(value) && !strings.ContainsAny(value, "\u0085\u00a0") {
			t.Fatalf("%q: %q is read as %q", name, value, got)
		}
	})
}
