package session

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/cespare/xxhash/v2"

	"dovepost/lmtp"
)

func fill(s *spool, n int) []byte {
	text := make([]byte, n)
	for i := range text {
		text[i] = byte(i*7 + i>>10)
	}
	for rest := text; len(rest) > 0; {
		k := min(len(rest), 1000)
		s.add(rest[:k])
		rest = rest[k:]
	}
	return text
}

func TestSpoolHandles(t *testing.T) {
	for _, tt := range []struct {
		name   string
		size   int
		memory int64
		file   bool
	}{
		{"nothing", 0, 0, false},
		{"a usual message", 10 << 10, 0, false},
		{"a full small buffer", smallBuffer, 0, false},
		{"one octet more", smallBuffer + 1, 0, false},
		{"a full large buffer", largeBuffer, 0, false},
		{"more than a large buffer", largeBuffer + 1, 0, false},
		{"several large buffers", 3*largeBuffer + 17, 0, false},
		{"all that memory takes", maxMemory, 0, false},
		{"more than memory takes", maxMemory + 1, 0, true},
		{"much more than memory takes", 2*maxMemory + 3*largeBuffer + 17, 0, true},
		{"short memory", smallBuffer + 1, 1, true},
		{"short memory, much text", 5*smallBuffer + 1, 1, true},
		{"memory that becomes short", 3*largeBuffer + 17, 2 * largeBuffer, true},
	} {
		h := newHandler(nil)
		h.SpoolDir, h.SpoolMemory = t.TempDir(), tt.memory
		s := newSpool(h, nil)
		want := fill(s, tt.size)
		if err := s.finish(); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if (s.file != nil) != tt.file {
			t.Errorf("%s: file %v; want %v", tt.name, s.file != nil, tt.file)
		}
		for range 2 {
			if got, err := io.ReadAll(s.Open()); !bytes.Equal(got, want) || err != nil {
				t.Errorf("%s: read %d octets, %v; want %d", tt.name, len(got), err, len(want))
			}
		}
		if names, _ := os.ReadDir(h.SpoolDir); len(names) != 0 {
			t.Errorf("%s: %v has a name", tt.name, names)
		}
		s.release()
		s.release()
		if m, d := h.usage.memory.Load(), h.usage.disk.used; m != 0 || d != 0 {
			t.Errorf("%s: left in use: memory %d, disk %d", tt.name, m, d)
		}
	}
}

// What MAIL announces is held from the beginning: in memory where it can be, on disk where not.
func TestSpoolReserves(t *testing.T) {
	for _, tt := range []struct {
		name             string
		announced, sent  int64
		others           int64 // octets of memory that other messages hold
		memory, disk     int64 // held before the message comes
		file             bool
		heldBeforeItEnds int64 // of memory
	}{
		{"a small message", 100, 100, 0, 0, 0, false, 0},
		{"a large buffer", largeBuffer, largeBuffer, 0, 0, 0, false, largeBuffer},
		{"two large buffers", largeBuffer + 1, largeBuffer + 1, 0, 2 * largeBuffer, 0, false, 2 * largeBuffer},
		{"less than announced", 3 * largeBuffer, 100, 0, 3 * largeBuffer, 0, false, 3 * largeBuffer},
		{"more than announced", largeBuffer + 1, 3 * largeBuffer, 0, 2 * largeBuffer, 0, false, 3 * largeBuffer},
		{"far more than announced", largeBuffer + 1, 2 * maxMemory, 0, 2 * largeBuffer, 0, true, largeBuffer},
		{"more than memory takes", maxMemory + 1, maxMemory + 1, 0, 0, maxMemory + 1, true, largeBuffer},
		{"short memory", 3 * largeBuffer, 3 * largeBuffer, 2 * largeBuffer, 0, 3 * largeBuffer, true, largeBuffer},
	} {
		h := newHandler(nil)
		h.SpoolDir, h.SpoolMemory = t.TempDir(), 4*maxMemory
		h.usage.memory.Add(tt.others)
		if tt.others > 0 {
			h.SpoolMemory = tt.others + largeBuffer
		}
		s := newSpool(h, nil)
		if err := s.reserve(tt.announced); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if m, d := h.usage.memory.Load()-tt.others, h.usage.disk.used; m != tt.memory || d != tt.disk {
			t.Errorf("%s: holds %d of memory, %d of disk; want %d, %d", tt.name, m, d, tt.memory, tt.disk)
		}
		want := fill(s, int(tt.sent))
		if m := h.usage.memory.Load() - tt.others; m != tt.heldBeforeItEnds {
			t.Errorf("%s: holds %d of memory at its end; want %d", tt.name, m, tt.heldBeforeItEnds)
		}
		if err := s.finish(); err != nil || (s.file != nil) != tt.file {
			t.Errorf("%s: %v, file %v; want %v", tt.name, err, s.file != nil, tt.file)
		}
		if got, err := io.ReadAll(s.Open()); !bytes.Equal(got, want) || err != nil {
			t.Errorf("%s: read %d octets, %v; want %d", tt.name, len(got), err, len(want))
		}
		s.release()
		if m, d := h.usage.memory.Load()-tt.others, h.usage.disk.used; m != 0 || d != 0 {
			t.Errorf("%s: left in use: memory %d, disk %d", tt.name, m, d)
		}
	}
}

// Several read a message in many pieces at a time, each from its beginning, and its digest is that of what the
// client sent.
func TestSpoolInPieces(t *testing.T) {
	h := newHandler(nil)
	s := newSpool(h, nil)
	defer s.release()
	const own = "Return-Path: <>\n"
	s.begin([]byte(own))
	text := fill(s, 5*largeBuffer+17)
	if err := s.finish(); err != nil {
		t.Fatal(err)
	}
	want := own + string(text)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var out strings.Builder
			if n, err := io.Copy(&out, s.Open()); n != s.Size() || err != nil || out.String() != want {
				t.Errorf("copied %d octets, %v; want %d", n, err, s.Size())
			}
		})
	}
	wg.Wait()
	if got := s.Digest(); got != xxhash.Sum64(text) {
		t.Errorf("digest %x; want %x", got, xxhash.Sum64(text))
	}
	if got := s.head(100); !bytes.Equal(got, text[:100]) {
		t.Errorf("head %q; want %q", got, text[:100])
	}
}

func TestSpoolFails(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(*Handler, *spool)
		want error
	}{
		{"a directory that is gone", func(h *Handler, s *spool) { h.SpoolDir = "/nonexistent" }, os.ErrNotExist},
		{"no room for files", func(h *Handler, s *spool) { h.SpoolDisk = 1 }, errNoSpace},
		{"too large a message", func(h *Handler, s *spool) { s.max = 2 * largeBuffer }, errTooLarge},
	} {
		h := newHandler(nil)
		h.SpoolDir = t.TempDir()
		s := newSpool(h, nil)
		tt.set(h, s)
		fill(s, maxMemory+3*largeBuffer)
		if err := s.finish(); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v; want %v", tt.name, err, tt.want)
		}
		if m, d := h.usage.memory.Load(), h.usage.disk.used; m != 0 || d != 0 || s.buf != nil {
			t.Errorf("%s: left in use: memory %d, disk %d", tt.name, m, d)
		}
		s.release()
	}
}

// A spool that cannot be written defers the message and leaves the connection usable.
func TestSpoolFailureIsTemporary(t *testing.T) {
	m := new(memory)
	h := newHandler(m)
	h.SpoolDir = "/nonexistent"
	c := &script{Reader: strings.NewReader("MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nRCPT TO:<u2@example.test>\r\nDATA\r\n" +
		string(message(maxMemory+largeBuffer)) + "NOOP\r\nQUIT\r\n")}
	if err := h.ServeConn(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	want := "354 OK\r\n452 4.3.1 <u1@example.test> Insufficient system storage\r\n452 4.3.1 <u2@example.test> Insufficient system storage\r\n250 2.0.0 OK\r\n221 2.0.0 Bye\r\n"
	if got := c.out.String(); !strings.HasSuffix(got, want) {
		t.Errorf("got %q; want ... %q", got, want)
	}
}

// message returns a DATA section of about size octets.
func message(size int) []byte {
	line := "The quick brown fox jumps over the lazy dog and comes back for the same reasons.\r\n"
	return []byte(strings.Repeat(line, size/len(line)) + ".\r\n")
}

// forget is a Deliverer for benchmarks.
type forget struct{ n int64 }

func (f *forget) Deliver(ctx context.Context, env *lmtp.Envelope, to []*lmtp.Mailbox, msg lmtp.Message) []error {
	errs := make([]error, len(to))
	for i := range to {
		n, err := io.Copy(io.Discard, msg.Open())
		f.n += n
		errs[i] = err
	}
	return errs
}

// BenchmarkSession is a message as Postfix sends it, without network and disk.
func BenchmarkSession(b *testing.B) {
	for _, tt := range []struct{ size, rcpts int }{{10 << 10, 1}, {10 << 10, 50}, {1 << 20, 1}} {
		var text bytes.Buffer
		text.WriteString("MAIL FROM:<sender@x.test> SIZE=1000\r\n")
		for i := range tt.rcpts {
			fmt.Fprintf(&text, "RCPT TO:<u1+%d@example.test>\r\n", i)
		}
		text.WriteString("DATA\r\n")
		text.Write(message(tt.size))
		b.Run(fmt.Sprintf("%d_octets_%d_recipients", tt.size, tt.rcpts), func(b *testing.B) {
			h := newHandler(nil)
			h.Deliverer = new(forget)
			h.SpoolDir = b.TempDir()
			b.SetBytes(int64(text.Len()))
			b.ReportAllocs()
			for b.Loop() {
				if err := h.ServeConn(context.Background(), &script{Reader: bytes.NewReader(text.Bytes())}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkData(b *testing.B) {
	for _, size := range []int{10 << 10, 1 << 20} {
		text := message(size)
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			h := newHandler(nil)
			h.SpoolDir = b.TempDir()
			r := bufio.NewReaderSize(nil, readSize)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				s := newSpool(h, nil)
				r.Reset(bytes.NewReader(text))
				if err := readData(r, s); err != nil {
					b.Fatal(err)
				}
				if err := s.finish(); err != nil {
					b.Fatal(err)
				}
				s.release()
			}
		})
	}
}
