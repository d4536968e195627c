package wire

import (
	"testing"
	"time"
)

func TestQuiet(t *testing.T) {
	var q Quiet
	now := time.Unix(1000, 0)
	for i := range 12 {
		if _, ok := q.Allow(now); ok != (i < 10) {
			t.Errorf("line %d: allowed %v", i, ok)
		}
	}
	if unsaid, ok := q.Allow(now.Add(time.Second)); !ok || unsaid != 2 {
		t.Errorf("a second later: %d, %v; want 2, true", unsaid, ok)
	}
}
