package daemon

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// headroom is how much garbage there may be, in octets, before it is collected.
// The runtime's own rule, as much as there is in use, collects all the time while
// little is in use and wastes much when the cache is full.
const headroom = 16 << 20

// CollectGarbage keeps to headroom until stop is closed, unless the environment has a rule.
func CollectGarbage(stop <-chan struct{}) {
	if os.Getenv("GOGC") != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	percent := 0
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		metrics.Read(live)
		inUse := max(live[0].Value.Uint64(), 1)
		if p := int(min(max(headroom*100/inUse, 25), 400)); p < percent*9/10 || p > percent*11/10 {
			percent = p
			debug.SetGCPercent(p)
		}
		select {
		case <-tick.C:
		case <-stop:
			return
		}
	}
}
