package stack

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Whoever started a process may die as suddenly as it likes: the watchdog ends
// the process and its children.
func TestWatchdog(t *testing.T) {
	if os.Getenv("DOVEPOST_WATCHDOG_TEST") != "" {
		cmd := exec.Command("/bin/sh", "-c", "sleep 1000 & echo $! $$ > pids.tmp; mv pids.tmp pids; wait")
		cmd.Dir = os.Getenv("DOVEPOST_WATCHDOG_TEST")
		if _, err := startProcess("sleeper", filepath.Join(cmd.Dir, "log"), cmd); err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("started\n")
		select {}
	}
	dir := t.TempDir()
	owner := exec.Command(os.Args[0], "-test.run=^TestWatchdog$")
	owner.Env = append(os.Environ(), "DOVEPOST_WATCHDOG_TEST="+dir)
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "started\n" {
		t.Fatalf("owner says %q, %v", line, err)
	}
	var pids []string
	waitFor(t, "the process to start", func() bool {
		text, err := os.ReadFile(filepath.Join(dir, "pids"))
		pids = strings.Fields(string(text))
		return err == nil
	})
	owner.Process.Kill()
	owner.Wait()
	for _, field := range pids {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		waitFor(t, "process "+field+" to end", func() bool {
			// A zombie that nobody reaps here has ended too.
			stat, err := os.ReadFile("/proc/" + field + "/stat")
			return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) || err != nil || strings.Contains(string(stat), ") Z ")
		})
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

func TestParseStat(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		parent     int
		cpu        time.Duration
		ok         bool
	}{
		{"it handles a plain line", "7 (sh) S 3 7 7 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 5", 3, time.Second, true},
		{"it handles a name with blanks and parentheses", "7 (a) b (c) S 3 7 7 0 -1 4194560 1 2 3 4 1 0 0 0 20 0", 3, 10 * time.Millisecond, true},
		{"it handles a short line", "7 (sh) S 3", 0, 0, false},
	} {
		got, err := parseStat([]byte(tt.line))
		if (err == nil) != tt.ok {
			t.Errorf("%s: error %v", tt.name, err)
			continue
		}
		if tt.ok && (got.parent != tt.parent || got.cpu != tt.cpu) {
			t.Errorf("%s: parent %d, cpu %v; want %d, %v", tt.name, got.parent, got.cpu, tt.parent, tt.cpu)
		}
	}
}
