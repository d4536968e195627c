package stack

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What is made here, and by the programs that are started, is for the users of Postfix, Dovecot and the daemons,
// too: the modes are those that are asked for, whatever the umask was.
func init() { syscall.Umask(0o022) }

// process is a running program that leads a session and process group of its own.
type process struct {
	name string
	pid  int
	log  string        // file with what it writes to stdout and stderr
	done chan struct{} // closed when the program and its whole group have ended
	err  error         // how it ended; valid once done is closed
}

// startProcess runs cmd as the leader of a new session, appending its
// output to the file log. When the leader ends, the rest of the group is killed.
func startProcess(name, log string, cmd *exec.Cmd) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	p := &process{name: name, pid: cmd.Process.Pid, log: log, done: make(chan struct{})}
	if err := guard("+", p.pid); err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return nil, fmt.Errorf("%s: watchdog: %w", name, err)
	}
	go func() {
		// The zombie keeps its number until Wait, so that the group cannot be somebody else's.
		for {
			err := unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		unix.Kill(-p.pid, unix.SIGKILL)
		guard("-", p.pid)
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// stop sends sig to the leader and waits; after grace it kills the group.
func (p *process) stop(sig syscall.Signal, grace time.Duration) error {
	if p == nil {
		return nil
	}
	p.signal(sig)
	select {
	case <-p.done:
		return nil
	case <-time.After(grace):
	}
	unix.Kill(-p.pid, unix.SIGKILL)
	<-p.done
	return fmt.Errorf("%s: still running %v after %v, killed", p.name, grace, sig)
}

// signal sends sig to the leader; os.ErrProcessDone if it has ended.
func (p *process) signal(sig syscall.Signal) error {
	select {
	case <-p.done:
		return os.ErrProcessDone
	default:
		if sig == syscall.SIGSTOP {
			return Freeze(p.pid)
		}
		return unix.Kill(p.pid, sig)
	}
}

// failure words what went wrong with p, with the end of its log.
func (p *process) failure(err error) error {
	select {
	case <-p.done:
		err = fmt.Errorf("%w (ended: %v)", err, p.err)
	default:
	}
	return fmt.Errorf("%s: %w\n%s", p.name, err, tail(p.log, 15))
}

// waitReady polls ready until it returns nil, p ends, or the time is over.
func (p *process) waitReady(limit time.Duration, ready func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return p.failure(fmt.Errorf("not ready after %v: %w", limit, err))
		}
		select {
		case <-p.done:
			return p.failure(err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// tail returns the last lines of a log file, indented, under its name.
func tail(path string, lines int) string {
	const most = 16 << 10
	f, err := os.Open(path)
	if err != nil {
		return fmt.Sprintf("\t(%v)", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > most {
		f.Seek(-most, io.SeekEnd)
	}
	text, _ := io.ReadAll(io.LimitReader(f, most))
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return "\t" + path + ":\n\t" + strings.Join(all, "\n\t")
}

// watchdog ends process groups when the process that holds its stdin has died.
// Death signals do not do: the kernel forgets them when a program changes its
// effective user, as Postfix's master does at once.
const watchdog = `
trap '' INT TERM HUP
groups=
while read -r what group; do
	case $what in
	+) groups="$groups $group" ;;
	-) rest=; for g in $groups; do [ "$g" = "$group" ] || rest="$rest $g"; done; groups=$rest ;;
	esac
done
[ -n "$groups" ] || exit 0
for g in $groups; do kill -s TERM -- "-$g"; done
sleep 3
for g in $groups; do kill -s KILL -- "-$g"; done
`

var guardian struct {
	mu    sync.Mutex // guards the rest
	stdin io.Writer
	err   error
}

// guard tells the watchdog that a process group was started (+) or has ended (-).
func guard(what string, group int) error {
	guardian.mu.Lock()
	defer guardian.mu.Unlock()
	if guardian.stdin == nil && guardian.err == nil {
		guardian.stdin, guardian.err = startWatchdog()
	}
	if guardian.err != nil {
		return guardian.err
	}
	_, err := fmt.Fprintln(guardian.stdin, what, group)
	return err
}

func startWatchdog() (io.Writer, error) {
	cmd := exec.Command("/bin/sh", "-c", watchdog, "dovepost-stack-watchdog")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go cmd.Wait()
	return stdin, nil
}

// program finds a program that Debian installs, also where PATH lacks sbin.
func program(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		path := filepath.Join(dir, name)
		if unix.Access(path, unix.X_OK) == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("program %s is not installed", name)
}
