package socketmap

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
	case "large":
		return []string{strings.Repeat("x", maxReply-3)}, nil
	case "too large":
		return []string{strings.Repeat("x", maxReply-4), "y"}, nil
	}
	return nil, fmt.Errorf("table t: %w", lookup.ErrNotFound)
}

// ready is a map that has answers ready.
type ready struct{}

func (ready) Lookup(context.Context, string) ([]string, error) { return []string{"looked up "}, nil }

func (ready) Fresh(key []byte) (values []string, ok bool, err error) {
	switch string(key) {
	case "alice":
		return readyValues, true, nil
	case "nobody":
		return nil, true, lookup.ErrNotFound
	}
	return nil, false, nil
}

var readyValues = []string{"ready"}

var testMaps = lookup.Maps{
	"m":     lookup.Func(rows),
	"echo":  lookup.Func(func(_ context.Context, key string) ([]string, error) { return []string{key}, nil }),
	"fresh": ready{},
}

func newHandler(log io.Writer) *Handler {
	return &Handler{
		Maps:    func() lookup.Maps { return testMaps },
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
	netstring := func(s string) string { return string(appendNetstring(nil, s)) }
	key := strings.Repeat("k", maxKey)
	for _, tt := range []struct{ name, in, want string }{
		{"the longest key", netstring("echo " + key), netstring("OK " + key)},
		{"a key too long", netstring("echo " + key + "k"), netstring("TEMP key too long")},
		{"a request too long", netstring("echo " + strings.Repeat("k", maxSkip-10)), netstring("TEMP request too long")},
		{"the longest value", netstring("m large"), netstring("OK " + strings.Repeat("x", maxReply-3))},
		{"a value too long", netstring("m too large"), netstring("TEMP value too long")},
		{"an endless length", "999999999999:", ""},
		{"a length of many digits", strings.Repeat("0", 100) + "1:", ""},
		{"no length", ":x,", ""},
	} {
		t.Run("it handles "+tt.name, func(t *testing.T) {
			c, done := serve(t, newHandler(t.Output()))
			const probe = "6:echo a,"
			go io.WriteString(c, tt.in+probe)
			if tt.want == "" {
				if b, err := io.ReadAll(c); len(b) > 0 || err != nil {
					t.Errorf("got %q, %v; want the end", b, err)
				}
				if err := <-done; !errors.Is(err, errSyntax) {
					t.Errorf("ServeConn = %v; want %v", err, errSyntax)
				}
				return
			}
			got := make([]byte, len(tt.want)+len("4:OK a,"))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != tt.want+"4:OK a," {
				t.Errorf("got %.80q, %v; want %.80q", got, err, tt.want)
			}
		})
	}
}

// The end of a connection is good between two requests and bad within one.
func TestEnd(t *testing.T) {
	for in, want := range map[string]error{"": nil, "6:echo a,": nil, "6": io.ErrUnexpectedEOF, "6:echo": io.ErrUnexpectedEOF, "6:echo a": io.ErrUnexpectedEOF} {
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
		io.WriteString(c, "6:echo")
		start := time.Now()
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != wire.Patience {
			t.Errorf("ServeConn = %v after %v; want a deadline of %v", err, time.Since(start), wire.Patience)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c, done := serve(t, newHandler(io.Discard))
		io.WriteString(c, "6:echo a,") // and the answer is never read
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("ServeConn = %v; want a deadline", err)
		}
	})
}

// draining is a connection as the accept loop hands it over.
type draining struct {
	net.Conn
	mu       sync.Mutex
	draining bool
	idle     bool
	calls    []bool
}

func (d *draining) SetIdle(idle bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.idle = idle
	d.calls = append(d.calls, idle)
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
	for _, tt := range []struct {
		name string
		busy bool
	}{{"a connection between two requests", false}, {"a connection within one", true}} {
		t.Run("it handles "+tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				d := &draining{Conn: server}
				done := make(chan error, 1)
				go func() { done <- newHandler(io.Discard).ServeConn(t.Context(), d) }()
				if tt.busy {
					io.WriteString(client, "6:echo")
				}
				synctest.Wait()
				d.drain()
				if tt.busy {
					synctest.Wait()
					io.WriteString(client, " a,")
					got := make([]byte, 7)
					if _, err := io.ReadFull(client, got); err != nil || string(got) != "4:OK a," {
						t.Errorf("got %q, %v", got, err)
					}
				}
				if err := <-done; err != nil {
					t.Errorf("ServeConn = %v; want nil", err)
				}
			})
		})
	}
}

// Maps can be exchanged under an open connection.
func TestReload(t *testing.T) {
	h := newHandler(t.Output())
	maps := testMaps
	var mu sync.Mutex
	h.Maps = func() lookup.Maps { mu.Lock(); defer mu.Unlock(); return maps }
	c, _ := serve(t, h)
	client := NewClient(c)
	if got, err := client.Lookup(t.Context(), "echo", "x"); got != "x" || err != nil {
		t.Errorf("before: %q, %v", got, err)
	}
	mu.Lock()
	maps = lookup.Maps{"echo": ready{}}
	mu.Unlock()
	if got, err := client.Lookup(t.Context(), "echo", "alice"); got != "ready" || err != nil {
		t.Errorf("after: %q, %v", got, err)
	}
}

func TestObserveAndLog(t *testing.T) {
	synctest.Test(t, observeAndLog)
}

func observeAndLog(t *testing.T) {
	var log bytes.Buffer
	h := newHandler(&log)
	results := map[string]int{}
	h.Observe = func(result string, _ time.Duration) { results[result]++ }
	c, done := serve(t, h)
	client := NewClient(c)
	for range 50 {
		client.Lookup(t.Context(), "nosuch", "key")
	}
	client.Lookup(t.Context(), "m", "alice@example.com")
	client.Lookup(t.Context(), "m", "nobody")
	c.Close()
	<-done
	if results["temp"] != 50 || results["found"] != 1 || results["notfound"] != 1 {
		t.Errorf("observed %v", results)
	}
	if n := strings.Count(log.String(), "\n"); n != 10 {
		t.Errorf("50 mistakes in %d lines of log; want 10 in a second", n)
	}
}

func TestClient(t *testing.T) {
	c, _ := serve(t, newHandler(t.Output()))
	client := NewClient(c)
	if got, err := client.Lookup(t.Context(), "m", "team@example.com"); got != "alice@example.com,bob@example.com" || err != nil {
		t.Errorf("found: %q, %v", got, err)
	}
	if got, err := client.Lookup(t.Context(), "m", "nobody"); got != "" || !errors.Is(err, lookup.ErrNotFound) {
		t.Errorf("not found: %q, %v", got, err)
	}
	var reply *ReplyError
	if got, err := client.Lookup(t.Context(), "m", "fail"); got != "" || !errors.As(err, &reply) || reply.Reply != "TEMP lookup failed" {
		t.Errorf("temporary: %q, %v", got, err)
	}
}

// A client never takes for "not found" what is not.
func TestClientReplies(t *testing.T) {
	for _, tt := range []struct {
		reply    string
		value    string
		notFound bool
	}{
		{"9:NOTFOUND ,", "", true},
		{"8:NOTFOUND,", "", true},
		{"7:OK a ,,", "", false}, // shorter than it says
		{"9:OK  a, b ,", " a, b ", false},
		{"3:OK ,", "", false},
		{"2:OK,", "", false},
		{"8:notfound,", "", false},
		{"10:NOTFOUNDED,", "", false},
		{"11:PERM reason,", "", false},
		{"0:,", "", false},
		{"100001:", "", false},
		{"", "", false},
	} {
		client, server := net.Pipe()
		go func() {
			readNetstring(bufio.NewReader(server), maxRequest)
			io.WriteString(server, tt.reply)
			server.Close()
		}()
		got, err := NewClient(client).Lookup(t.Context(), "m", "k")
		if got != tt.value || errors.Is(err, lookup.ErrNotFound) != tt.notFound || (err == nil) != (tt.value != "") {
			t.Errorf("reply %q: got %q, %v; want %q, not found %v", tt.reply, got, err, tt.value, tt.notFound)
		}
		client.Close()
	}
}

func TestClientContext(t *testing.T) {
	client, server := net.Pipe()
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		readNetstring(bufio.NewReader(server), maxRequest)
		cancel()
	}()
	if _, err := NewClient(client).Lookup(ctx, "m", "k"); !errors.Is(err, context.Canceled) {
		t.Errorf("Lookup = %v; want %v", err, context.Canceled)
	}
}
