package guard

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"dovepost/auth"
)

// The schedule of anvil: what waits how long, of 203.0.113.1 unless a step names another network.
func TestPenalty(t *testing.T) {
	type step struct {
		after          time.Duration
		user, password string
		ip             string
		want           string
		wait           time.Duration
	}
	const s = time.Second
	tests := []struct {
		name  string
		steps []step
	}{
		{"wrong passwords in a row", []step{
			{0, "a", "1", "", "no", 0}, {0, "a", "2", "", "no", 4 * s}, {0, "a", "3", "", "no", 8 * s}, {0, "a", "4", "", "no", 15 * s}, {0, "a", "5", "", "no", 15 * s}, {0, "a", "6", "", "no", 15 * s}}},
		{"the same wrong password", []step{
			{0, "a", "1", "", "no", 0}, {0, "a", "1", "", "no", 4 * s}, {0, "a", "1", "", "no", 4 * s}, {0, "a", "1", "", "no", 0}, {0, "a", "2", "", "no", 0}, {0, "a", "1", "", "no", 4 * s}}},
		{"the same wrong password of two users", []step{
			{0, "a", "1", "", "no", 0}, {0, "b", "1", "", "no", 4 * s}, {0, "b", "1", "", "no", 8 * s}}},
		{"unknown users, who are like others", []step{
			{0, "nobody", "1", "", "no", 0}, {0, "nobody", "2", "", "no", 4 * s}, {0, "nobody", "2", "", "no", 8 * s}}},
		{"an end after 15 s", []step{
			{0, "a", "1", "", "no", 0}, {0, "a", "2", "", "no", 4 * s}, {0, "a", "3", "", "no", 8 * s}, {13 * s, "a", "4", "", "no", 0}, {0, "a", "5", "", "no", 4 * s}}},
		{"a right password, which ends it, and is late itself", []step{
			{0, "a", "1", "", "no", 0}, {0, "a", "2", "", "no", 4 * s}, {0, "a", "right", "", "ok", 8 * s}, {0, "a", "3", "", "no", 0}}},
		{"another address", []step{
			{0, "a", "1", "", "no", 0}, {0, "a", "2", "203.0.113.2", "no", 0}, {0, "a", "3", "", "no", 4 * s}}},
		{"addresses of one /48", []step{
			{0, "a", "1", "2001:db8:1::1", "no", 0}, {0, "a", "2", "2001:db8:1:ffff::2", "no", 4 * s}, {0, "a", "3", "2001:db8:2::1", "no", 0}}},
		{"a mapped address", []step{
			{0, "a", "1", "", "no", 0}, {0, "a", "2", "::ffff:203.0.113.1", "no", 4 * s}}},
		{"what the client broke", []step{
			{0, "a", "malformed", "", "no", 0}, {0, "a", "malformed", "", "no", 4 * s}, {0, "a", "malformed", "", "no", 8 * s}}},
		{"nodelay, which does not count", []step{
			{0, "nodelay", "1", "", "no", 0}, {0, "nodelay", "2", "", "no", 0}, {0, "a", "right", "", "ok", 0}}},
		{"a database that is away, which does not count", []step{
			{0, "a", "away", "", "later", 0}, {0, "a", "away", "", "later", 0}, {0, "a", "1", "", "no", 0}}},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			y := newYard(usual)
			for i, s := range tt.steps {
				time.Sleep(s.after)
				if s.ip == "" {
					s.ip = "203.0.113.1"
				}
				got, took := y.try(t, s.user, s.password, s.ip)
				late := time.Duration(0)
				if got == "no" {
					late = grid
				}
				if got != s.want || took < s.wait || took > s.wait+late {
					t.Errorf("it handles %s: step %d: %s after %v, want %s after %v", tt.name, i, got, took, s.want, s.wait)
				}
			}
		})
	}
}

func TestPenaltyExceptions(t *testing.T) {
	allowed := usual
	allowed.Allow, _ = ParseNets("203.0.113.0/24, 2001:db8::1")
	off := usual
	off.Off = true
	for _, tt := range []struct {
		name   string
		policy Policy
		ip     string
		change []func(*auth.Request)
	}{
		{"no-penalty", usual, "203.0.113.1", []func(*auth.Request){noPenalty}},
		{"no address", usual, "", nil},
		{"a network that is excepted", allowed, "203.0.113.1", nil},
		{"the same, mapped", allowed, "::ffff:203.0.113.1", nil},
		{"auth_guard = no", off, "203.0.113.1", nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			y := newYard(tt.policy)
			for i := range 100 {
				if got, took := y.try(t, fmt.Sprint(i), "wrong", tt.ip, tt.change...); got != "no" || took > grid {
					t.Errorf("it handles %s: try %d: %s after %v", tt.name, i, got, took)
				}
			}
			if s := y.Stats(); s.Networks+s.Accounts+s.Known != 0 || s.Waits != 0 {
				t.Errorf("it handles %s: %+v", tt.name, s)
			}
		})
	}
}

// Postfix has every answer within 8 s, auth_failure_delay included.
func TestPenaltySMTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(usual)
		y.delay.Failure = 5 * time.Second
		for i := range 30 {
			start := time.Now()
			got, _ := y.try(t, "a", fmt.Sprint(i), "203.0.113.1", smtp)
			if took := time.Since(start); took > maxMTADelay || i > 0 && took < maxMTADelay-shuffle || got != "no" {
				t.Errorf("try %d: %s after %v", i, got, took)
			}
		}
		if got, took := y.try(t, "a", "right", "203.0.113.1", smtp); got != "ok" || took > maxMTAWait {
			t.Errorf("a right password: %s after %v", got, took)
		}
	})
}

// FuzzPenalty checks, against a second reading of anvil, that the levels are its own.
func FuzzPenalty(f *testing.F) {
	f.Add([]byte{1, 1, 1, 2, 1, 3, 14, 4})  // new passwords, the last after a pause
	f.Add([]byte{1, 1, 1, 1, 20, 1, 1, 0})  // the same one again, then a right one
	f.Add([]byte{0, 1, 0, 2, 0, 3, 15, 17}) // exactly at the end
	f.Fuzz(func(t *testing.T, script []byte) {
		now := time.Unix(1_000_000, 0)
		var p penalty
		var level, last int64 // anvil's penalty_rec
		var sums []uint32
		for i := 0; i+1 < len(script); i += 2 {
			now = now.Add(time.Duration(script[i]%32) * time.Second)
			// auth_penalty_anvil_callback
			seen := level
			for drop := int64(4); seen > 0 && now.Unix()-last >= min(int64(2)<<drop, 15); drop-- {
				seen--
			}
			if got := p.at(now); got != int(seen) {
				t.Fatalf("step %d: level %d, anvil's %d", i/2, got, seen)
			}
			sum := uint32(script[i+1] % 16)
			if sum == 15 { // a right password
				if seen > 0 {
					level, last = 0, now.Unix()
					p.pass(now)
				}
				continue
			}
			value := min(seen+1, 4)
			at := -1
			for k, s := range sums {
				if sum != 0 && s == sum {
					at = k
				}
			}
			again := p.fail(now, int(seen), sum)
			if again != (at >= 0) {
				t.Fatalf("step %d: again is %v", i/2, again)
			}
			if again {
				level = value - 1
				sums = append(sums[:at:at], sums[at+1:]...)
			} else {
				level, last = value, now.Unix()
			}
			if sum != 0 {
				sums = append([]uint32{sum}, sums...)
				sums = sums[:min(len(sums), 10)]
			}
		}
	})
}
