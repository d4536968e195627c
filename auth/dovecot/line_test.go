package dovecot

import (
	"bufio"
	"encoding/base64"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// plainResponse is the base64 of a PLAIN message.
func plainResponse(authzid, user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(authzid + "\x00" + user + "\x00" + password))
}

func TestEscape(t *testing.T) {
	tests := []struct{ name, raw, escaped string }{
		{"nothing", "", ""},
		{"plain text", "alice@example.com", "alice@example.com"},
		{"the five octets", "\x00\x01\t\r\n", "\x010\x011\x01t\x01r\x01n"},
		{"8-bit", "\xff\xc3\xbc", "\xff\xc3\xbc"},
	}
	for _, tt := range tests {
		if got := string(appendEscaped(nil, tt.raw)); got != tt.escaped {
			t.Errorf("it handles %s: appendEscaped = %q, want %q", tt.name, got, tt.escaped)
		}
		if got := unescape(tt.escaped); got != tt.raw {
			t.Errorf("it handles %s: unescape = %q, want %q", tt.name, got, tt.raw)
		}
	}
	for escaped, want := range map[string]string{"a\x01": "a", "\x01x": "x", "\x01\x01": "\x01"} {
		if got := unescape(escaped); got != want {
			t.Errorf("unescape(%q) = %q, want %q", escaped, got, want)
		}
	}
}

func TestReadLine(t *testing.T) {
	tests := []struct {
		name, in string
		want     string
		err      error
	}{
		{"a line", "a\tb\nrest", "a\tb", nil},
		{"a CR, which is data", "a\r\n", "a\r", nil},
		{"the end between lines", "", "", io.EOF},
		{"the end inside a line", "a", "", io.ErrUnexpectedEOF},
		{"the longest line", strings.Repeat("a", maxLine-1) + "\n", strings.Repeat("a", maxLine-1), nil},
		{"a longer one", strings.Repeat("a", maxLine) + "\n", "", errLineTooLong},
		{"one that never ends", strings.Repeat("a", 1<<20), "", errLineTooLong},
	}
	for _, tt := range tests {
		for _, size := range []int{16, idleBuffer, maxLine} {
			got, err := readLine(bufio.NewReaderSize(strings.NewReader(tt.in), size))
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("it handles %s: readLine = %.20q, %v; want %.20q, %v", tt.name, got, err, tt.want, tt.err)
			}
		}
	}
}

// FuzzLine checks that fields survive the way over the wire, and that an encoded
// field is never more than one field of one line.
func FuzzLine(f *testing.F) {
	f.Add("user=alice@example.com", "pass=a\tb\nOK\t1\tuser=root")
	f.Add("\x01", "\x01t\r\x00")
	f.Fuzz(func(t *testing.T, a, b string) {
		line := append(appendEscaped(nil, a), '\t')
		line = appendEscaped(line, b)
		if strings.ContainsAny(string(line), "\r\n\x00") {
			t.Fatalf("%q escaped is %q", a+b, line)
		}
		if got := splitLine(string(line)); !slices.Equal(got, []string{a, b}) {
			t.Fatalf("fields %q, %q came back as %q", a, b, got)
		}
		if got := unescape(string(appendEscaped(nil, unescape(a)))); got != unescape(a) {
			t.Fatalf("unescape(%q) is not stable: %q", a, got)
		}
	})
}
