package dovecot

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// idleConn is a connection of an accept loop that can drain.
type idleConn struct {
	net.Conn
	mu             sync.Mutex
	idle, draining bool
	deadline       time.Time
	changed        chan bool // every SetIdle, as long as there is room
}

var errShutdown = errors.New("shutting down")

func (c *idleConn) SetIdle(idle bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = idle
	select {
	case c.changed <- idle:
	default:
	}
	if c.draining && idle {
		c.Conn.SetReadDeadline(longAgo)
		return errShutdown
	}
	if c.draining {
		c.Conn.SetReadDeadline(c.deadline)
	}
	return nil
}

func (c *idleConn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	if c.idle {
		c.Conn.SetReadDeadline(longAgo)
	}
}

func (c *idleConn) isIdle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.idle
}

func (c *idleConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	if c.draining && c.idle {
		return nil
	}
	return c.Conn.SetReadDeadline(t)
}

// session is a client of one handler over a pipe, in the time of a synctest bubble.
type session struct {
	t      *testing.T
	client net.Conn
	server *idleConn
	r      *bufio.Reader
	end    context.CancelFunc
	done   chan error
	cookie string
}

func (g *rig) session(t *testing.T, kind string, minor, pid int) *session {
	t.Helper()
	a, b := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	s := &session{t: t, client: a, server: &idleConn{Conn: b}, r: bufio.NewReader(a), end: cancel, done: make(chan error, 1)}
	h := g.handler(kind)
	go func() {
		defer b.Close()
		s.done <- h.ServeConn(ctx, s.server)
	}()
	for {
		line := s.read()
		s.cookie, _ = strings.CutPrefix(line, "COOKIE\t")
		if line == "DONE" || strings.HasPrefix(line, "SPID") && (kind == "master" || kind == "userdb") {
			break
		}
		if strings.HasPrefix(line, "COOKIE\t") {
			defer func(cookie string) { s.cookie = cookie }(s.cookie)
		}
	}
	s.send("VERSION\t1\t%d", minor)
	if kind == "login" || kind == "client" {
		s.send("CPID\t%d", pid)
	}
	synctest.Wait()
	return s
}

func (s *session) send(format string, args ...any) {
	s.t.Helper()
	if _, err := fmt.Fprintf(s.client, format+"\n", args...); err != nil {
		s.t.Fatal(err)
	}
}

func (s *session) read() string {
	s.t.Helper()
	line, err := s.r.ReadString('\n')
	if err != nil {
		return "closed"
	}
	return strings.TrimSuffix(line, "\n")
}

func (s *session) expect(want string) {
	s.t.Helper()
	if got := s.read(); got != want {
		s.t.Errorf("got %q, want %q", got, want)
	}
}

func (s *session) hangUp() {
	s.client.Close()
	<-s.done
	s.end()
}

var aliceResponse = plainResponse("", "alice@example.com", "secret")

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)

		// Nothing to do: it ends at once.
		idle := g.session(t, "client", 2, 1)
		if !idle.server.isIdle() {
			t.Error("not idle after the handshake")
		}
		idle.server.drain()
		idle.expect("closed")
		if err := <-idle.done; err != nil {
			t.Errorf("drained: %v, want nil", err)
		}

		// Inside an exchange: that one is finished, and one that was sent meanwhile, too.
		busy := g.session(t, "client", 2, 1)
		busy.send("AUTH\t1\tPLAIN\tservice=imap")
		busy.expect("CONT\t1\t")
		busy.server.drain()
		busy.send("AUTH\t2\tPLAIN\tservice=imap\tresp=%s", aliceResponse)
		busy.expect("OK\t2\tuser=alice@example.com")
		busy.send("CONT\t1\t%s", aliceResponse)
		busy.expect("OK\t1\tuser=alice@example.com")
		busy.expect("closed")
		if err := <-busy.done; err != nil {
			t.Errorf("drained: %v, want nil", err)
		}

		// A client that says nothing more does not keep the connection for long; one that
		// does has its answer.
		for _, tt := range []struct {
			name, answer string
			minor        int
			after        time.Duration // of the drain, since the challenge
		}{
			{"a silent client of Dovecot", "FAIL\t1\tcode=temp_fail", 2, 0},
			{"a client that has long been silent", "FAIL\t1\tcode=temp_fail", 2, time.Minute},
			{"a silent client of Postfix", "closed", 0, 0},
		} {
			silent := g.session(t, "client", tt.minor, 1)
			silent.send("AUTH\t1\tPLAIN\tservice=imap")
			silent.expect("CONT\t1\t")
			start := time.Now()
			time.Sleep(tt.after)
			silent.server.drain()
			silent.expect(tt.answer)
			silent.expect("closed")
			if took := time.Since(start); took > max(patience, tt.after)+time.Second || took < max(patience, tt.after) {
				t.Errorf("it handles %s: closed after %v", tt.name, took)
			}
			if err := <-silent.done; err != nil {
				t.Errorf("it handles %s: %v", tt.name, err)
			}
		}
		late := g.session(t, "client", 2, 1)
		late.send("AUTH\t1\tLOGIN\tservice=imap")
		late.expect("CONT\t1\tVXNlcm5hbWU6")
		time.Sleep(time.Minute)
		late.send("CONT\t1\tYWxpY2VAZXhhbXBsZS5jb20=")
		late.expect("CONT\t1\tUGFzc3dvcmQ6")
		late.server.drain()
		time.Sleep(patience - time.Second)
		late.send("CONT\t1\tc2VjcmV0")
		late.expect("OK\t1\tuser=alice@example.com")
		late.expect("closed")
		<-late.done

		// A login that waits for its pick-up keeps the connection, for a while.
		login := g.session(t, "login", 2, 1)
		login.send("AUTH\t1\tPLAIN\tservice=imap\tresp=%s", aliceResponse)
		login.expect("OK\t1\tuser=alice@example.com")
		start := time.Now()
		login.server.drain()
		login.expect("closed")
		if took := time.Since(start); took < pickUpGrace-time.Second/10 || took > pickUpGrace+time.Second {
			t.Errorf("the drain waited for %v, want about %v", took, pickUpGrace)
		}
		<-login.done

		// A master with nothing to do.
		master := g.session(t, "userdb", 1, 0)
		master.server.drain()
		master.expect("closed")
		<-master.done
	})
}

func TestHardEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		for _, tt := range []struct {
			minor   int
			service string
			want    string
		}{{2, "imap", "FAIL\t1\tcode=temp_fail"}, {0, "smtp", "closed"}} {
			s := g.session(t, "client", tt.minor, 1)
			s.send("AUTH\t1\tLOGIN\tservice=%s", tt.service)
			s.expect("CONT\t1\tVXNlcm5hbWU6")
			s.end()
			s.expect(tt.want)
			<-s.done
		}
		s := g.session(t, "userdb", 1, 0)
		s.send("USER\t1\thang@example.com\tservice=lmtp")
		synctest.Wait()
		s.end()
		if got := s.read(); !strings.HasPrefix(got, "FAIL\t1\t") {
			t.Errorf("got %q, want FAIL", got)
		}
		s.expect("closed")
		<-s.done
	})
}

func TestTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		s := g.session(t, "login", 2, 1)

		// The client says nothing more.
		s.send("AUTH\t1\tPLAIN\tservice=imap")
		s.expect("CONT\t1\t")
		time.Sleep(openTimeout + time.Second)
		s.send("CONT\t1\t%s", aliceResponse)
		s.expect("FAIL\t1\treason=" + timedOutText)

		// Nobody picks the login up; until then the connection lives.
		s.send("AUTH\t2\tPLAIN\tservice=imap\tresp=%s", aliceResponse)
		s.expect("OK\t2\tuser=alice@example.com")
		time.Sleep(openTimeout - time.Second)
		if l, err := g.instance.pickUp(1, 2, s.cookie); err != nil || l.row.User != "alice@example.com" || l.row.Password != "" {
			t.Errorf("pick-up just in time: %+v, %v", l.row, err)
		}
		s.send("AUTH\t3\tPLAIN\tservice=imap\tresp=%s", aliceResponse)
		s.expect("OK\t3\tuser=alice@example.com")
		time.Sleep(openTimeout + time.Second)
		if _, err := g.instance.pickUp(1, 3, s.cookie); err == nil {
			t.Error("picked up after the time limit")
		}
		s.hangUp()

		// No handshake, and a line that never ends.
		a, b := net.Pipe()
		done := make(chan error, 1)
		go func() { defer b.Close(); done <- g.handler("client").ServeConn(context.Background(), b) }()
		r := bufio.NewReader(a)
		for line := ""; line != "DONE\n"; line, _ = r.ReadString('\n') {
		}
		if err := <-done; !errors.Is(err, errHandshake) {
			t.Errorf("no handshake: %v, want errHandshake", err)
		}
		slow := g.session(t, "client", 2, 1)
		fmt.Fprint(slow.client, "AUTH\t1")
		if err := <-slow.done; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("half a line: %v, want a time-out", err)
		}
		slow.end()

		// Nothing at all is no reason to close: Postfix keeps its connection for hours.
		quiet := g.session(t, "client", 0, 1)
		time.Sleep(24 * time.Hour)
		quiet.send("AUTH\t1\tPLAIN\tservice=smtp\tresp=%s", aliceResponse)
		quiet.expect("OK\t1\tuser=alice@example.com")
		quiet.hangUp()
	})
}

// TestDelay: refusals are late, what is ours is told at once, and CANCEL ends the wait.
func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		g.delay.Failure = 2 * time.Second
		s := g.session(t, "client", 2, 1)
		for _, tt := range []struct {
			user     string
			min, max time.Duration
		}{
			{"alice@example.com", 2 * time.Second, 3 * time.Second},
			{"nobody@example.com", 2 * time.Second, 3 * time.Second},
			{"temp@example.com", 0, time.Second},
		} {
			start := time.Now()
			s.send("AUTH\t1\tPLAIN\tservice=imap\tresp=%s", plainResponse("", tt.user, "wrong"))
			s.read()
			if took := time.Since(start); took < tt.min || took > tt.max {
				t.Errorf("%s: the refusal took %v, want %v to %v", tt.user, took, tt.min, tt.max)
			}
		}
		s.send("AUTH\t2\tPLAIN\tservice=imap\tresp=%s", plainResponse("", "alice@example.com", "wrong"))
		synctest.Wait()
		s.send("CANCEL\t2")
		s.send("AUTH\t2\tPLAIN\tservice=imap\tresp=%s", aliceResponse)
		s.expect("OK\t2\tuser=alice@example.com")
		s.hangUp()
	})
}

func TestTooManyRequests(t *testing.T) {
	g := newRig(t)
	l := g.listen(t, "client", 0o600)
	c, err := net.Dial("unix", l.path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() {
		w := bufio.NewWriter(c)
		fmt.Fprint(w, "VERSION\t1\t2\nCPID\t1\n")
		for id := 1; id <= maxOpen+1; id++ {
			fmt.Fprintf(w, "AUTH\t%d\tPLAIN\tservice=imap\n", id)
		}
		w.Flush()
	}()
	r := bufio.NewReader(c)
	want := fmt.Sprintf("FAIL\t%d\tcode=temp_fail\n", maxOpen+1)
	c.SetReadDeadline(time.Now().Add(time.Minute))
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("%v before %q", err, want)
		}
		if line == want {
			return
		}
		if strings.HasPrefix(line, "FAIL") {
			t.Fatalf("got %q", line)
		}
	}
}

func TestRights(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root, to ask as other users")
	}
	g := newRig(t)
	const user, pass, list = "USER\t1\talice@example.com", "PASS\t2\tuser=alice@example.com", "DONE\t3\t\n"
	for _, tt := range []struct {
		name     string
		mode     os.FileMode
		uid, gid int
		want     string
	}{
		{"root", 0o666, 0, 0, "user pass list"},
		{"the group of the socket", 0o666, 4242, 0, "user pass list"},
		{"the user that is asked for", 0o666, 5000, 5000, "user"},
		{"another user", 0o666, 4242, 4242, ""},
		{"another mode", 0o777, 4242, 4242, "user pass list"},
	} {
		l := g.listen(t, "userdb", tt.mode)
		open(t, l.path)
		c := dialAs(t, l.path, tt.uid, tt.gid)
		fmt.Fprint(c, "VERSION\t1\t1\nUSER\t1\talice@example.com\tservice=lda\nPASS\t2\talice@example.com\tservice=lda\nLIST\t3\n")
		var answers string
		r := bufio.NewReader(c)
		c.SetReadDeadline(time.Now().Add(time.Minute))
		for _, word := range []string{"VERSION", "SPID", "", "", "DONE"} {
			line, err := r.ReadString('\n')
			for err == nil && strings.HasPrefix(line, "LIST") {
				line, err = r.ReadString('\n')
			}
			if err != nil {
				t.Fatalf("it handles %s: %v, waiting for %s", tt.name, err, word)
			}
			answers += line
		}
		var got []string
		for _, a := range []struct{ name, text string }{{"user", user}, {"pass", pass}, {"list", list}} {
			if strings.Contains(answers, a.text) {
				got = append(got, a.name)
			}
		}
		if got := strings.Join(got, " "); got != tt.want {
			t.Errorf("it handles %s: got %q, want %q: %q", tt.name, got, tt.want, answers)
		}
		c.Close()
	}
}

// dialAs connects as another user. The thread that does it is not used again.
func dialAs(t *testing.T, path string, uid, gid int) net.Conn {
	t.Helper()
	type result struct {
		c   net.Conn
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			done <- result{nil, err}
			return
		}
		const same = ^uintptr(0) // the real and the saved id stay; only the effective one counts
		for _, set := range []struct {
			call uintptr
			id   int
		}{{syscall.SYS_SETRESGID, gid}, {syscall.SYS_SETRESUID, uid}} {
			if _, _, errno := syscall.RawSyscall(set.call, same, uintptr(set.id), same); errno != 0 {
				err = errors.Join(err, errno)
			}
		}
		err = errors.Join(err, syscall.Connect(fd, &syscall.SockaddrUnix{Name: path}))
		f := os.NewFile(uintptr(fd), path)
		defer f.Close()
		c, fileErr := net.FileConn(f)
		done <- result{c, errors.Join(err, fileErr)}
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.c
}

// open lets everybody reach path.
func open(t *testing.T, path string) {
	t.Helper()
	for dir := filepath.Dir(path); dir != "/" && dir != filepath.Clean(os.TempDir()); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
