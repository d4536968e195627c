package guard

import (
	"math/rand/v2"
	"time"

	"dovepost/auth"
)

const (
	// flushInterval is the grid on which refusals are told; what is finer than it
	// cannot be measured by whoever waits for one.
	flushInterval = 500 * time.Millisecond

	// finest is the grid, from the start of the attempt, where there is no delay.
	finest = 10 * time.Millisecond

	// shuffle spreads the refusals of one flush, in no order.
	shuffle = 50 * time.Millisecond

	// maxMTADelay is from AUTH to the answer: Postfix gives up after 10 s.
	maxMTADelay = 8 * time.Second
)

// forMTA reports whether it is an MTA that waits for the answer, and not for long.
func forMTA(r *auth.Request) bool { return r.MTA || r.Service == "smtp" }

// Delay makes refusals late: auth_failure_delay.
type Delay struct {
	Failure time.Duration // 0: no delay

	// start is the origin of the grid of flushes; tests set it.
	start time.Time
}

// NewDelay returns the delay of one daemon.
func NewDelay(failure time.Duration) *Delay {
	return &Delay{Failure: failure, start: time.Now()}
}

// until is how long it is to the telling of a refusal of an attempt that began at
// started, and that has to wait for more besides.
func (d *Delay) until(mta bool, started time.Time, more time.Duration) time.Duration {
	if d.Failure+more <= 0 {
		// Whether there is a row shows in some 20 µs, of which the database takes most.
		now := time.Now()
		return finest - now.Sub(started)%finest + rand.N(finest/4)
	}
	return time.Until(d.due(mta, time.Now().Add(more), started)) + rand.N(shuffle)
}

// due is the flush at which a refusal is told that was decided at now.
func (d *Delay) due(mta bool, now, started time.Time) time.Time {
	due := now.Add(d.Failure)
	if late := due.Sub(d.start) % flushInterval; late > 0 {
		due = due.Add(flushInterval - late)
	}
	if mta {
		if last := started.Add(maxMTADelay - shuffle); due.After(last) {
			due = last
		}
	}
	return due
}
