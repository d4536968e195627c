package stack

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// sink is the foreign server, the one of domain remote.example: Postfix's own
// smtp-sink, which writes each message to a file.
type sink struct {
	dir  string
	port *port
	proc *process
}

func startSink(dir string) (*sink, error) {
	k := &sink{dir: filepath.Join(dir, "remote.example")}
	if err := os.MkdirAll(filepath.Join(k.dir, "mail"), 0o755); err != nil {
		return nil, err
	}
	owner, err := userID("nobody")
	if err != nil {
		return nil, err
	}
	if err := os.Chown(filepath.Join(k.dir, "mail"), owner, -1); err != nil {
		return nil, err
	}
	path, err := program("smtp-sink")
	if err != nil {
		return nil, err
	}
	if k.port, err = claimPort(); err != nil {
		return nil, err
	}
	cmd := exec.Command(path, "-u", "nobody", "-h", "mx.remote.example", "-d", filepath.Join(k.dir, "mail", "%H%M%S."), k.port.addr(), "100")
	cmd.Dir = k.dir
	if k.proc, err = startProcess("smtp-sink", filepath.Join(k.dir, "smtp-sink.log"), cmd); err != nil {
		k.port.release()
		return nil, err
	}
	return k, k.proc.waitReady(10*time.Second, func() error {
		c, err := net.Dial("tcp", k.port.addr())
		if err == nil {
			c.Close()
		}
		return err
	})
}

func (k *sink) stop() error {
	if k == nil {
		return nil
	}
	defer k.port.release()
	return k.proc.stop(syscall.SIGTERM, 5*time.Second)
}

// messages returns what the foreign server has got: each with the lines
// X-Mail-Args and X-Rcpt-Args that smtp-sink puts before the header.
func (k *sink) messages() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(k.dir, "mail", "*"))
	if err != nil {
		return nil, err
	}
	var all []string
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		all = append(all, strings.ReplaceAll(string(text), "\r\n", "\n"))
	}
	return all, nil
}
