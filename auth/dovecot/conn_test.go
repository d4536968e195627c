package dovecot

import (
	"errors"
	"net"
	"testing"
	"time"
)

// TestWriteAfterFailure: behind half a line nothing may follow, and a peer that
// does not read makes one writer wait, not all of them in turn.
func TestWriteAfterFailure(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	c := newConn(near)
	go far.Read(make([]byte, 3)) // half of the line, then no more
	first := c.writeWithin([]byte("OK\t1\n"), 50*time.Millisecond)
	if first == nil {
		t.Fatal("a line that nobody reads was written")
	}
	go far.Read(make([]byte, 100))
	start := time.Now()
	if err := c.write([]byte("OK\t2\n")); !errors.Is(err, first) {
		t.Errorf("the next line: %v, want %v", err, first)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("the next writer waited for %v", took)
	}
}
