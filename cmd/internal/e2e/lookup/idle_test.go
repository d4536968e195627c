package lookup

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// idle is how many connections do nothing.
	idle = 9900
	// room is the memory that lookupd may need for them, in MB.
	room = 130
)

// TestIdle: connections that wait need little memory, also once each has had a question to the
// database, or one that it did not answer, which take deep stacks.
func TestIdle(t *testing.T) {
	var limit syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	limit.Cur = limit.Max
	must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
	if limit.Max < idle+1000 {
		t.Fatalf("a process may only have %d files", limit.Max)
	}
	dir := newDir(t, "idle")
	cf := filepath.Join(dir, "away.cf")
	must(t, os.WriteFile(cf, []byte("hosts = 127.0.0.1:1\nuser = u\npassword = p\ndbname = d\nquery = SELECT 1 FROM t WHERE k = '%s'\n"), 0o600))
	must(t, db.Exec("DROP USER IF EXISTS idle@127.0.0.1; CREATE USER idle@127.0.0.1 IDENTIFIED BY 'secret2'"))
	there := filepath.Join(dir, "there.cf")
	must(t, os.WriteFile(there, []byte("hosts = "+db.Addr()+"\nuser = idle\npassword = secret2\ndbname = information_schema\nquery = SELECT 'x' FROM (SELECT 1) AS t WHERE '%s' <> ''\n"), 0o600))
	path, tcp := filepath.Join(dir, "socket"), filepath.Join(dir, "tcp")
	d := start(t, dir, path, "--map=away=address:"+cf, "--map=there=exact:"+there, "--listen=tcp_table=away:unix:"+tcp)
	resident := func() int {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.PID()))
		must(t, err)
		_, after, _ := strings.Cut(string(text), "VmRSS:")
		kB, err := strconv.Atoi(strings.Fields(after)[0])
		must(t, err)
		return kB >> 10
	}
	before := resident()
	conns := make([]net.Conn, idle)
	var g errgroup.Group
	g.SetLimit(64)
	for i := range conns {
		g.Go(func() error {
			path, request, answer := path, "14:away a@b.c.d.e,", ":TEMP "
			switch i % 3 {
			case 1:
				path, request, answer = tcp, "get a@b.c.d.e\n", "400 "
			case 2:
				request, answer = fmt.Sprintf("11:there %05d,", i), ":OK x"
			}
			c, err := net.Dial("unix", path)
			if err != nil {
				return err
			}
			conns[i] = c
			c.SetDeadline(time.Now().Add(2 * time.Minute))
			if _, err := c.Write([]byte(request)); err != nil {
				return err
			}
			reply := make([]byte, 100)
			n, err := bufio.NewReader(c).Read(reply)
			if err == nil && !strings.Contains(string(reply[:n]), answer) {
				err = fmt.Errorf("got %q", reply[:n])
			}
			return err
		})
	}
	must(t, g.Wait())
	asked, got := resident(), 0
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if got = resident(); got < room {
			break
		}
	}
	t.Logf("%d MB; with %d connections that have asked %d MB, and soon %d MB", before, idle, asked, got)
	if got >= room {
		t.Errorf("%d MB with %d idle connections, want less than %d", got, idle, room)
	}
	for _, c := range conns {
		c.Close()
	}
}
