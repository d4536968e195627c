package guard

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"dovepost/auth"
)

func TestDelayUntil(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for _, tt := range []struct {
		name, value string
		least, most time.Duration
		refused     bool
	}{
		{"a time to come", "1700000003", 3 * time.Second, 3 * time.Second, false},
		{"a time that has passed", "1600000000", 0, 0, false},
		{"now", "1700000000", 0, 0, false},
		{"the last that is near enough", "1700000300", 5 * time.Minute, 5 * time.Minute, false},
		{"the first that is too far away", "1700000301", 0, 0, true},
		{"milliseconds", "1700000003000", 0, 0, true},
		{"some seconds more", "1700000003+5", 3 * time.Second, 7 * time.Second, false},
		{"no seconds more", "1700000003+0", 3 * time.Second, 3 * time.Second, false},
		{"more than five minutes in all", "1700000299+1000000", 299 * time.Second, 5 * time.Minute, false},
		{"no number behind the plus", "1700000003+x", 0, 0, true},
		{"nothing", "", 0, 0, true},
		{"a date", "2023-11-14", 0, 0, true},
		{"a number below zero", "-5", 0, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			row := &auth.Credentials{Fields: auth.Fields{{Name: "delay_until", Value: tt.value, HasValue: true}}}
			for range 20 {
				wait, why := delayUntil(row, now)
				if wait < tt.least || wait > tt.most || (why != "") != tt.refused {
					t.Fatalf("wait %v, refused %q; want %v to %v, %v", wait, why, tt.least, tt.most, tt.refused)
				}
			}
		})
	}
}

// TestAnswersWaitForDelayUntil: only those to a right password, which is late, and does
// not come at all when whoever asks cannot wait so long.
func TestAnswersWaitForDelayUntil(t *testing.T) {
	synctest.Test(t, answersWaitForDelayUntil)
}

func answersWaitForDelayUntil(t *testing.T) {
	until := func(d time.Duration) *Verifier {
		at := fmt.Sprint(time.Now().Add(d).Unix())
		return &Verifier{Log: quiet, Passdb: &passdb{row: auth.Credentials{Password: "{PLAIN}pw", Fields: fields("delay_until", at)}}}
	}
	try := func(v *Verifier, password string, limit time.Duration) (time.Duration, error) {
		gate := NewGate(Policy{Off: true}, nil, NewDelay(0))
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		x := gate.Mechanisms([]auth.Mechanism{onePlain{}})[0].Start(&auth.Request{Login: "u@d", Service: "imap"}, v)
		start := time.Now()
		_, row, err := x.Next(ctx, []byte(password))
		if (row == nil) != (err != nil) {
			t.Errorf("row %v, %v", row, err)
		}
		return time.Since(start), err
	}
	if took, err := try(until(2*time.Second), "pw", time.Minute); err != nil || took != 2*time.Second {
		t.Errorf("right: %v after %v, want success after 2 s", err, took)
	}
	if took, err := try(until(time.Minute), "wrong", time.Minute); !errors.Is(err, auth.ErrPasswordMismatch) || took > time.Second {
		t.Errorf("wrong: %v after %v, want a refusal at once", err, took)
	}
	if _, err := try(until(time.Minute), "pw", 50*time.Millisecond); err == nil || auth.Refused(err) {
		t.Errorf("too long to wait: %v, want a temporary error", err)
	}
	if _, err := try(until(time.Hour), "pw", time.Minute); !errors.Is(err, auth.ErrPasswordMismatch) {
		t.Errorf("too far away: %v, want a refusal", err)
	}
}
