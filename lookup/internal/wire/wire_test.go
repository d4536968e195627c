package wire

import (
	"net"
	"testing"
	"testing/synctest"
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

// deadlines counts how often a write deadline is set.
type deadlines struct {
	net.Conn
	set int
}

func (d *deadlines) Write(p []byte) (int, error)         { return len(p), nil }
func (d *deadlines) SetWriteDeadline(by time.Time) error { d.set++; return nil }

// a reply is written before a deadline that is not much nearer than Patience.
func TestWriteDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &deadlines{}
		s := &Stream{Conn: d}
		for range 100 {
			s.Write([]byte("reply"))
			time.Sleep(Patience / 100)
		}
		if d.set < 9 || d.set > 11 {
			t.Errorf("set %d times", d.set)
		}
		time.Sleep(time.Hour)
		before := d.set
		if s.Write(nil); d.set != before+1 {
			t.Error("not set after a long time")
		}
	})
}
