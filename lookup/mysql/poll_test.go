package mysql

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// pollPair returns a polled connection and its other end.
func pollPair(t *testing.T) (*pollConn, net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); peer.Close() })
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return &pollConn{Conn: c, raw: raw, line: new(line), polls: true}, peer
}

// Read handles what is there, what comes at once, what comes late, deadlines and the end.
func TestPoll(t *testing.T) {
	c, peer := pollPair(t)
	buf := make([]byte, 8)
	read := func(want string) {
		t.Helper()
		if n, err := c.Read(buf); string(buf[:n]) != want || err != nil {
			t.Errorf("got %q, %v; want %q", buf[:n], err, want)
		}
	}
	io.WriteString(peer, "there")
	read("there")
	if n, err := c.Read(nil); n != 0 || err != nil {
		t.Error(n, err)
	}
	for range 2 * pollAgain {
		time.AfterFunc(5*pollTime, func() { io.WriteString(peer, "late") })
		read("late")
	}
	c.misses = 0
	for tries := 0; c.misses < 2*pollMisses; tries++ {
		c.SetReadDeadline(time.Now().Add(20 * pollTime))
		if _, err := c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) || tries == 1000 {
			t.Fatalf("got %v; %d misses of %d", err, c.misses, tries)
		}
	}
	c.SetReadDeadline(time.Time{})
	for c.misses > 0 {
		io.WriteString(peer, "again")
		read("again")
	}
	for _, d := range []time.Time{time.Unix(1, 0), time.Now().Add(time.Millisecond)} {
		c.SetReadDeadline(d)
		if _, err := c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	}
	c.SetReadDeadline(time.Time{})
	c.misses = 0
	peer.Close()
	if _, err := c.Read(buf); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	c.Close()
	if _, err := c.Read(buf); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if polling.Load() {
		t.Error("it polls for ever")
	}
}

// nobody looks for an answer while others ask, nor until they have not for some time.
func TestLonely(t *testing.T) {
	alone.Store(pollAlone)
	if !lonely() {
		t.Error("not while nobody asks")
	}
	asking.Add(2)
	if lonely() {
		t.Error("while two ask")
	}
	asking.Add(-2)
	for i := range pollAlone {
		if lonely() {
			t.Errorf("after %d answers", i)
		}
	}
	if !lonely() {
		t.Error("not after many answers")
	}
}
