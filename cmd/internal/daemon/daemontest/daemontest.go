// Package daemontest runs a test binary as the daemon that it tests.
//
// The password in the files of such tests is s3cret: that a daemon logs it or says it is an error of the test.
// Tests with Postfix, Dovecot and a database run the built programs instead: see package stack.
package daemontest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	variable = "DOVEPOST_DAEMON_TEST" // set: the test binary is to be the daemon
	secret   = "s3cret"
)

// Main is for TestMain: it runs the tests, and main where Command wants the daemon.
func Main(m *testing.M, main func()) {
	if os.Getenv(variable) != "" {
		main()
	}
	os.Exit(m.Run())
}

// Command returns the daemon with arguments. It has a minute: then it is killed, so that its log ends and
// nobody waits for more.
func Command(t *testing.T, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), variable+"=1")
	return cmd
}

// Pass gives cmd sockets as systemd does, by FileDescriptorName=.
func Pass(cmd *exec.Cmd, sockets map[string]*os.File) {
	var names []string
	for name, file := range sockets {
		names, cmd.ExtraFiles = append(names, name), append(cmd.ExtraFiles, file)
	}
	// The variables are for the process with LISTEN_PID: the shell becomes the daemon.
	cmd.Path, cmd.Args = "/bin/sh", append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh"}, cmd.Args...)
	cmd.Env = append(cmd.Env, fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
}

// Exits expects that the daemon with arguments ends with code, and says some words.
func Exits(t *testing.T, code int, says string, args ...string) {
	t.Helper()
	out, err := Command(t, args...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != code || !strings.Contains(string(out), says) {
		t.Errorf("%v: %v, %s; want exit %d that says %q", args, err, out, code, says)
	}
	if strings.Contains(string(out), secret) {
		t.Errorf("%v: says the password: %s", args, out)
	}
}

// Daemon is a running daemon, and what it logs.
type Daemon struct {
	t   *testing.T
	cmd *exec.Cmd
	log *bufio.Scanner
}

// Start starts a Command, which ends with the test at the latest. When it is ready it logs msg=ready.
func Start(t *testing.T, cmd *exec.Cmd) *Daemon {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d := &Daemon{t, cmd, bufio.NewScanner(stderr)}
	t.Cleanup(d.Stop)
	return d
}

// WaitFor waits for a line of the log with some words, behind those that were waited for before.
func (d *Daemon) WaitFor(words string) {
	d.t.Helper()
	last := ""
	for d.logs() {
		if last = d.log.Text(); strings.Contains(last, words) {
			return
		}
	}
	d.t.Fatalf("the log ended without %q, but with %q", words, last)
}

// logs waits for the next line of the log.
func (d *Daemon) logs() bool {
	more := d.log.Scan()
	if strings.Contains(d.log.Text(), secret) {
		d.t.Errorf("the log says the password: %s", d.log.Text())
	}
	return more
}

// Signal sends sig.
func (d *Daemon) Signal(sig syscall.Signal) { d.cmd.Process.Signal(sig) }

// Wait waits for the end, which is to be a good one.
func (d *Daemon) Wait() {
	d.t.Helper()
	for d.logs() {
	}
	if err := d.cmd.Wait(); err != nil {
		d.t.Errorf("the daemon ended with %v", err)
	}
}

// Stop sends SIGTERM and waits for the end, unless it has been waited for.
func (d *Daemon) Stop() {
	d.t.Helper()
	if d.cmd.ProcessState == nil {
		d.Signal(syscall.SIGTERM)
		d.Wait()
	}
}

// WriteFile makes a file in a directory of its own, and returns its path.
func WriteFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
