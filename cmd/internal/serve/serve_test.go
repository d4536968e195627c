package serve

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
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dovepost/cmd/internal/loop"
)

// echo answers lines; "slow" begins a request whose second line it awaits, "hang" one that
// the end of ctx ends.
func echo(ctx context.Context, c net.Conn) error {
	sc := c.(*Conn)
	r := bufio.NewReader(c)
	for {
		err := sc.SetIdle(true)
		if err == nil {
			_, err = r.Peek(1)
		}
		if errors.Is(err, ErrDraining) || errors.Is(err, os.ErrDeadlineExceeded) {
			fmt.Fprintln(c, "bye")
			return nil
		}
		if err != nil {
			return err
		}
		sc.SetIdle(false)
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		switch strings.TrimSpace(line) {
		case "panic":
			panic("boom")
		case "slow":
			fmt.Fprintln(c, "go on")
			rest, err := r.ReadString('\n')
			if err != nil {
				return err
			}
			line += rest
		case "hang":
			fmt.Fprintln(c, "hanging")
			<-ctx.Done()
			fmt.Fprintln(c, "gave up")
			return ctx.Err()
		}
		fmt.Fprintf(c, "%q\n", line)
	}
}

// bothWays runs a test with a goroutine for each connection, and in a loop.
func bothWays(t *testing.T, test func(*testing.T, *Server)) {
	t.Run("goroutines", func(t *testing.T) { test(t, new(Server)) })
	t.Run("loop", func(t *testing.T) {
		l, err := loop.New()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		test(t, &Server{Loop: l})
	})
}

type client struct {
	*testing.T
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, ln net.Listener) *client {
	t.Helper()
	c, err := net.Dial(ln.Addr().Network(), ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return &client{t, c, bufio.NewReader(c)}
}

func (c *client) say(line, want string) {
	c.Helper()
	fmt.Fprintln(c.Conn, line)
	c.expect(want)
}

func (c *client) expect(want string) {
	c.Helper()
	got, err := c.r.ReadString('\n')
	if got != want+"\n" {
		c.Fatalf("got %q, %v; want %q", got, err, want)
	}
}

func (c *client) expectEOF() {
	c.Helper()
	if rest, err := io.ReadAll(c.r); err != nil || len(rest) > 0 {
		c.Fatalf("got %q, %v; want EOF", rest, err)
	}
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func start(t *testing.T, s *Server) (net.Listener, *logBuffer) {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	logs := new(logBuffer)
	s.Log = slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if s.Handler == nil {
		s.Handler = HandlerFunc(echo)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return ln, logs
}

func TestAPanicEndsOnlyItsConnection(t *testing.T) { bothWays(t, aPanicEndsOnlyItsConnection) }

func aPanicEndsOnlyItsConnection(t *testing.T, s *Server) {
	ln, logs := start(t, s)
	a, b := dial(t, ln), dial(t, ln)
	b.say("one", `"one\n"`)
	fmt.Fprintln(a.Conn, "panic")
	a.expectEOF()
	b.say("two", `"two\n"`)
	if !strings.Contains(logs.String(), "boom") {
		t.Errorf("log does not name the panic: %s", logs)
	}
}

func TestDrainWakesIdleReadersAndLetsRequestsFinish(t *testing.T) {
	bothWays(t, drainWakesIdleReadersAndLetsRequestsFinish)
}

func drainWakesIdleReadersAndLetsRequestsFinish(t *testing.T, s *Server) {
	ln, _ := start(t, s)
	idle, busy := dial(t, ln), dial(t, ln)
	idle.say("x", `"x\n"`)
	busy.say("slow", "go on")

	done := make(chan error, 1)
	go func() { done <- s.Shutdown(context.Background()) }()
	idle.expect("bye")
	idle.expectEOF()
	select {
	case err := <-done:
		t.Fatalf("Shutdown returned %v while a request was in flight", err)
	case <-time.After(50 * time.Millisecond):
	}
	busy.say("end", `"slow\nend\n"`)
	busy.expect("bye")
	busy.expectEOF()
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if _, err := net.Dial("unix", ln.Addr().String()); err == nil {
		t.Error("the listener still accepts after the drain")
	}
}

func TestTheHardEndCancelsAndThenCloses(t *testing.T) { bothWays(t, theHardEndCancelsAndThenCloses) }

func theHardEndCancelsAndThenCloses(t *testing.T, s *Server) {
	ln, _ := start(t, s)
	hangs, deaf := dial(t, ln), dial(t, ln)
	hangs.say("hang", "hanging")
	deaf.say("slow", "go on") // waits for its second line and does not look at ctx

	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(ctx) }()
	hangs.expect("gave up")
	deaf.expectEOF()
	if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown = %v, want deadline exceeded", err)
	}
}

func TestConnectionsBeyondTheLimitWait(t *testing.T) { bothWays(t, connectionsBeyondTheLimitWait) }

func connectionsBeyondTheLimitWait(t *testing.T, s *Server) {
	var open, most atomic.Int64
	s.MaxConns, s.OnConn = 2, func(d int) {
		if n := open.Add(int64(d)); n > most.Load() {
			most.Store(n)
		}
	}
	ln, logs := start(t, s)
	a, b := dial(t, ln), dial(t, ln)
	a.say("a", `"a\n"`)
	b.say("b", `"b\n"`)
	c := dial(t, ln)
	fmt.Fprintln(c.Conn, "c")
	waitFor(t, func() bool { return strings.Contains(logs.String(), "limit") })
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := c.r.ReadString('\n'); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the third connection got an answer (%v) beyond the limit", err)
	}
	c.SetReadDeadline(time.Now().Add(time.Minute))
	a.Close()
	c.expect(`"c\n"`)
	if most.Load() > 2 {
		t.Errorf("%d connections at a time, want at most 2", most.Load())
	}
}

// flaky fails its first Accepts as a process without free descriptors does.
type flaky struct {
	net.Listener
	left atomic.Int32
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.left.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return f.Listener.Accept()
}

func TestAcceptErrorsBackOff(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &flaky{Listener: ln}
	f.left.Store(4)
	logs := new(logBuffer)
	s := &Server{Handler: HandlerFunc(echo), Log: slog.New(slog.NewTextHandler(logs, nil))}
	done := make(chan error, 1)
	begin := time.Now()
	go func() { done <- s.Serve(f) }()
	dial(t, ln).say("x", `"x\n"`)
	if took := time.Since(begin); took < 70*time.Millisecond { // 5+10+20+40 ms
		t.Errorf("four failures took %v: no back-off", took)
	}
	if n := strings.Count(logs.String(), "too many open files"); n != 4 {
		t.Errorf("%d failures logged, want 4", n)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAListenerClosedByOthersIsAnError(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Handler: HandlerFunc(echo)}
	ln.Close()
	if err := s.Serve(ln); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve = %v, want net.ErrClosed", err)
	}
}

func TestTheHandlersDeadlineSurvivesADrain(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	c := &Conn{Conn: ours}
	c.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	c.SetIdle(true)
	c.startDrain()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("idle Read = %v, want to be woken", err)
	}
	// Data and drain raced: the handler goes on with the request it has, under its own deadline.
	c.SetIdle(false)
	begin := time.Now()
	c.SetReadDeadline(begin.Add(30 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) < 25*time.Millisecond {
		t.Fatalf("busy Read = %v after %v, want the handler's own deadline", err, time.Since(begin))
	}
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("condition not reached")
		}
	}
}
