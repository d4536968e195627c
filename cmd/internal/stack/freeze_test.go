package stack

import (
	"os/exec"
	"syscall"
	"testing"
)

func TestFreeze(t *testing.T) {
	cmd := exec.Command("sh", "-c", "while :; do :; done")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	if stopped(pid) {
		t.Error("it is stopped before it is frozen")
	}
	if err := Freeze(pid); err != nil || !stopped(pid) {
		t.Errorf("%v; stopped: %v", err, stopped(pid))
	}
	cmd.Process.Signal(syscall.SIGCONT)
	cmd.Process.Kill()
	cmd.Wait()
	if err := Freeze(pid); err == nil {
		t.Error("a process that has ended is frozen")
	}
}
