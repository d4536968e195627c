package daemon

import (
	"os"
	"runtime"
)

// FewProcessors leaves most processors to those who ask: a quarter of them is kept, one at
// least, unless the environment has a rule. An answer from memory takes a few
// microseconds; with more processors than work for them, threads that are woken and put to
// sleep again take twice that, here and in the clients.
func FewProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/4))
	}
}
