package daemon

import (
	"testing"
	"time"
)

func TestValues(t *testing.T) {
	durations := map[string]time.Duration{
		"2": 2 * time.Second, "2s": 2 * time.Second, "2 secs": 2 * time.Second, "500ms": 500 * time.Millisecond, "500 msecs": 500 * time.Millisecond,
		"1m": time.Minute, "3 mins": 3 * time.Minute, "1h": time.Hour, "1 day": 24 * time.Hour, "1w": 7 * 24 * time.Hour,
		"1.5s": 1500 * time.Millisecond, "1m30s": 90 * time.Second, "0": 0, " 7 S ": 7 * time.Second,
	}
	for in, want := range durations {
		var got duration
		if err := got.Set(in); err != nil || time.Duration(got) != want {
			t.Errorf("duration %q = %v, %v; want %v", in, time.Duration(got), err, want)
		}
	}
	for _, in := range []string{"", "x", "-1s", "-1", "2 fortnights", "s", "99999999999s", "1 2"} {
		if err := new(duration).Set(in); err == nil {
			t.Errorf("duration %q: no error", in)
		}
	}
	sizes := map[string]int64{"0": 0, "4096": 4096, "64K": 64 << 10, "64 kb": 64 << 10, "1M": 1 << 20, "1 MiB": 1 << 20, "2G": 2 << 30, "1T": 1 << 40, "5b": 5}
	for in, want := range sizes {
		var got size
		if err := got.Set(in); err != nil || int64(got) != want {
			t.Errorf("size %q = %d, %v; want %d", in, got, err, want)
		}
		var again size
		if err := again.Set(got.String()); err != nil || again != got {
			t.Errorf("size %v reads back as %v, %v", got.String(), again, err)
		}
	}
	for _, in := range []string{"", "K", "-1", "1KM", "1X", "99999999999G", "1.5M"} {
		if err := new(size).Set(in); err == nil {
			t.Errorf("size %q: no error", in)
		}
	}
	for in, want := range map[string]bool{"yes": true, "No": false, "true": true, "0": false} {
		got := yesNo(!want)
		if err := got.Set(in); err != nil || bool(got) != want {
			t.Errorf("yes or no %q = %v, %v; want %v", in, got, err, want)
		}
	}
	if err := new(yesNo).Set("perhaps"); err == nil {
		t.Error("perhaps is neither yes nor no")
	}
}
