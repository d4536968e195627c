// Package auth attacks authd beside Dovecot's own auth service, over one MariaDB:
// what one says the other has to say, too.
package auth

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
)

var (
	db  *stack.MariaDB // the server that the tests share
	bin string         // the built daemons
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "auth")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755)
	bin = dir + "/bin"
	if err := stack.Build(bin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if db, err = stack.StartMariaDB(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer db.Stop()
	if err := db.Exec(schema); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// dialUnix connects, and waits for room in the queue of the socket as Dovecot and Postfix do.
func dialUnix(path string) (net.Conn, error) {
	for {
		c, err := net.Dial("unix", path)
		if !errors.Is(err, syscall.EAGAIN) {
			return c, err
		}
		time.Sleep(time.Millisecond)
	}
}
