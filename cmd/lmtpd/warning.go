package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"dovepost/lmtp"
	"dovepost/lmtp/quota"
	"dovepost/lookup/bounded"
)

const (
	warnWorkers = 4
	warnQueue   = 256
	warnTimeout = 30 * time.Second
	maxTemplate = 64 << 10
)

// warner executes quota warnings, beside the deliveries that have caused them: nobody waits
// for it, and what is too much for it is left out. The command of a warning is, as in Dovecot,
//
//	quota-warning 95 %u         a service of Dovecot's: a socket in base_dir, and its arguments
//	unix:/path/socket 95 %u     the same
//	exec:/path/program 95 %u    a program, as the owner of the mail
//	message:/path/file          a message for the user's INBOX
//
// in words, without a shell, in which %u, %n, %d and %h stand for the user, the two
// parts of his name, and his home.
type warner struct {
	log       *slog.Logger
	baseDir   string
	deliverer lmtp.Deliverer

	start  sync.Once
	mu     sync.Mutex // guards closed, and the queue against being closed while it is sent to
	closed bool
	queue  chan quota.Crossed
	busy   sync.WaitGroup
	ctx    context.Context
	cancel context.CancelFunc
}

// warn implements quota.Root.Warn.
func (w *warner) warn(c quota.Crossed) {
	w.start.Do(w.run)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	select {
	case w.queue <- c:
	default:
		w.log.Warn("quota warning left out: too many at a time", "user", c.Mailbox.User, "command", c.Warning.Command)
	}
}

func (w *warner) run() {
	w.queue = make(chan quota.Crossed, warnQueue)
	w.ctx, w.cancel = context.WithCancel(context.Background())
	for range warnWorkers {
		w.busy.Go(func() {
			for c := range w.queue {
				w.execute(&c)
			}
		})
	}
}

// close ends what has not ended after a while. A nil warner has nothing to end.
func (w *warner) close() error {
	if w == nil {
		return nil
	}
	w.start.Do(w.run)
	w.mu.Lock()
	w.closed = true
	close(w.queue)
	w.mu.Unlock()
	defer time.AfterFunc(5*time.Second, w.cancel).Stop()
	w.busy.Wait()
	return nil
}

func (w *warner) execute(c *quota.Crossed) {
	ctx, cancel := context.WithTimeout(w.ctx, warnTimeout)
	defer cancel()
	begun := time.Now()
	err := w.perform(ctx, c)
	level := slog.LevelInfo
	if err != nil {
		level = slog.LevelError
	}
	w.log.Log(ctx, level, "quota warning", "user", c.Mailbox.User, "used", c.Used, "limit", c.Limit,
		"command", c.Warning.Command, "took", time.Since(begun), "err", err)
}

// split cuts a command into its kind, its path and its arguments.
func (w *warner) split(command string) (kind, path string, args []string) {
	words := strings.Fields(command)
	kind, path, args = "unix", words[0], words[1:]
	if k, p, ok := strings.Cut(path, ":"); ok {
		kind, path = k, p
	}
	if kind == "unix" && !strings.HasPrefix(path, "/") {
		path = filepath.Join(w.baseDir, path)
	}
	return kind, path, args
}

// check looks at a command when the daemon starts.
func (w *warner) check(command string) error {
	kind, path, _ := w.split(command)
	switch {
	case kind == "unix":
		return nil // Dovecot may be started later
	case kind != "exec" && kind != "message":
		return fmt.Errorf("%q is none of unix, exec and message", kind)
	case !filepath.IsAbs(path):
		return fmt.Errorf("%q is not an absolute path", path)
	}
	_, err := os.Stat(path)
	return err
}

func (w *warner) perform(ctx context.Context, c *quota.Crossed) error {
	kind, path, args := w.split(c.Warning.Command)
	for i := range args {
		args[i] = expandUser(args[i], &c.Mailbox)
	}
	switch kind {
	case "exec":
		return execute(ctx, &c.Mailbox, path, args)
	case "message":
		return w.notify(ctx, c, path)
	}
	return callScript(ctx, path, args)
}

// expandUser replaces %u, %n, %d, %h and %%.
func expandUser(s string, mb *lmtp.Mailbox) string {
	local, domain, _ := strings.Cut(mb.User, "@")
	return strings.NewReplacer("%%", "%", "%u", mb.User, "%n", local, "%d", domain, "%h", mb.Home).Replace(s)
}

// execute runs a program as the owner of the mail, with none of the daemon's capabilities.
func execute(ctx context.Context, mb *lmtp.Mailbox, path string, args []string) error {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.WaitDelay = "/", time.Second
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "USER=" + mb.User, "HOME=" + mb.Home}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if mb.UID >= 0 && (mb.UID != os.Geteuid() || mb.GID != os.Getegid()) {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(mb.UID), Gid: uint32(mb.GID)}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &limited{w: &out}, &limited{w: &out}
	ended := make(chan error)
	go func() {
		// The thread ends with the goroutine: it has lost what a program would inherit.
		runtime.LockOSThread()
		_ = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
		ended <- cmd.Run()
	}()
	if err := <-ended; err != nil {
		return fmt.Errorf("%s: %w: %q", path, err, out.String())
	}
	return nil
}

// limited keeps the first kilobyte.
type limited struct {
	w *bytes.Buffer
}

func (l *limited) Write(p []byte) (int, error) {
	l.w.Write(p[:min(len(p), max(0, 1024-l.w.Len()))])
	return len(p), nil
}

// callScript asks a service that Dovecot's script(1) serves to run its program. It does not answer.
func callScript(ctx context.Context, socket string, args []string) error {
	dialer := net.Dialer{Timeout: time.Second}
	c, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	text := "VERSION\tscript\t4\t0\nnoreply\n"
	for _, arg := range args {
		text += scriptEscape.Replace(arg) + "\n"
	}
	_, err = io.WriteString(c, text+"\n")
	return err
}

var scriptEscape = strings.NewReplacer("\x01", "\x011", "\t", "\x01t", "\r", "\x01r", "\n", "\x01n", "\x00", "\x010")

// notify puts the message of a file into the user's INBOX.
func (w *warner) notify(ctx context.Context, c *quota.Crossed, path string) error {
	text, err := bounded.ReadFile(path, maxTemplate)
	if err != nil {
		return err
	}
	mb := c.Mailbox
	mb.Detail = ""
	msg := expandUser(strings.ReplaceAll(string(text), "\r\n", "\n"), &mb)
	now := time.Now()
	host, _ := os.Hostname()
	msg = "Return-Path: <>\nDelivered-To: " + mb.User + "\nDate: " + now.Format(time.RFC1123Z) +
		fmt.Sprintf("\nMessage-ID: <quota.%d.%d@%s>\nAuto-Submitted: auto-generated\n", now.UnixNano(), os.Getpid(), host) + msg
	return w.deliverer.Deliver(ctx, &lmtp.Envelope{}, []*lmtp.Mailbox{&mb}, lmtp.Text(msg))[0]
}
