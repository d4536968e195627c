package dovecot

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestClientsThatNeverRead: who asks and does not read the answers is read no more
// himself, soon, and costs the others nothing.
func TestClientsThatNeverRead(t *testing.T) {
	g := newRig(t)
	for _, tt := range []struct{ kind, hello, ask string }{
		{"client", "VERSION\t1\t2\nCPID\t1\n", "AUTH\t1\tPLAIN\tservice=imap\tresp=!\n"},
		{"client", "VERSION\t1\t2\nCPID\t1\n", "CONT\t1\tAAAA\n"},
		{"login", "VERSION\t1\t4\nCPID\t2\n", "CANCEL\t7\n"},
		{"userdb", "VERSION\t1\t1\n", "USER\t1\tbob@example.com\tservice=lmtp\n"},
		{"userdb", "VERSION\t1\t1\n", "LIST\t1\n"},
	} {
		l := g.listen(t, tt.kind, 0o600)
		c, err := net.Dial("unix", l.path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		io.WriteString(c, tt.hello)
		many := []byte(strings.Repeat(tt.ask, 1000))
		total, deadline := 0, time.Now().Add(500*time.Millisecond)
		for err == nil && total < 64<<20 {
			var n int
			c.SetWriteDeadline(deadline)
			n, err = c.Write(many)
			total += n
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s, %.8q: %d octets were taken, %v; want that it stops", tt.kind, tt.ask, total, err)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
			t.Errorf("%s, %.8q: %d octets of memory", tt.kind, tt.ask, grown)
		}
		other, err := net.Dial("unix", l.path)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		other.SetDeadline(time.Now().Add(time.Minute))
		if _, err := bufio.NewReader(other).ReadString('\n'); err != nil {
			t.Errorf("%s, %.8q: another client: %v", tt.kind, tt.ask, err)
		}
	}
}
