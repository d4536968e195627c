package stack

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// freezing bounds how long a process may take to stop: a thread that waits for the disk does so first.
const freezing = time.Minute

// Freeze stops a process with SIGSTOP, between two instructions of each of its threads, and returns
// when the last one has stopped and its system call has come back: the signal takes its time with each, and until then
// a server answers. SIGCONT lets it go on. It is an error if the process has ended.
func Freeze(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	for deadline := time.Now().Add(freezing); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if stopped(pid) {
			return nil
		}
	}
	return fmt.Errorf("process %d does not stop", pid)
}

// stopped reports whether all threads of a process are in state T. proc_pid_stat(5).
func stopped(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		return false
	}
	for _, thread := range threads {
		text, err := os.ReadFile(thread)
		if err != nil {
			return false
		}
		if _, state, _ := bytes.Cut(text[bytes.LastIndexByte(text, ')')+1:], []byte(" ")); len(state) == 0 || state[0] != 'T' {
			return false
		}
	}
	return true
}
