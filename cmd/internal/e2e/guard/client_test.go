package guard

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
)

// conn is a connection of an auth client.
type conn struct {
	net.Conn
	r *bufio.Reader
}

var lastPID atomic.Int64

func dial(t testing.TB, path string) conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	fmt.Fprintf(c, "VERSION\t1\t2\nCPID\t%d\n", 100_000+lastPID.Add(1))
	k := conn{c, bufio.NewReader(c)}
	for {
		line, err := k.r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "DONE\n" {
			return k
		}
	}
}

// escape is the escaping of the protocol.
var escape = strings.NewReplacer("\x01", "\x011", "\t", "\x01t", "\n", "\x01n", "\r", "\x01r", "\x00", "\x010")

// ask sends AUTH; params are more parameters.
func (c conn) ask(id int, user, password, service, rip string, params ...string) {
	line := fmt.Sprintf("AUTH\t%d\tPLAIN\tservice=%s", id, service)
	if rip != "" {
		line += "\trip=" + rip
	}
	for _, p := range params {
		line += "\t" + escape.Replace(p)
	}
	io.WriteString(c, line+"\tresp="+base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+password))+"\n")
}

// answer reads one: ok, no, later.
func (c conn) answer() (string, error) {
	line, err := c.r.ReadString('\n')
	switch {
	case strings.HasPrefix(line, "OK\t"):
		return "ok", nil
	case strings.HasPrefix(line, "FAIL\t") && strings.Contains(line, "code=temp_fail"):
		return "later", nil
	case strings.HasPrefix(line, "FAIL\t"):
		return "no", nil
	case err == io.EOF:
		return "later", nil // Postfix's
	}
	return line, err
}

// try is one login on a connection of its own.
func try(t testing.TB, path, user, password, service, rip string, params ...string) (string, time.Duration) {
	c := dial(t, path)
	start := time.Now()
	c.ask(1, user, password, service, rip, params...)
	got, err := c.answer()
	if err != nil {
		t.Error(err)
	}
	c.Close()
	return got, time.Since(start)
}

// daemon starts an authd of its own over the database of ours, without a failure delay.
func daemon(t testing.TB, args ...string) (d *stack.Daemon, path string) {
	t.Helper()
	dir := t.TempDir()
	path = filepath.Join(dir, "auth-client")
	d, err := stack.StartDaemon(filepath.Join(bin, "authd"), dir, "client", path,
		append([]string{"--sql=" + filepath.Join(ours.Dir, "dovepost/authd/dovecot-sql.conf.ext"), "--auth_failure_delay=0s"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Stop() })
	return d, path
}
