package stack

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socket is what a .socket unit says: a unix socket that outlives the daemon.
type socket struct {
	kind         string // FileDescriptorName=
	path         string
	mode         os.FileMode
	owner, group string // names; empty: root
}

// unit runs one daemon as systemd would: it holds the sockets, passes them on,
// waits for READY=1, and starts the daemon anew when it ends by itself.
type unit struct {
	name     string
	argv     []string
	uid, gid uint32
	dir      string        // for the log, the notify socket and the state directory
	slack    time.Duration // TimerSlackNSec=; 0: the kernel's own

	kinds  []string
	files  []*os.File // the listening sockets, in the order of kinds
	paths  []string
	notify *net.UnixConn
	ready  chan struct{} // gets one value for each READY=1

	mu       sync.Mutex // guards the fields below
	proc     *process
	stopping bool
	starts   int
	gaveUp   error

	finished chan struct{} // closed when the supervisor has ended
}

// Limits of a daemon that cannot stay up.
const (
	restartPause = 100 * time.Millisecond
	maxStarts    = 1000
)

// startUnit opens the sockets, starts the daemon and waits until it is ready.
func startUnit(u *unit, sockets []socket) error {
	u.ready = make(chan struct{}, 1)
	u.finished = make(chan struct{})
	err := u.open(sockets)
	if err == nil {
		err = u.run()
	}
	if err != nil {
		u.close()
		return fmt.Errorf("%s: %w", u.name, err)
	}
	go u.supervise()
	select {
	case <-u.ready:
		return nil
	case <-u.finished:
		err = fmt.Errorf("%s: ended before it was ready: %w\n%s", u.name, u.gaveUp, tail(u.logPath(), 15))
	case <-time.After(30 * time.Second):
		err = fmt.Errorf("%s: not ready after 30s\n%s", u.name, tail(u.logPath(), 15))
	}
	u.stop()
	return err
}

func (u *unit) logPath() string { return filepath.Join(u.dir, u.name+".log") }

// open makes the listening sockets and the one for notifications.
func (u *unit) open(sockets []socket) error {
	for _, k := range sockets {
		f, err := k.listen()
		if err != nil {
			return err
		}
		u.kinds = append(u.kinds, k.kind)
		u.files = append(u.files, f)
		u.paths = append(u.paths, k.path)
	}
	path := filepath.Join(u.dir, u.name+".notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	u.notify = conn
	if err := os.Chmod(path, 0o666); err != nil {
		return err
	}
	go u.hear(conn)
	return nil
}

// listen opens the socket with its mode and owner.
func (k socket) listen() (*os.File, error) {
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: k.path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	ln.SetUnlinkOnClose(false)
	uid, gid := 0, 0
	if k.owner != "" {
		if uid, err = userID(k.owner); err != nil {
			return nil, err
		}
	}
	if k.group != "" {
		if gid, err = groupID(k.group); err != nil {
			return nil, err
		}
	}
	if err := os.Chown(k.path, uid, gid); err != nil {
		return nil, err
	}
	if err := os.Chmod(k.path, k.mode); err != nil {
		return nil, err
	}
	return ln.File()
}

// hear reads sd_notify(3) messages until the socket is closed.
func (u *unit) hear(conn *net.UnixConn) {
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		for line := range strings.Lines(string(buf[:n])) {
			if strings.TrimSpace(line) == "READY=1" {
				select {
				case u.ready <- struct{}{}:
				default:
				}
			}
		}
	}
}

var errStopping = errors.New("stopping")

// run starts the daemon, unless it is being stopped. The shell is there because LISTEN_PID must be the
// daemon's own number, which only the daemon's process can know.
func (u *unit) run() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.stopping {
		return errStopping
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", `export LISTEN_PID=$$; exec "$@"`, "sh"}, u.argv...)...)
	cmd.Dir = "/"
	cmd.Env = []string{
		"PATH=/usr/bin:/bin",
		"LISTEN_FDS=" + strconv.Itoa(len(u.files)),
		"LISTEN_FDNAMES=" + strings.Join(u.kinds, ":"),
		"NOTIFY_SOCKET=" + u.notify.LocalAddr().String(),
		"STATE_DIRECTORY=" + filepath.Join(u.dir, u.name),
	}
	cmd.ExtraFiles = u.files
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.uid, Gid: u.gid}}
	u.starts++
	var proc *process
	err := withTimerSlack(u.slack, func() (err error) {
		proc, err = startProcess(u.name, u.logPath(), cmd)
		return err
	})
	if err == nil {
		u.proc = proc
	}
	return err
}

// withTimerSlack runs f, which starts a process: that inherits the slack of its parent's thread.
func withTimerSlack(slack time.Duration, f func() error) error {
	if slack > 0 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0); err != nil {
			return fmt.Errorf("timer slack: %w", err)
		}
		defer unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // 0: back to the default
	}
	return f()
}

// supervise starts the daemon again whenever it ends.
func (u *unit) supervise() {
	defer close(u.finished)
	for {
		proc := u.current()
		<-proc.done
		u.mu.Lock()
		stopping, starts := u.stopping, u.starts
		u.mu.Unlock()
		if stopping {
			return
		}
		err := proc.err
		if exit := exitCode(err); exit == 64 || exit == 78 || starts >= maxStarts {
			u.gaveUp = fmt.Errorf("start %d: %v", starts, err)
			return
		}
		time.Sleep(restartPause)
		if err := u.run(); err != nil {
			u.gaveUp = err
			return
		}
	}
}

// exitCode returns the code of a process that exited by itself, else -1.
func exitCode(err error) int {
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode()
	}
	return -1
}

func (u *unit) current() *process {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.proc
}

// kill sends SIGKILL to the daemon, and waits for its end; the supervisor brings it back.
func (u *unit) kill() { <-u.end(syscall.SIGKILL).done }

// restart ends the daemon with SIGTERM and waits for its successor.
func (u *unit) restart() error {
	u.end(syscall.SIGTERM)
	return u.waitReady()
}

// end sends sig, and forgets a READY=1 from before.
func (u *unit) end(sig syscall.Signal) *process {
	select {
	case <-u.ready:
	default:
	}
	proc := u.current()
	proc.signal(sig)
	return proc
}

// waitReady waits for the next READY=1.
func (u *unit) waitReady() error {
	select {
	case <-u.ready:
		return nil
	case <-u.finished:
		return fmt.Errorf("%s: gave up: %w\n%s", u.name, u.gaveUp, tail(u.logPath(), 15))
	case <-time.After(60 * time.Second):
		return fmt.Errorf("%s: not ready again after 60s\n%s", u.name, tail(u.logPath(), 15))
	}
}

// stop ends the daemon with SIGTERM and closes the sockets.
func (u *unit) stop() error { return u.stopBy(syscall.SIGTERM) }

// stopBy is stop with another signal.
func (u *unit) stopBy(sig syscall.Signal) error {
	if u == nil {
		return nil
	}
	u.mu.Lock()
	already := u.stopping
	u.stopping = true
	u.mu.Unlock()
	if already {
		return nil
	}
	err := u.current().stop(sig, 40*time.Second)
	<-u.finished
	u.close()
	return err
}

func (u *unit) close() {
	for i, f := range u.files {
		f.Close()
		os.Remove(u.paths[i])
	}
	if u.notify != nil {
		u.notify.Close()
		os.Remove(u.notify.LocalAddr().String())
	}
}
