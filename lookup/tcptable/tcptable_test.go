package tcptable

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"dovepost/lookup"
	"dovepost/lookup/internal/wire"
)

// rows is a map for the tests.
func rows(ctx context.Context, key string) ([]string, error) {
	switch key {
	case "alice@example.com":
		return []string{key}, nil
	case "team@example.com":
		return []string{"alice@example.com", "bob@example.com"}, nil
	case "slow":
		<-ctx.Done()
		return nil, fmt.Errorf("mysql: %w", ctx.Err())
	case "fail":
		return nil, errors.New("access denied for user secret@db1:\n3306")
	case "empty":
		return nil, nil
	case "blank":
		return []string{""}, nil
	case "invalid":
		return []string{"a\xff"}, nil
	case "nul":
		return []string{"a\x00b"}, nil
	case "lines":
		return []string{"a@x\r\nb@y"}, nil
	case "longest":
		return []string{strings.Repeat("x", maxLine-5)}, nil
	case "too long":
		return []string{strings.Repeat("x", maxLine-4)}, nil
	case "too long encoded":
		return []string{strings.Repeat("ä", maxLine/6)}, nil
	case "far too long":
		return []string{strings.Repeat("x", 1<<20)}, nil
	}
	if strings.HasPrefix(key, "echo") {
		return []string{key}, nil
	}
	return nil, fmt.Errorf("table t: %w", lookup.ErrNotFound)
}

func newHandler(log io.Writer) *Handler {
	return &Handler{
		Map:     func() lookup.Map { return lookup.Func(rows) },
		Timeout: 10 * time.Millisecond,
		Log:     slog.New(slog.NewTextHandler(log, nil)),
	}
}

// serve starts ServeConn on one end of a pipe and returns the other, and what
// ServeConn will have said.
func serve(t testing.TB, h *Handler) (net.Conn, <-chan error) {
	client, server := net.Pipe()
	done := make(chan error, 1)
	go func() {
		err := h.ServeConn(context.Background(), server)
		server.Close()
		done <- err
		close(done)
	}()
	t.Cleanup(func() { client.Close(); <-done })
	return client, done
}

// unescape undoes \n and the like in a line of a dialogue.
func unescape(t *testing.T, line string) string {
	s, err := strconv.Unquote(`"` + strings.ReplaceAll(line, `"`, `\"`) + `"`)
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return s
}

func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogues", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c, _ := serve(t, newHandler(t.Output()))
			c.SetDeadline(time.Now().Add(time.Minute))
			var sending sync.WaitGroup
			defer sending.Wait()
			for n, line := range strings.Split(string(text), "\n") {
				switch {
				case line == "C: <close>":
					sending.Wait()
					c.Close()
				case strings.HasPrefix(line, "C: "):
					sending.Wait()
					sending.Go(func() { io.WriteString(c, unescape(t, line[3:])) })
				case line == "S: <closed>":
					if b, err := io.ReadAll(c); len(b) > 0 || err != nil && !errors.Is(err, io.ErrClosedPipe) {
						t.Errorf("line %d: got %q, %v; want the end", n+1, b, err)
					}
				case strings.HasPrefix(line, "S: "):
					want := unescape(t, line[3:])
					got := make([]byte, len(want))
					if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
						t.Fatalf("line %d: got %q, %v; want %q", n+1, got, err, want)
					}
				case line != "" && line[0] != '#':
					t.Fatalf("line %d: %q", n+1, line)
				}
			}
		})
	}
}

func TestSizes(t *testing.T) {
	key := "get echo" + strings.Repeat("k", maxLine-len("get echo\n"))
	for _, tt := range []struct{ name, in, want string }{
		{"the longest request, whose reply is not too long", key, "200 " + key[4:]},
		{"a request too long", key + "k", "400 request%20too%20long"},
		{"a request far too long", key + strings.Repeat("k", 100_000), "400 request%20too%20long"},
		{"the longest value", "get longest", "200 " + strings.Repeat("x", maxLine-5)},
		{"a value too long", "get too long", "400 value%20too%20long"},
		{"a value too long when encoded", "get too long encoded", "400 value%20too%20long"},
		{"a value far too long", "get far too long", "400 value%20too%20long"},
	} {
		t.Run("it handles "+tt.name, func(t *testing.T) {
			c, _ := serve(t, newHandler(t.Output()))
			go io.WriteString(c, tt.in+"\nget alice@example.com\n")
			r := bufio.NewReader(c)
			for _, want := range []string{tt.want, "200 alice@example.com"} {
				if got, err := r.ReadString('\n'); err != nil || got != want+"\n" || len(got) > maxLine {
					t.Errorf("got %.80q (%d), %v; want %.80q", got, len(got), err, want)
				}
			}
		})
	}
}

func TestEndlessLine(t *testing.T) {
	c, done := serve(t, newHandler(t.Output()))
	go io.Copy(c, endless{})
	if err := <-done; err == nil || !strings.Contains(err.Error(), "endless") {
		t.Errorf("ServeConn = %v; want an endless line", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func TestNoMap(t *testing.T) {
	h := newHandler(t.Output())
	h.Map = func() lookup.Map { return nil }
	if got, result := h.appendAnswer(t.Context(), nil, []byte("get x")); string(got) != "400 unknown%20map\n" || result != "temp" {
		t.Errorf("got %q, %s", got, result)
	}
}

// The end of a connection is good between two requests and bad within one.
func TestEnd(t *testing.T) {
	for in, want := range map[string]error{"": nil, "get echo\n": nil, "get": io.ErrUnexpectedEOF} {
		synctest.Test(t, func(t *testing.T) {
			c, done := serve(t, newHandler(io.Discard))
			go io.Copy(io.Discard, c)
			io.WriteString(c, in)
			synctest.Wait()
			c.Close()
			if err := <-done; err != want {
				t.Errorf("after %q: ServeConn = %v; want %v", in, err, want)
			}
		})
	}
}

func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, done := serve(t, newHandler(io.Discard))
		time.Sleep(24 * time.Hour) // between two requests: for ever
		io.WriteString(c, "get")
		start := time.Now()
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != wire.Patience {
			t.Errorf("ServeConn = %v after %v; want a deadline of %v", err, time.Since(start), wire.Patience)
		}
	})
}

// draining is a connection as the accept loop hands it over.
type draining struct {
	net.Conn
	mu             sync.Mutex
	draining, idle bool
}

func (d *draining) SetIdle(idle bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.idle = idle
	if d.draining && idle {
		return errors.New("shutting down")
	}
	return nil
}

func (d *draining) drain() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.draining = true
	if d.idle {
		d.Conn.SetReadDeadline(time.Unix(1, 0))
	}
}

func TestDrain(t *testing.T) {
	for _, busy := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			client, server := net.Pipe()
			d := &draining{Conn: server}
			done := make(chan error, 1)
			go func() { done <- newHandler(io.Discard).ServeConn(t.Context(), d) }()
			if busy {
				io.WriteString(client, "get ec")
			}
			synctest.Wait()
			d.drain()
			if busy {
				synctest.Wait()
				io.WriteString(client, "ho\n")
				if got, err := bufio.NewReader(client).ReadString('\n'); err != nil || got != "200 echo\n" {
					t.Errorf("within a request: got %q, %v", got, err)
				}
			}
			if err := <-done; err != nil {
				t.Errorf("busy %v: ServeConn = %v; want nil", busy, err)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"", "a b%", "k%20ey%25%C3%A9", "%zz", "%4", "\x00\xff", "a+b@c"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if got, err := decode(appendEncoded(nil, string(text))); err != nil || !bytes.Equal(got, text) {
			t.Errorf("decode(encode(%q)) = %q, %v", text, got, err)
		}
		for _, c := range appendEncoded(nil, string(text)) {
			if c <= ' ' || c >= 0x7f {
				t.Errorf("encoded %q holds %q", text, c)
			}
		}
		if got, err := decode(bytes.Clone(text)); err == nil && bytes.IndexByte(text, '%') < 0 && !bytes.Equal(got, text) {
			t.Errorf("decode(%q) = %q", text, got)
		}
	})
}

// Any line gets one line of at most 4096 octets that Postfix can read, and nothing
// but a proven "no" gets a 500.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{"get a", "get nobody", "get echo%41", "put a b", "", "get ", "get %ff", "get fail", "get echo%0a"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if bytes.Contains(line, []byte("slow")) {
			return
		}
		reply, result := newHandler(io.Discard).appendAnswer(t.Context(), nil, bytes.Clone(line))
		if len(reply) > maxLine || len(reply) < 6 || bytes.IndexByte(reply, '\n') != len(reply)-1 || !utf8.Valid(reply) {
			t.Fatalf("%q: reply %q", line, reply)
		}
		want := map[string]string{"found": "200 ", "notfound": "500 ", "temp": "400 "}[result]
		if string(reply[:4]) != want {
			t.Errorf("%q: reply %q for %s", line, reply, result)
		}
		key, err := decode(bytes.TrimPrefix(bytes.Clone(line), []byte("get ")))
		if result == "notfound" && (err != nil || !bytes.HasPrefix(line, []byte("get ")) || bytes.HasPrefix(key, []byte("echo"))) {
			t.Errorf("%q: not found", line)
		}
	})
}

func BenchmarkAnswer(b *testing.B) {
	h := newHandler(io.Discard)
	line := []byte("get alice@example.com")
	buf := make([]byte, 0, 512)
	in := make([]byte, len(line))
	b.ReportAllocs()
	for b.Loop() {
		copy(in, line)
		buf, _ = h.appendAnswer(b.Context(), buf[:0], in)
	}
}
