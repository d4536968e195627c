package guard

import "time"

// The figures of Dovecot's auth-penalty.h and anvil's penalty.c.
const (
	penaltyFirst = 2 * time.Second
	penaltyMost  = 15 * time.Second
	maxPenalty   = 4
	penaltySums  = 10

	// sumsKept is for how long a wrong password that is tried again counts as the
	// same mistake. Anvil forgets 29 s after the last try, which is too short for
	// the telephone that asks every 15 minutes with last year's password.
	sumsKept = time.Hour
)

// penalty is how one network has failed of late, as anvil counts it. A failure
// raises the level, up to four; the level says how long the next attempt waits.
type penalty struct {
	level   int
	last    time.Time // of the failure that counted
	updated time.Time
	sums    [penaltySums]uint32 // of users with their wrong passwords, the latest first; 0: none
}

// penaltyWait is auth_penalty_to_secs: 4, 8, 15 s for the levels one, two, and more.
func penaltyWait(level int) time.Duration {
	if level <= 0 {
		return 0
	}
	return min(penaltyFirst<<min(level, maxPenalty), penaltyMost)
}

// at is the level at now. Anvil lets it fall by one where 15 s have gone by since
// the last failure, by one more where 15 s have, by one more where 8 s have, and
// so on: all are measured from the same moment, so after 15 s nothing is left.
func (p *penalty) at(now time.Time) int {
	if now.Sub(p.last) >= penaltyWait(maxPenalty) {
		return 0
	}
	return p.level
}

// fail counts a failure of an attempt that found the level seen when it began. The
// same user with the same password (sum) again does not count, and sum 0 always does.
func (p *penalty) fail(now time.Time, seen int, sum uint32) (again bool) {
	if now.Sub(p.updated) >= sumsKept {
		p.sums = [penaltySums]uint32{}
	}
	p.updated = now
	seen = max(seen, p.at(now)) // others may have failed meanwhile
	at := -1
	for i, s := range p.sums {
		if sum != 0 && s == sum {
			at = i
			break
		}
	}
	if again = at >= 0; again {
		p.level = min(seen+1, maxPenalty) - 1
	} else {
		at = penaltySums - 1
		p.level, p.last = min(seen+1, maxPenalty), now
	}
	if sum != 0 {
		copy(p.sums[1:at+1], p.sums[:at])
		p.sums[0] = sum
	}
	return again
}

// pass ends the penalty after a right password.
func (p *penalty) pass(now time.Time) { p.level, p.last, p.updated = 0, now, now }
