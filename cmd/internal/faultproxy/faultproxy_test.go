package faultproxy

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// echo is a server that sends back what it gets.
func echo(t *testing.T) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return l
}

// try sends text and returns what comes back within a while, and how it ended.
func try(c net.Conn, text string, limit time.Duration) (string, error) {
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	c.SetReadDeadline(time.Now().Add(limit))
	buf := make([]byte, len(text))
	n, err := io.ReadFull(c, buf)
	return string(buf[:n]), err
}

func TestFaults(t *testing.T) {
	server := echo(t)
	for network, addr := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "s")} {
		p, err := Listen(network, addr, "tcp", server.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		dial := func() net.Conn {
			t.Helper()
			c, err := net.Dial(network, p.Addr())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			return c
		}
		set := func(f Fault) {
			t.Helper()
			if err := p.Set(f); err != nil {
				t.Fatal(err)
			}
		}
		expect := func(what string, c net.Conn, text, want string, wantErr func(error) bool) {
			t.Helper()
			limit := time.Minute
			if wantErr(os.ErrDeadlineExceeded) {
				limit = 300 * time.Millisecond
			}
			if got, err := try(c, text, limit); got != want || !wantErr(err) {
				t.Errorf("%s, %s: got %q, %v; want %q", network, what, got, err, want)
			}
		}
		good := func(err error) bool { return err == nil }
		late := func(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
		gone := func(err error) bool { return err != nil && !late(err) }

		c := dial()
		expect("pass", c, "one", "one", good)
		set(Hang())
		expect("hang", c, "two", "", late)
		set(Pass())
		expect("after hang", c, "", "", good)
		expect("what was held up", c, "three", "twoth", good)
		if rest, err := try(c, "xx", time.Minute); rest != "re" || err != nil {
			t.Errorf("rest: %q, %v", rest, err)
		}
		c = dial()
		expect("pass", c, "four", "four", good)
		set(Lose())
		expect("lose", c, "five", "", late)
		set(Pass())
		expect("after lose", c, "six", "", late)
		c = dial()
		set(Slow(30 * time.Millisecond))
		began := time.Now()
		if expect("slow", c, "seven", "seven", good); time.Since(began) < 30*time.Millisecond {
			t.Errorf("slow took %v", time.Since(began))
		}
		set(Cut(3))
		expect("cut", c, strings.Repeat("x", 100), "xxx", gone)
		c = dial()
		set(Refuse())
		expect("an open one, refused", c, "eight", "", gone)
		if c, err := net.Dial(network, p.Addr()); err == nil {
			c.Close()
			t.Errorf("%s: a new one is not refused", network)
		}
		set(Pass())
		expect("after refuse", dial(), "nine", "nine", good)
		if p.Total() < 4 || p.Open() == 0 {
			t.Errorf("%d connections, %d open", p.Total(), p.Open())
		}
		p.Close()
		if p.Open() != 0 {
			t.Errorf("%d connections open after Close", p.Open())
		}
	}
}
