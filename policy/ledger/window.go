package ledger

import (
	"math"
	"slices"
	"time"
)

// Bounds of a window. A shorter one would be mostly error, a longer one mostly memory.
const (
	MinWindow = time.Second
	MaxWindow = 31 * 24 * time.Hour
)

// fineness is in how many steps a window is cut at least, if it is that many seconds long.
const fineness = 48

// steps are the lengths of buckets, in seconds. They are few, so that windows of about
// the same length share their buckets, on all machines.
var steps = [...]int64{1, 5, 15, 60, 5 * 60, 15 * 60, 3600, 6 * 3600}

// StepOf returns the length of the buckets that count for a window: a second, or up to a
// 48th of the window. It is the window's error: what happened is forgotten by so much too
// late at most, and never too early.
func StepOf(window time.Duration) time.Duration {
	return time.Duration(stepOf(window)) * time.Second
}

func stepOf(window time.Duration) int64 {
	most := int64(window/time.Second) / fineness
	for i := len(steps) - 1; i > 0; i-- {
		if steps[i] <= most {
			return steps[i]
		}
	}
	return steps[0]
}

// keptFor returns for how many seconds after its end a bucket of step may still count: the
// longest window that is cut in such steps.
func keptFor(step int64) int64 {
	i := slices.Index(steps[:], step)
	if i < 0 || i == len(steps)-1 {
		return int64(MaxWindow / time.Second)
	}
	return fineness * steps[i+1]
}

// Expires returns when a bucket counts for no window any more, in Unix seconds.
func Expires(step, start int64) int64 { return start + step + keptFor(step) }

// Counts are up to three things that are counted together.
type Counts [3]int64

// Plus returns the sum, that of each at most the largest int64, and at least the smallest.
func (c Counts) Plus(d Counts) Counts {
	for i := range c {
		switch sum := c[i] + d[i]; {
		case c[i] > 0 && d[i] > 0 && sum < 0:
			c[i] = math.MaxInt64
		case c[i] < 0 && d[i] < 0 && sum >= 0:
			c[i] = math.MinInt64
		default:
			c[i] = sum
		}
	}
	return c
}

// bucket is what was counted in one step of time.
type bucket struct {
	start  int64 // Unix seconds, a multiple of the step
	own    Counts
	saved  Counts // as much of own as the store has
	others Counts // less than nothing, where an administrator has taken something off
}

func (b *bucket) sum() Counts {
	sum := b.own.Plus(b.others)
	for i := range sum {
		sum[i] = max(0, sum[i])
	}
	return sum
}

// series are the buckets of one step, in their order. Empty ones are left out.
type series struct {
	step    int64
	known   bool // the store's own rows are in it, so that it may be written
	buckets []bucket
}

// at returns the bucket that begins at start, and makes it if there is none.
func (s *series) at(start int64) *bucket {
	i, found := slices.BinarySearchFunc(s.buckets, start, func(b bucket, start int64) int { return int(b.start - start) })
	if !found {
		s.buckets = slices.Insert(s.buckets, i, bucket{start: start})
	}
	return &s.buckets[i]
}

// prune drops what counts no more.
func (s *series) prune(now int64) {
	n := 0
	for n < len(s.buckets) && Expires(s.step, s.buckets[n].start) <= now {
		n++
	}
	if n > 0 {
		s.buckets = slices.Delete(s.buckets, 0, n)
	}
}

// from returns the buckets that have a part in the window that ends now.
func (s *series) from(now time.Time, window time.Duration) []bucket {
	// A bucket counts while it ends after the beginning of the window.
	begin := now.Add(-window)
	oldest := begin.Unix() - s.step
	i := 0
	for i < len(s.buckets) && s.buckets[i].start <= oldest {
		i++
	}
	return s.buckets[i:]
}

// sum counts a window.
func (s *series) sum(now time.Time, window time.Duration) (sum Counts) {
	for _, b := range s.from(now, window) {
		sum = sum.Plus(b.sum())
	}
	return sum
}

// SumOf counts the window of a name that ends now, in all that is stored of its Key for the window, see StepOf.
func SumOf(rows []Row, now time.Time, window time.Duration) Counts {
	s := series{step: stepOf(window)}
	for _, row := range rows {
		b := s.at(row.Start)
		b.others = b.others.Plus(row.Counts)
	}
	return s.sum(now, window)
}

// frees returns when at most room of what is left in the window that ends now.
func (s *series) frees(now time.Time, window time.Duration, what int, room int64) time.Time {
	buckets := s.from(now, window)
	var left int64
	for _, b := range buckets {
		left += b.sum()[what]
	}
	until := now
	for _, b := range buckets {
		if left <= room {
			break
		}
		left -= b.sum()[what]
		until = time.Unix(b.start+s.step, 0).Add(window)
	}
	return until
}
