package main

import (
	"os"
	"runtime"

	"dovepost/cmd/internal/daemon"
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
	daemon.StandBack()
	go daemon.CollectGarbage(stop)
}
