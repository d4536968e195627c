package session

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// drainable is a connection as a draining accept loop has them.
type drainable struct {
	net.Conn
	mu       sync.Mutex
	draining bool
	waits    bool      // as SetIdle was told
	deadline time.Time // the handler's own
	idle     chan bool
}

func (d *drainable) SetIdle(idle bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waits = idle
	if d.draining {
		return d.drained()
	}
	select {
	case d.idle <- idle:
	default:
	}
	return nil
}

// drained wakes who waits, or puts the handler's deadline back.
func (d *drainable) drained() error {
	if d.waits {
		d.Conn.SetReadDeadline(time.Unix(1, 0))
		return errors.New("draining")
	}
	return d.Conn.SetReadDeadline(d.deadline)
}

func (d *drainable) SetReadDeadline(t time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.deadline = t
	if d.draining && d.waits {
		return nil
	}
	return d.Conn.SetReadDeadline(t)
}

func (d *drainable) drain(wake bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.draining = true
	if wake {
		d.drained()
	}
}

// dialDrainable serves one connection with h, as dial does, inside a bubble of synctest.
func dialDrainable(t *testing.T, h *Handler) (net.Conn, *bufio.Reader, *drainable, <-chan error) {
	client, server := net.Pipe()
	t.Cleanup(func() { client.Close() })
	d := &drainable{Conn: server, idle: make(chan bool, 100)}
	done := make(chan error, 1)
	go func() {
		defer server.Close()
		done <- h.ServeConn(context.Background(), d)
	}()
	return client, bufio.NewReader(client), d, done
}

// A connection that waits is told 421 when nothing has come for a while, and not before:
// the client may have chosen it for its next message already.
func TestDrainWhileIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, r, d, done := dialDrainable(t, newHandler(new(memory)))
		expect(t, r, "220 mx.test dovepost ready.")
		fmt.Fprint(client, "NOOP\r\n")
		expect(t, r, "250 2.0.0 OK")
		for range 3 { // idle, busy with NOOP, idle
			<-d.idle
		}
		start := time.Now()
		d.drain(true)
		time.Sleep(linger - time.Second)
		fmt.Fprint(client, "NOOP\r\n")
		expect(t, r, "250 2.0.0 OK", "421 4.3.2 mx.test Shutting down")
		if took := time.Since(start); took != linger {
			t.Errorf("the end came after %v; want %v", took, linger)
		}
		if err := <-done; err != nil {
			t.Errorf("ServeConn = %v; want nil", err)
		}
	})
}

// What a client can send on a drained connection that it has kept.
func TestDrainServes(t *testing.T) {
	const bye = "421 4.3.2 mx.test Shutting down"
	tests := []struct {
		name string
		send []string // one by one, each after the answer to the one before
		want []string
	}{
		{"one more message", []string{"MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nDATA\r\n", "x\r\n.\r\n"},
			[]string{"250 2.1.0 OK", "250 2.1.5 OK", "354 OK", "250 2.0.0 <u1@example.test> ID Saved", bye}},
		{"one more message, command by command", []string{"MAIL FROM:<>\r\n", "RCPT TO:<u1@example.test>\r\n", "DATA\r\n", "x\r\n.\r\n"},
			[]string{"250 2.1.0 OK", "250 2.1.5 OK", "354 OK", "250 2.0.0 <u1@example.test> ID Saved", bye}},
		{"a client that keeps it for later", []string{"RSET\r\n"}, []string{bye}},
		{"a client that leaves", []string{"QUIT\r\n"}, []string{"221 2.0.0 Bye"}},
		{"a client that stops half way", []string{"MAIL FROM:<>\r\n"}, []string{"250 2.1.0 OK", bye}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, r, d, done := dialDrainable(t, newHandler(new(memory)))
				expect(t, r, "220 mx.test dovepost ready.")
				<-d.idle
				d.drain(true)
				rest := tt.want
				for _, send := range tt.send {
					time.Sleep(linger / 2)
					fmt.Fprint(client, send)
					n := min(strings.Count(send, "\r\n"), len(rest))
					if strings.HasSuffix(send, ".\r\n") {
						n = 1
					}
					expect(t, r, rest[:n]...)
					rest = rest[n:]
				}
				expect(t, r, rest...)
				if _, err := r.ReadByte(); err != io.EOF {
					t.Errorf("then %v; want the end", err)
				}
				if err := <-done; err != nil {
					t.Errorf("ServeConn = %v; want nil", err)
				}
			})
		})
	}
}

func TestDrainFinishesMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(memory)
		client, r, d, done := dialDrainable(t, newHandler(m))
		expect(t, r, "220 mx.test dovepost ready.")
		fmt.Fprint(client, "MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nDATA\r\n")
		expect(t, r, "250 2.1.0 OK", "250 2.1.5 OK", "354 OK")
		d.drain(false)
		fmt.Fprint(client, "text\r\n.\r\n")
		expect(t, r, "250 2.0.0 <u1@example.test> ID Saved", "421 4.3.2 mx.test Shutting down")
		if err := <-done; err != nil {
			t.Errorf("ServeConn = %v; want nil", err)
		}
		if _, ok := m.next(); !ok {
			t.Error("message not delivered")
		}
	})
}

func TestDrainFinishesChunks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(memory)
		client, r, d, done := dialDrainable(t, newHandler(m))
		expect(t, r, "220 mx.test dovepost ready.")
		fmt.Fprint(client, "MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nBDAT 1\r\nx")
		expect(t, r, "250 2.1.0 OK", "250 2.1.5 OK", "250 2.0.0 Added 1 octets")
		d.drain(false)
		fmt.Fprint(client, "BDAT 1 LAST\r\nx")
		expect(t, r, "250 2.0.0 <u1@example.test> ID Saved", "421 4.3.2 mx.test Shutting down")
		if err := <-done; err != nil {
			t.Errorf("ServeConn = %v; want nil", err)
		}
	})
}
