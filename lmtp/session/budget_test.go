package session

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Who waits is served in the order in which he came, and not overtaken by one who wants little.
func TestBudgetWaitsInLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b budget
		got := make(chan string, 9)
		take := func(name string, n int64, patience time.Duration, stop <-chan struct{}) {
			go func() {
				if !b.take(n, 0, 10, patience, stop) {
					name += " gave up"
				}
				got <- name
			}()
			synctest.Wait()
		}
		next := func(want string) {
			t.Helper()
			synctest.Wait()
			select {
			case name := <-got:
				if name != want {
					t.Errorf("got %q; want %q", name, want)
				}
			default:
				if want != "" {
					t.Errorf("nobody; want %q", want)
				}
			}
		}
		stop := make(chan struct{})
		take("first", 6, time.Hour, nil)
		next("first")
		take("more than there is", 11, time.Hour, nil)
		next("more than there is gave up")
		take("large", 10, time.Hour, nil)
		take("small", 1, time.Minute, nil)
		take("stopped", 1, time.Hour, stop)
		take("last", 2, time.Hour, nil)
		next("") // the small ones would fit, but the large one was there before
		close(stop)
		next("stopped gave up")
		time.Sleep(time.Minute)
		next("small gave up")
		b.give(6)
		next("large")
		next("")
		b.give(10)
		next("last")
		take("impatient", 9, time.Second, nil)
		take("modest", 1, time.Hour, nil)
		time.Sleep(time.Second)
		// With the one before it gone, it fits.
		names := []string{<-got, <-got}
		if s := strings.Join(names, ", "); !strings.Contains(s, "impatient gave up") || !strings.Contains(s, "modest") {
			t.Errorf("got %s", s)
		}
		b.give(3)
		if b.used != 0 || len(b.line) != 0 {
			t.Errorf("left: %d octets, %d in line", b.used, len(b.line))
		}
	})
}

// Two who hold all and want more would wait for each other: the one who is further gets it.
func TestBudgetDoesNotStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b budget
		b.take(6, 0, 10, 0, nil)
		b.take(4, 0, 10, 0, nil)
		order := make(chan string, 2)
		grow := func(name string, has, size int64) {
			for has < size {
				if !b.take(1, has, 10, time.Hour, nil) {
					t.Errorf("%s gave up", name)
				}
				has++
			}
			order <- name
			b.give(has)
		}
		start := time.Now()
		go grow("behind", 4, 10)
		synctest.Wait()
		go grow("ahead", 6, 10)
		if first, second := <-order, <-order; first != "ahead" || second != "behind" || time.Since(start) > 0 {
			t.Errorf("%s, %s, after %v; want ahead, behind, at once", first, second, time.Since(start))
		}
		synctest.Wait()
		if b.used != 0 || len(b.line) != 0 {
			t.Errorf("left: %d octets, %d in line", b.used, len(b.line))
		}
	})
}

// However many take and give: the limit holds, and in the end all is there again.
func TestBudgetHolds(t *testing.T) {
	var b budget
	var mu sync.Mutex
	held := int64(0)
	count := func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		if held += n; held > 100 {
			t.Errorf("%d octets are held; want at most 100", held)
		}
	}
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			for range 500 {
				n := rand.Int64N(100) + 1
				if b.take(n, 0, 100, time.Duration(rand.IntN(300))*time.Microsecond, nil) {
					count(n)
					count(-n)
					b.give(n)
				}
			}
		})
	}
	wait.Wait()
	if b.used != 0 || len(b.line) != 0 {
		t.Errorf("left: %d octets, %d in line", b.used, len(b.line))
	}
}

// pipe serves one connection with h inside a bubble of synctest.
func pipe(t *testing.T, h *Handler) (net.Conn, *bufio.Reader, <-chan error) {
	client, server := net.Pipe()
	t.Cleanup(func() { client.Close() })
	done := make(chan error, 1)
	go func() {
		defer server.Close()
		done <- h.ServeConn(context.Background(), server)
	}()
	r := bufio.NewReader(client)
	expect(t, r, "220 mx.test dovepost ready.")
	return client, r, done
}

// Messages wait for room, before 354 or while they are read, and are put off when there is none for too long.
func TestSpoolWaits(t *testing.T) {
	const size = 600 << 10
	body := strings.Repeat(strings.Repeat("x", 98)+"\r\n", size/100)
	begin := func(t *testing.T, h *Handler, announced int) (net.Conn, *bufio.Reader) {
		c, r, _ := pipe(t, h)
		fmt.Fprintf(c, "MAIL FROM:<> SIZE=%d\r\nRCPT TO:<u1@example.test>\r\nDATA\r\n", announced)
		expect(t, r, "250 2.1.0 OK", "250 2.1.5 OK")
		return c, r
	}
	newLimited := func(t *testing.T) (*Handler, *memory) {
		m := new(memory)
		h := newHandler(m)
		h.Timeout = time.Hour
		h.SpoolDir, h.SpoolDisk, h.NoReceived = t.TempDir(), 1<<20, true
		h.SpoolMemory = 1 // all of it goes to disk
		return h, m
	}
	const saved = "250 2.0.0 <u1@example.test> ID Saved"

	t.Run("it is put off, the connection goes on", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h, m := newLimited(t)
			_, first := begin(t, h, size)
			expect(t, first, "354 OK")
			start := time.Now()
			c, second := begin(t, h, size)
			expect(t, second, "452 4.3.1 Insufficient system storage")
			if took := time.Since(start); took != DefaultSpoolWait {
				t.Errorf("452 after %v; want %v", took, DefaultSpoolWait)
			}
			fmt.Fprint(c, "RSET\r\nMAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nBDAT 2 LAST\r\nx\n")
			expect(t, second, "250 2.0.0 OK", "250 2.1.0 OK", "250 2.1.5 OK", "250 2.0.0 <u1@example.test> ID:T2 Saved")
			if b, _ := m.next(); !strings.HasSuffix(b.text, "\nx\n") {
				t.Errorf("stored %q", b.text)
			}
		})
	})
	t.Run("before 354 until another has ended", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h, _ := newLimited(t)
			c, first := begin(t, h, size)
			expect(t, first, "354 OK")
			go func() {
				time.Sleep(DefaultSpoolWait / 2)
				fmt.Fprint(c, body+".\r\n")
			}()
			c2, second := begin(t, h, size)
			expect(t, first, saved)
			expect(t, second, "354 OK")
			fmt.Fprint(c2, body+".\r\n")
			expect(t, second, saved)
			if h.usage.disk.used != 0 || h.usage.memory.Load() != 0 {
				t.Errorf("left: disk %d, memory %d", h.usage.disk.used, h.usage.memory.Load())
			}
		})
	})
	t.Run("while it is read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h, m := newLimited(t)
			c, first := begin(t, h, size)
			expect(t, first, "354 OK")
			c2, second := begin(t, h, 0) // announces nothing
			expect(t, second, "354 OK")
			go fmt.Fprint(c2, body+".\r\n")
			synctest.Wait() // until the budget is used up
			time.Sleep(DefaultSpoolWait / 2)
			fmt.Fprint(c, body+".\r\n")
			expect(t, first, saved)
			expect(t, second, saved)
			if len(m.boxes) != 2 || len(m.boxes[0].text) != len(m.boxes[1].text) {
				t.Errorf("%d stored; want 2, alike", len(m.boxes))
			}
		})
	})
	t.Run("while a chunk is read, in vain", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h, _ := newLimited(t)
			_, first := begin(t, h, 1<<20)
			expect(t, first, "354 OK")
			c, r, _ := pipe(t, h)
			fmt.Fprint(c, "MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\n")
			go fmt.Fprintf(c, "BDAT %d LAST\r\n%sNOOP\r\n", len(body), body)
			expect(t, r, "250 2.1.0 OK", "250 2.1.5 OK", "452 4.3.1 <u1@example.test> Insufficient system storage", "250 2.0.0 OK")
		})
	})
	t.Run("a chunk that is announced, in vain", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h, _ := newLimited(t)
			_, first := begin(t, h, 1<<20)
			expect(t, first, "354 OK")
			c, r, _ := pipe(t, h)
			fmt.Fprintf(c, "MAIL FROM:<> SIZE=%d\r\nRCPT TO:<u1@example.test>\r\nRCPT TO:<u2@example.test>\r\n", size)
			go fmt.Fprint(c, "BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")
			expect(t, r, "250 2.1.0 OK", "250 2.1.5 OK", "250 2.1.5 OK", "452 4.3.1 Insufficient system storage",
				"503 5.5.0 Previous data chunk failed, issue RSET first", "503 5.5.0 Previous data chunk failed, issue RSET first", "250 2.0.0 OK")
		})
	})
}

// A message may take long as long as it comes at all; octet by octet nobody holds a connection for ever.
func TestSlowSenders(t *testing.T) {
	for _, tt := range []struct {
		name, before string
		piece        string
		pieces       int
		want         string
		least, most  time.Duration // until the answer
	}{
		{"an octet a second", "DATA\r\n", "x", 1 << 20, "421 4.4.2 mx.test Disconnected for inactivity", DefaultDataTimeout, DefaultDataTimeout + 2*time.Second},
		{"an octet a second, in a chunk", "BDAT 1000000\r\n", "x", 1 << 20, "421 4.4.2 mx.test Disconnected for inactivity", DefaultDataTimeout, DefaultDataTimeout + 2*time.Second},
		{"600 octets a second", "DATA\r\n", strings.Repeat("x", 598) + "\r\n", 7200, "250 2.0.0 <u1@example.test> ID Saved", 2 * time.Hour, 2*time.Hour + time.Second},
		{"400 octets a second", "DATA\r\n", strings.Repeat("x", 398) + "\r\n", 7200, "421 4.4.2 mx.test Disconnected for inactivity", DefaultDataTimeout, 2 * time.Hour},
		{"a command, an octet a second", "", "x", 10000, "421 4.4.2 mx.test Disconnected for inactivity", DefaultTimeout, DefaultTimeout + 2*time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHandler(new(memory))
				h.Timeout, h.SpoolDir = DefaultTimeout, t.TempDir()
				c, r, done := pipe(t, h)
				fmt.Fprint(c, "MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\n")
				expect(t, r, "250 2.1.0 OK", "250 2.1.5 OK")
				fmt.Fprint(c, tt.before)
				if tt.before == "DATA\r\n" {
					expect(t, r, "354 OK")
				}
				start := time.Now()
				var sender sync.WaitGroup
				sender.Go(func() {
					for range tt.pieces {
						time.Sleep(time.Second)
						if _, err := fmt.Fprint(c, tt.piece); err != nil {
							return
						}
					}
					fmt.Fprint(c, ".\r\n")
				})
				expect(t, r, tt.want)
				if took := time.Since(start); took < tt.least || took > tt.most {
					t.Errorf("answered after %v; want %v to %v", took, tt.least, tt.most)
				}
				c.Close()
				<-done
				sender.Wait()
			})
		})
	}
}

// A line without an end ends the connection.
func TestEndlessLine(t *testing.T) {
	client, done := dial(t, newHandler(new(memory)), nil)
	go func() {
		chunk := []byte(strings.Repeat("x", 1<<20))
		for {
			if _, err := client.Write(chunk); err != nil {
				return
			}
		}
	}()
	r := bufio.NewReader(client)
	expect(t, r, "220 mx.test dovepost ready.", "500 5.5.2 Line too long")
	if err := <-done; err != errEndless {
		t.Errorf("ServeConn = %v; want %v", err, errEndless)
	}
}
