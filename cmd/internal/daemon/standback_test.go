package daemon

import (
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// All threads stand back, and keep the rest of what the administrator has chosen.
func TestStandBack(t *testing.T) {
	before, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	StandBack()
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			t.Fatal(err)
		}
		got, err := unix.SchedGetAttr(id, 0)
		if err == unix.ESRCH {
			continue // it has ended
		}
		if err != nil || got.Policy != unix.SCHED_BATCH || got.Nice != before.Nice {
			t.Errorf("thread %d: %+v, %v; want SCHED_BATCH and nice %d", id, got, err, before.Nice)
		}
	}
}
