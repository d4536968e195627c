package daemon

import (
	"context"
	"fmt"
	"net"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// notify tells the service manager, if there is one. That it cannot be told is no
// reason to stop: the manager will act on its own time-outs.
func notify(state string) { sd.SdNotify(false, state) }

func notifyReloading() {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	notify(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
}

// startWatchdog sends WATCHDOG=1 at half the interval that the manager asks for.
func startWatchdog(ctx context.Context) (stop func()) {
	interval, err := sd.SdWatchdogEnabled(false)
	if err != nil || interval <= 0 {
		return func() {}
	}
	ctx, stop = context.WithCancel(ctx)
	go func() {
		tick := time.NewTicker(interval / 2)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				notify("WATCHDOG=1")
			case <-ctx.Done():
				return
			}
		}
	}()
	return stop
}

// nowhere stands for a listener that --check does not open.
type nowhere struct{}

func (nowhere) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (nowhere) Close() error              { return nil }
func (nowhere) Addr() net.Addr            { return nil }
