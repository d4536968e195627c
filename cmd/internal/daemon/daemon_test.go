package daemon

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"dovepost/cmd/internal/daemon/daemontest"
	"dovepost/cmd/internal/serve"
)

// The test binary runs itself as a daemon that answers lines with its greeting.
func TestMain(m *testing.M) {
	if os.Getenv("DAEMON_TEST_CHILD") != "" {
		Main(greeter())
	}
	os.Exit(m.Run())
}

func greeter() Program {
	var file, text string
	return Program{
		Name:  "greeter",
		Doc:   "greeter answers lines.",
		Kinds: []string{"greet"},
		Flags: func(fs *pflag.FlagSet) {
			fs.StringVar(&file, "greeting", "", "read the greeting from `FILE`")
			fs.StringVar(&text, "print", "", "print `TEXT`")
		},
		Print: func(w io.Writer, _ *slog.Logger) (bool, error) {
			if text == "bad" {
				return false, ConfigError(errors.New("a bad text"))
			}
			fmt.Fprint(w, text)
			return text != "", nil
		},
		Start: func(ctx context.Context, env *Env) (*Service, error) {
			var greeting atomic.Pointer[string]
			load := func(context.Context) error {
				text, err := os.ReadFile(file)
				if err != nil {
					return err
				}
				s := strings.TrimSpace(string(text))
				if s == "away" {
					return errors.New("the database is away")
				}
				greeting.Store(&s)
				return nil
			}
			if err := load(ctx); errors.Is(err, os.ErrNotExist) {
				return nil, ConfigError(err)
			} else if err != nil {
				return nil, err
			}
			observe := env.Metrics.Observe("greet")
			usr1 := func() { env.Log.Info("greeting is " + *greeting.Load()) }
			env.Metrics.Cache("greetings", func() (hits, stale, misses, entries, bytes uint64) { return 1, 2, 3, 4, 5 })
			return &Service{Reload: load, Usr1: usr1, Handler: func(kind string) (serve.Handler, error) {
				return serve.HandlerFunc(func(ctx context.Context, c net.Conn) error {
					idle := c.(*serve.Conn).SetIdle
					r := bufio.NewReader(c)
					for {
						idle(true)
						if _, err := r.Peek(1); err != nil {
							fmt.Fprintln(c, "bye")
							return nil
						}
						idle(false)
						r.ReadString('\n')
						observe("ok", time.Millisecond)
						fmt.Fprintln(c, *greeting.Load())
					}
				}), nil
			}}, nil
		},
	}
}

type child struct {
	*exec.Cmd
	stderr lockedBuffer
	notify *net.UnixConn
}

// lockedBuffer is read while the child still writes.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// command prepares the daemon; it hears its notifications.
func command(t *testing.T, args ...string) *child {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &child{Cmd: exec.Command(os.Args[0], args...), notify: conn}
	c.Env = append(os.Environ(), "DAEMON_TEST_CHILD=1", "NOTIFY_SOCKET="+path)
	c.Stderr = &c.stderr
	t.Cleanup(func() {
		if c.Process != nil && c.ProcessState == nil {
			c.Process.Kill()
			c.Wait()
		}
		if t.Failed() {
			t.Log(c.stderr.String())
		}
	})
	return c
}

func (c *child) heard(t *testing.T, want string) {
	t.Helper()
	c.notify.SetReadDeadline(time.Now().Add(time.Minute))
	b := make([]byte, 200)
	n, err := c.notify.Read(b)
	if err != nil || !strings.HasPrefix(string(b[:n]), want) {
		t.Fatalf("notification %q, %v; want %s", b[:n], err, want)
	}
}

func (c *child) exits(t *testing.T, want int) {
	t.Helper()
	done := make(chan struct{})
	go func() { c.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("still running")
	}
	if got := c.ProcessState.ExitCode(); got != want {
		t.Fatalf("exit code %d, want %d", got, want)
	}
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func ask(t *testing.T, c net.Conn, r *bufio.Reader, want string) {
	t.Helper()
	c.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintln(c, "?")
	if got, err := r.ReadString('\n'); got != want+"\n" {
		t.Fatalf("got %q, %v; want %q", got, err, want)
	}
}

func TestLife(t *testing.T) {
	dir := t.TempDir()
	greeting := write(t, filepath.Join(dir, "greeting"), "hello")
	socket, metrics := filepath.Join(dir, "s"), filepath.Join(dir, "m")
	c := command(t, "--greeting", greeting, "--listen", "greet:unix:"+socket+",mode=0640", "--listen", "metrics:unix:"+metrics)
	c.Env = append(c.Env, "WATCHDOG_USEC=200000")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	c.heard(t, "READY=1")
	c.heard(t, "WATCHDOG=1")
	c.notify.SetReadDeadline(time.Time{})
	go io.Copy(io.Discard, c.notify) // where nobody listens, few notifications have room
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("socket: %v, %v; want mode 0640", info, err)
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	ask(t, conn, r, "hello")

	write(t, greeting, "good day")
	c.Process.Signal(syscall.SIGHUP)
	waitFor(t, func() bool { return strings.Contains(c.stderr.String(), "reloaded") })
	ask(t, conn, r, "good day") // the same connection
	write(t, greeting, "away")
	c.Process.Signal(syscall.SIGHUP)
	waitFor(t, func() bool { return strings.Contains(c.stderr.String(), "old state stays") })
	ask(t, conn, r, "good day")

	c.Process.Signal(syscall.SIGUSR1)
	waitFor(t, func() bool { return strings.Contains(c.stderr.String(), "greeting is good day") })
	ask(t, conn, r, "good day")

	page := scrape(t, metrics)
	for _, want := range []string{
		`dovepost_cache_hits_total{cache="greetings"} 1`,
		`dovepost_cache_stale_total{cache="greetings"} 2`,
		`dovepost_cache_misses_total{cache="greetings"} 3`,
		`dovepost_cache_entries{cache="greetings"} 4`,
		`dovepost_cache_bytes{cache="greetings"} 5`,
		`dovepost_connections_open{daemon="greeter",kind="greet"} 1`,
		`dovepost_requests_total{daemon="greeter",kind="greet",result="ok"} 4`,
		`dovepost_request_duration_seconds_count{daemon="greeter",kind="greet"} 4`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("metrics lack %s", want)
		}
	}

	c.Process.Signal(syscall.SIGTERM)
	if got, err := r.ReadString('\n'); got != "bye\n" {
		t.Errorf("idle connection got %q, %v; want to be told", got, err)
	}
	c.exits(t, exitOK)
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket file is still there: %v", err)
	}
}

func scrape(t *testing.T, socket string) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", socket)
	}}}
	resp, err := client.Get("http://metrics/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

func TestSocketActivation(t *testing.T) {
	dir := t.TempDir()
	greeting := write(t, filepath.Join(dir, "greeting"), "hello")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	fd, err := ln.File()
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()

	start := func(name string) *child {
		c := command(t, "--greeting", greeting)
		daemontest.Pass(c.Cmd, map[string]*os.File{name: fd})
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := start("greet")
	c.heard(t, "READY=1")
	conn, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask(t, conn, bufio.NewReader(conn), "hello")
	c.Process.Kill()
	c.Wait()

	// The socket outlives the daemon: who connects meanwhile waits for the next one.
	conn, err = net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c = start("greet")
	ask(t, conn, bufio.NewReader(conn), "hello")
	c.heard(t, "READY=1")
	c.Process.Signal(syscall.SIGTERM)
	c.exits(t, exitOK)

	start("other").exits(t, exitConfig)
}

func TestExitCodes(t *testing.T) {
	dir := t.TempDir()
	good := write(t, filepath.Join(dir, "good"), "hello")
	away := write(t, filepath.Join(dir, "away"), "away")
	config := write(t, filepath.Join(dir, "c.cf"), "greeting = "+good+"\nlisten = greet:unix:"+filepath.Join(dir, "s")+"\n")
	wrong := write(t, filepath.Join(dir, "w.cf"), "gretting = x\n")
	regular := write(t, filepath.Join(dir, "file"), "not a socket")
	tests := []struct {
		name string
		args []string
		want int
		says string
	}{
		{"--check of a good file", []string{"--config", config, "--check"}, exitOK, ""},
		{"--help", []string{"--help"}, exitOK, ""},
		{"--version", []string{"--version"}, exitOK, ""},
		{"an unknown flag", []string{"--no-such"}, exitUsage, "unknown flag"},
		{"an argument", []string{"x"}, exitUsage, "unexpected argument"},
		{"an unknown setting", []string{"--config", wrong}, exitConfig, "w.cf: line 1: unknown setting"},
		{"a missing file", []string{"--config", dir + "/none"}, exitConfig, "no such file"},
		{"a wrong listener", []string{"--greeting", good, "--listen", "lmtp:inet:1:2"}, exitConfig, "not one of"},
		{"a wrong level", []string{"--log_level", "loud"}, exitConfig, "log_level"},
		{"no listener", []string{"--greeting", good}, exitConfig, "nothing to listen on"},
		{"a program that refuses its settings", []string{"--greeting", dir + "/none", "--check"}, exitConfig, "no such file"},
		{"a program that cannot start now", []string{"--greeting", away, "--check"}, exitTemp, "database is away"},
		{"a file where the socket should be", []string{"--greeting", good, "--listen", "greet:unix:" + regular}, exitTemp, "not a socket"},
	}
	for _, tt := range tests {
		t.Run("it handles "+tt.name, func(t *testing.T) {
			c := command(t, tt.args...)
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			c.exits(t, tt.want)
			if !strings.Contains(c.stderr.String(), tt.says) {
				t.Errorf("stderr %q lacks %q", c.stderr.String(), tt.says)
			}
		})
	}
}

// TestStopBehindReloads: while a reload waits, for a database that does not answer, any
// number of SIGHUP may come and SIGTERM is not lost among them.
func TestStopBehindReloads(t *testing.T) {
	dir := t.TempDir()
	greeting := write(t, filepath.Join(dir, "greeting"), "hello")
	c := command(t, "--greeting="+greeting, "--listen=greet:unix:"+filepath.Join(dir, "socket"))
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	c.heard(t, "READY=1")
	slow := filepath.Join(dir, "slow")
	if err := errors.Join(syscall.Mkfifo(slow, 0o600), os.Remove(greeting), os.Link(slow, greeting)); err != nil {
		t.Fatal(err)
	}
	c.Process.Signal(syscall.SIGHUP)
	c.heard(t, "RELOADING=1")
	var w *os.File // can be opened when the daemon reads the other end
	waitFor(t, func() (open bool) {
		var err error
		if w, err = os.OpenFile(slow, os.O_WRONLY|syscall.O_NONBLOCK, 0); err != nil && !errors.Is(err, syscall.ENXIO) {
			t.Fatal(err)
		}
		return err == nil
	})
	for range 10 { // of one kind that is pending twice the kernel keeps one
		c.Process.Signal(syscall.SIGHUP)
		time.Sleep(5 * time.Millisecond)
	}
	c.Process.Signal(syscall.SIGTERM)
	if err := os.Remove(greeting); err != nil {
		t.Fatal(err)
	}
	write(t, greeting, "hello again")
	io.WriteString(w, "hello at last")
	w.Close()
	c.exits(t, 0)
}

func TestBindReplacesOnlyDeadSockets(t *testing.T) {
	l := Listen{Kind: "greet", Network: "unix", Address: filepath.Join(t.TempDir(), "s"), Mode: 0o600}
	alive, err := l.Bind()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Bind(); err == nil || !strings.Contains(err.Error(), "another process listens there") {
		t.Errorf("Bind beside a living listener = %v", err)
	}
	alive.(*net.UnixListener).SetUnlinkOnClose(false)
	alive.Close()
	again, err := l.Bind()
	if err != nil {
		t.Fatalf("Bind over a dead socket: %v", err)
	}
	again.Close()
}

func TestJournalLines(t *testing.T) {
	var b bytes.Buffer
	log := newLogger(&b, slog.LevelInfo, true)
	log.With("user", "a\nb").WithGroup("g").Error("login", "n", 1)
	log.Warn("w")
	log.Info("i")
	log.Debug("d")
	want := "<3>msg=login user=\"a\\nb\" g.n=1\n<4>msg=w\n<6>msg=i\n"
	if b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
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

// Text that is asked for is printed without listening.
func TestPrint(t *testing.T) {
	for _, tt := range []struct {
		text string
		code int
	}{{"some text", exitOK}, {"bad", exitConfig}} {
		c := command(t, "--print", tt.text)
		var out bytes.Buffer
		c.Stdout = &out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		c.exits(t, tt.code)
		if tt.code == exitOK && out.String() != tt.text {
			t.Errorf("printed %q; want %q", out.String(), tt.text)
		}
	}
}
