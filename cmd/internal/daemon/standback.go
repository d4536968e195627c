package daemon

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// StandBack has all threads scheduled in batches, sched(7): when they wake they do not push aside who has the
// processor. Who has asked them something is about to wait for the answer, so that spares a switch, and a
// delivery, which wakes ten times, lets those come first who read their mail.
// What the administrator has chosen (CPUSchedulingPolicy=) stays, and where it is forbidden all is as it was.
func StandBack() {
	threads, _ := os.ReadDir("/proc/self/task")
	for _, thread := range threads { // those that are made later take after them
		id, _ := strconv.Atoi(thread.Name())
		if attr, err := unix.SchedGetAttr(id, 0); err == nil && attr.Policy == unix.SCHED_NORMAL {
			attr.Policy = unix.SCHED_BATCH
			_ = unix.SchedSetAttr(id, attr, 0)
		}
	}
}
