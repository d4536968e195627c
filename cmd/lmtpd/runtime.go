package main

import (
	"os"
	"runtime"
	"strconv"

	"dovepost/cmd/internal/daemon"

	"golang.org/x/sys/unix"
)

// deliveriesPerCore is how many deliveries may wait inside a system call, for each core, before
// the runtime has to find out that they do.
const deliveriesPerCore = 8

// tune fits Go's runtime to deliveries, which are mostly fsync(2). Each holds one of GOMAXPROCS
// places while it waits, until the runtime's monitor takes it away after 20 µs or more; with as many
// places as cores the others wait for the monitor, which takes a tenth of all processor time.
// What the environment says is left as it is.
func tune(stop <-chan struct{}) {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(deliveriesPerCore * runtime.GOMAXPROCS(0))
	}
	standBack()
	go daemon.CollectGarbage(stop)
}

// standBack has all threads scheduled in batches, sched(7): they do not push others aside when they wake, which
// they do ten times for a message. So a delivery takes fewer switches, and those who read their mail come first.
// What the administrator has chosen (CPUSchedulingPolicy=) stays, and where it is forbidden all is as it was.
func standBack() {
	threads, _ := os.ReadDir("/proc/self/task")
	for _, thread := range threads { // those that are made later take after them
		id, _ := strconv.Atoi(thread.Name())
		if attr, err := unix.SchedGetAttr(id, 0); err == nil && attr.Policy == unix.SCHED_NORMAL {
			attr.Policy = unix.SCHED_BATCH
			_ = unix.SchedSetAttr(id, attr, 0)
		}
	}
}
