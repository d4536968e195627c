package loop

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// patience is for what must happen; no test that passes waits for so long.
const patience = time.Minute

// site is a loop with a listener of each kind that daemons have.
type site struct {
	t    *testing.T
	loop *Loop
	open sync.WaitGroup // handlers
}

func newSite(t *testing.T) *site {
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, loop: l}
	t.Cleanup(func() { // after the clients are closed
		s.open.Wait()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// connect returns the client's end of a connection that handle serves.
func (s *site) connect(network string, handle func(*Conn)) net.Conn {
	s.t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(s.t.TempDir(), "s")
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		s.t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial(network, ln.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { client.Close() })
	client.SetDeadline(time.Now().Add(patience))
	nc, err := ln.Accept()
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := s.loop.Adopt(nc)
	if err != nil {
		s.t.Fatal(err)
	}
	s.open.Add(1)
	c.Serve(func() {
		defer s.open.Done()
		defer c.Close()
		handle(c)
	})
	return client
}

// echo answers lines.
func echo(c *Conn) {
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := io.WriteString(c, line); err != nil {
			return
		}
	}
}

// ask says a line to echo.
func ask(t *testing.T, c net.Conn, line string) {
	t.Helper()
	fmt.Fprintln(c, line)
	got := make([]byte, len(line)+1)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != line+"\n" {
		t.Errorf("got %q, %v; want %q", got, err, line)
	}
}

// each runs a test with the sockets of each kind.
func each(t *testing.T, test func(t *testing.T, network string)) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) { test(t, network) })
	}
}

func TestManyConnections(t *testing.T) {
	each(t, func(t *testing.T, network string) {
		s := newSite(t)
		var wait sync.WaitGroup
		for i := range 50 {
			c := s.connect(network, echo)
			wait.Go(func() {
				for j := range 100 {
					ask(t, c, fmt.Sprint(i, " ", j))
				}
			})
		}
		wait.Wait()
	})
}

// A loop that has gone to sleep wakes.
func TestSleep(t *testing.T) {
	s := newSite(t)
	c := s.connect("unix", echo)
	for i := range 3 {
		ask(t, c, fmt.Sprint(i))
		for !s.loop.sleeping.Load() {
			time.Sleep(time.Millisecond)
		}
	}
}

// What is sent in one piece with the end is read before the end, and what comes after a
// client has closed its side of the connection only reaches it.
func TestEnd(t *testing.T) {
	each(t, func(t *testing.T, network string) {
		s := newSite(t)
		all := make(chan string, 1)
		c := s.connect(network, func(c *Conn) {
			b, err := io.ReadAll(c)
			fmt.Fprintf(c, "%d octets, %v", len(b), err)
			_, again := c.Read(make([]byte, 1))
			all <- fmt.Sprint(again)
		})
		io.WriteString(c, "some text")
		c.(interface{ CloseWrite() error }).CloseWrite()
		if got, err := io.ReadAll(c); string(got) != "9 octets, <nil>" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if got := <-all; got != "EOF" {
			t.Errorf("a second Read at the end: %v", got)
		}
	})
}

// A write waits for a peer that reads slowly, for as long as it may.
func TestWrite(t *testing.T) {
	each(t, func(t *testing.T, network string) {
		s := newSite(t)
		big := bytes.Repeat([]byte("0123456789abcdef"), 1<<19)
		result := make(chan error, 1)
		c := s.connect(network, func(c *Conn) {
			_, err := c.Write(big)
			result <- err
			echo(c)
		})
		got := make([]byte, len(big))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, big) {
			t.Errorf("%d octets, %v", len(got), err)
		}
		if err := <-result; err != nil {
			t.Error(err)
		}
		ask(t, c, "after it")

		s.connect(network, func(c *Conn) {
			c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
			n, err := c.Write(big)
			if n == len(big) || !errors.Is(err, os.ErrDeadlineExceeded) {
				err = fmt.Errorf("%d octets, %w", n, err)
			} else {
				err = nil
			}
			result <- err
		})
		if err := <-result; err != nil {
			t.Errorf("write to a peer that does not read: %v", err)
		}
	})
}

// A peer that has closed its side, and does not read, is waited for without a loop's work.
func TestWriteToTheHalfClosed(t *testing.T) {
	each(t, func(t *testing.T, network string) {
		s := newSite(t)
		big := make([]byte, 8<<20)
		wrote := make(chan int, 1)
		c := s.connect(network, func(c *Conn) {
			n, _ := c.Write(big)
			wrote <- n
		})
		c.(interface{ CloseWrite() error }).CloseWrite()
		for s.loop.within.Load() != 0 || !s.loop.sleeping.Load() {
			time.Sleep(time.Millisecond)
		}
		if n, err := io.Copy(io.Discard, c); n != int64(len(big)) || err != nil {
			t.Errorf("%d octets, %v", n, err)
		}
		if n := <-wrote; n != len(big) {
			t.Errorf("%d octets written", n)
		}
	})
}

func TestDeadline(t *testing.T) {
	s := newSite(t)
	read := func(set func(c *Conn)) error {
		result := make(chan error, 1)
		s.connect("unix", func(c *Conn) {
			set(c)
			_, err := c.Read(make([]byte, 1))
			result <- err
		})
		return <-result
	}
	for _, tt := range []struct {
		name string
		set  func(c *Conn)
	}{
		{"one in the past", func(c *Conn) { c.SetReadDeadline(time.Unix(1, 0)) }},
		{"one in the future", func(c *Conn) { c.SetReadDeadline(time.Now().Add(5 * time.Millisecond)) }},
		{"one that is taken back, and set again", func(c *Conn) {
			c.SetReadDeadline(time.Unix(1, 0))
			c.SetReadDeadline(time.Time{})
			c.SetDeadline(time.Now().Add(5 * time.Millisecond))
		}},
		{"one that comes nearer", func(c *Conn) {
			c.SetReadDeadline(time.Now().Add(time.Hour))
			time.AfterFunc(5*time.Millisecond, func() { c.SetReadDeadline(time.Unix(1, 0)) })
		}},
		{"one that is set while it waits", func(c *Conn) {
			time.AfterFunc(5*time.Millisecond, func() { c.SetReadDeadline(time.Now().Add(5 * time.Millisecond)) })
		}},
		{"one that is moved while it waits", func(c *Conn) {
			c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			time.AfterFunc(5*time.Millisecond, func() { c.SetReadDeadline(time.Now().Add(40 * time.Millisecond)) })
		}},
	} {
		t.Run("it handles "+tt.name, func(t *testing.T) {
			if err := read(tt.set); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Read: %v", err)
			}
		})
	}
	t.Run("it handles one that is not reached", func(t *testing.T) {
		c := s.connect("unix", func(c *Conn) {
			c.SetReadDeadline(time.Now().Add(patience))
			echo(c)
		})
		ask(t, c, "a")
		ask(t, c, "b")
	})
}

func TestCloseByOthers(t *testing.T) {
	each(t, func(t *testing.T, network string) {
		s := newSite(t)
		result := make(chan error, 1)
		c := s.connect(network, func(c *Conn) {
			time.AfterFunc(5*time.Millisecond, func() { c.Close() })
			_, err := c.Read(make([]byte, 1))
			result <- err
		})
		if err := <-result; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read: %v", err)
		}
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the client reads %v", err)
		}
	})
}

// A handler that waits for something else, with a word or without, keeps nobody waiting for long.
func TestHandlersThatWait(t *testing.T) {
	for name, say := range map[string]func(*Conn){
		"with a word":                 (*Conn).MayWait,
		"without":                     func(*Conn) {},
		"with several":                func(c *Conn) { c.MayWait(); c.MayWait() },
		"with another's word":         func(c *Conn) { done := make(chan int); go func() { c.MayWait(); close(done) }(); <-done },
		"with a word that comes late": func(c *Conn) { time.Sleep(3 * stall); c.MayWait() },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			release := make(chan int)
			var waiting sync.WaitGroup
			var waiters []net.Conn
			for range 4 {
				waiting.Add(1)
				c := s.connect("unix", func(c *Conn) {
					c.Read(make([]byte, 1))
					say(c)
					waiting.Done()
					<-release
					echo(c)
				})
				fmt.Fprint(c, "x")
				waiters = append(waiters, c)
			}
			other := s.connect("unix", echo)
			waiting.Wait()
			for i := range 100 {
				ask(t, other, fmt.Sprint(i))
			}
			close(release)
			for _, c := range append(waiters, other) {
				ask(t, c, "afterwards")
			}
		})
	}
}

// Nobody is kept waiting by a client that always has something to say.
func TestTurns(t *testing.T) {
	s := newSite(t)
	stop := make(chan int)
	busy := s.connect("unix", func(c *Conn) {
		b := make([]byte, 1)
		for {
			if _, err := c.Read(b); err != nil {
				return
			}
		}
	})
	var writing sync.WaitGroup
	writing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				busy.Write(make([]byte, 1<<16))
			}
		}
	})
	c := s.connect("unix", echo)
	for i := range 20 {
		ask(t, c, fmt.Sprint(i))
	}
	close(stop)
	busy.Close()
	writing.Wait()
}

// The sockets are given back.
func TestDescriptors(t *testing.T) {
	count := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	s := newSite(t)
	ask(t, s.connect("unix", echo), "a")
	before := count()
	var clients []net.Conn
	for range 20 {
		c := s.connect("unix", echo)
		ask(t, c, "a")
		clients = append(clients, c)
	}
	for _, c := range clients {
		c.Close()
	}
	for end := time.Now().Add(patience); count() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d descriptors, %d before", count(), before)
		}
	}
}

// A connection that nobody serves, as when the server ends just then, is closed.
func TestAdoptedOnly(t *testing.T) {
	s := newSite(t)
	ours, theirs := pair(t)
	c, err := s.loop.Adopt(ours)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := theirs.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("Read: %v", err)
	}
	p, q := net.Pipe()
	defer q.Close()
	if _, err := s.loop.Adopt(p); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a pipe: %v", err)
	}
}

func pair(t *testing.T) (ours, theirs net.Conn) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if theirs, err = net.Dial("unix", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close() })
	theirs.SetDeadline(time.Now().Add(patience))
	if ours, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}
