package session

import (
	"bufio"
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
)

// collect is a sink.
type collect struct{ bytes.Buffer }

func (c *collect) add(p []byte) { c.Write(p) }

var dataTests = []struct {
	name, in, want, rest string
}{
	{"nothing", ".\r\n", "", ""},
	{"an empty line", "\r\n.\r\n", "\n", ""},
	{"text", "a\r\nb\r\n.\r\nNOOP\r\n", "a\nb\n", "NOOP\r\n"},
	{"a stuffed dot", "..\r\n...a\r\n.b\r\n.\r\n", ".\n..a\nb\n", ""},
	{"a line of a dot and CR", ".\r\r\n.\r\n", "\r\n", ""},
	{"a dot, CR and text", ".\ra\r\n.\r\n", "\ra\n", ""},
	{"bare LF", "a\nb\r\n.\r\n", "a\nb\n", ""},
	{"bare CR", "a\rb\r\n.\r\n", "a\rb\n", ""},
	{"CR CR LF", "a\r\r\n.\r\n", "a\r\n", ""},
	{"NUL and 8-bit", "\x00\xff\r\n.\r\n", "\x00\xff\n", ""},
	{"LF dot LF, which ends nothing", "a\n.\nb\r\n.\r\n", "a\n.\nb\n", ""},
	{"LF dot CRLF, which ends nothing", "a\n.\r\nb\r\n.\r\n", "a\n.\nb\n", ""},
	{"CRLF dot LF, which ends nothing", "a\r\n.\nb\r\n.\r\n", "a\n\nb\n", ""},
	{"CR dot CR, which ends nothing", "a\r.\rb\r\n.\r\n", "a\r.\rb\n", ""},
	{"CRLF dot CR, which ends nothing", "a\r\n.\rMAIL\r\n.\r\n", "a\n\rMAIL\n", ""},
	{"LF before the end", "a\n\r\n.\r\n", "a\n\n", ""},
	{"a dot after CR in a line", "\r.\r\n.\r\n", "\r.\n", ""},
	{"two CR at the start of a line", "\r\r\n.\r\n", "\r\n", ""},
	{"two ends", ".\r\n.\r\n", "", ".\r\n"},
	{"an LF first", "\n.\r\n\r\n.\r\n", "\n.\n\n", ""},
}

func TestDataHandles(t *testing.T) {
	for _, tt := range dataTests {
		var got collect
		r := bufio.NewReader(strings.NewReader(tt.in))
		err := readData(r, &got)
		rest, _ := io.ReadAll(r)
		if got.String() != tt.want || string(rest) != tt.rest || err != nil {
			t.Errorf("%s: got %q, rest %q, %v; want %q, rest %q", tt.name, got.String(), rest, err, tt.want, tt.rest)
		}
	}
}

// The message does not depend on where packets end.
func TestDataHandlesEverySplit(t *testing.T) {
	for _, tt := range dataTests {
		n := len(tt.in) - len(tt.rest)
		for i := range n {
			for j := i; j < n; j++ {
				var d decoder
				var got collect
				for _, part := range []string{tt.in[:i], tt.in[i:j], tt.in[j:n]} {
					if used := d.data([]byte(part), &got); used != len(part) {
						t.Errorf("%s, split at %d and %d: used %d of %q", tt.name, i, j, used, part)
					}
				}
				if got.String() != tt.want || d.state != afterLastDot {
					t.Errorf("%s, split at %d and %d: got %q, ended %v; want %q", tt.name, i, j, got.String(), d.state == afterLastDot, tt.want)
				}
			}
		}
	}
}

func TestDataEndsEarly(t *testing.T) {
	for _, tt := range dataTests {
		for i := range len(tt.in) - len(tt.rest) {
			if err := readData(bufio.NewReader(strings.NewReader(tt.in[:i])), new(collect)); err != io.ErrUnexpectedEOF {
				t.Errorf("%s, cut at %d: %v; want %v", tt.name, i, err, io.ErrUnexpectedEOF)
			}
		}
	}
}

// pieces hands out a text in pieces of the lengths that follow.
type pieces struct {
	text    []byte
	lengths []byte
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.text) == 0 {
		return 0, io.EOF
	}
	n := len(p.text)
	if len(p.lengths) > 0 {
		n, p.lengths = min(n, int(p.lengths[0])+1), p.lengths[1:]
	}
	n = copy(b, p.text[:n])
	p.text = p.text[n:]
	return n, nil
}

// After DATA the next octet read follows the first CRLF "." CRLF, and the message
// is what stood before it, line by line without its stuffing.
func FuzzData(f *testing.F) {
	for _, tt := range dataTests {
		f.Add([]byte(tt.in), []byte{0, 1, 2})
	}
	f.Fuzz(func(t *testing.T, in, lengths []byte) {
		var got collect
		r := bufio.NewReaderSize(&pieces{slices.Clone(in), lengths}, 16)
		err := readData(r, &got)
		section, rest, ended := bytes.Cut(append([]byte("\r\n"), in...), []byte("\r\n.\r\n"))
		if !ended {
			if err != io.ErrUnexpectedEOF {
				t.Fatalf("readData(%q) = %v; want %v", in, err, io.ErrUnexpectedEOF)
			}
			return
		}
		if err != nil {
			t.Fatalf("readData(%q) = %v", in, err)
		}
		if left, _ := io.ReadAll(r); !bytes.Equal(left, rest) {
			t.Fatalf("readData(%q) left %q; want %q", in, left, rest)
		}
		var want bytes.Buffer
		for i, line := range bytes.Split(section, []byte("\r\n")) {
			if i > 0 {
				want.Write(bytes.TrimPrefix(line, []byte(".")))
				want.WriteByte('\n')
			}
		}
		if !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Fatalf("readData(%q): got %q; want %q", in, got.Bytes(), want.Bytes())
		}
	})
}

// Chunks put together are the message, wherever one ends and the next begins.
func FuzzChunks(f *testing.F) {
	f.Add([]byte("a\r\nb\r\r\n\r"), []byte{1, 0, 2}, []byte{0, 1})
	f.Add([]byte("\r\n.\r\nQUIT\r\n"), []byte{0, 0, 0}, []byte{3})
	f.Add([]byte("\r\r\r\n\n"), []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, in, sizes, lengths []byte) {
		var got collect
		var d decoder
		r := bufio.NewReaderSize(&pieces{append(slices.Clone(in), "NOOP"...), lengths}, 16)
		left := int64(len(in))
		for _, size := range append(slices.Clone(sizes), 255) {
			n := min(int64(size), left)
			if size == 255 {
				n = left
			}
			left -= n
			if err := readChunk(r, n, &d, &got); err != nil {
				t.Fatal(err)
			}
		}
		d.end(&got)
		if rest, _ := io.ReadAll(r); string(rest) != "NOOP" {
			t.Fatalf("readChunk(%q) left %q", in, rest)
		}
		if want := bytes.ReplaceAll(in, []byte("\r\n"), []byte("\n")); !bytes.Equal(got.Bytes(), want) {
			t.Fatalf("readChunk(%q): got %q; want %q", in, got.Bytes(), want)
		}
	})
}
