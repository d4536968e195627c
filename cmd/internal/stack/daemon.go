package stack

import (
	"os"
	"path/filepath"
	"syscall"
)

// Daemon is one daemon alone, run as systemd would: its socket outlives it, and it
// is started again when it ends.
type Daemon struct{ unit *unit }

// StartDaemon starts the program bin with a socket of the given kind at path, which
// everybody may use, and waits until it is ready. It runs as root; its log is in
// dir. The caller must Stop it.
func StartDaemon(bin, dir, kind, path string, args ...string) (*Daemon, error) {
	name := filepath.Base(bin)
	u := &unit{name: name, argv: append([]string{bin}, args...), dir: dir, slack: timerSlack[name]}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := startUnit(u, []socket{{kind: kind, path: path, mode: 0o666}}); err != nil {
		return nil, err
	}
	return &Daemon{u}, nil
}

// Starts returns how often the daemon was started: more than once if it has died.
func (d *Daemon) Starts() int {
	d.unit.mu.Lock()
	defer d.unit.mu.Unlock()
	return d.unit.starts
}

// PID returns the number of the daemon's process.
func (d *Daemon) PID() int { return d.unit.current().pid }

// Log returns the path of what the daemon has written to stderr.
func (d *Daemon) Log() string { return d.unit.logPath() }

// Signal sends sig to the daemon.
func (d *Daemon) Signal(sig syscall.Signal) error { return d.unit.current().signal(sig) }

// Restart ends the daemon with SIGTERM and waits for its successor.
func (d *Daemon) Restart() error { return d.unit.restart() }

// Kill ends the daemon with SIGKILL, for good, and removes its socket.
func (d *Daemon) Kill() error { return d.unit.stopBy(syscall.SIGKILL) }

// Stop ends the daemon and removes its socket.
func (d *Daemon) Stop() error { return d.unit.stop() }
