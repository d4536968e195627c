package rounds

import (
	"errors"
	"slices"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1}, 5}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := Median(tt.in); got != tt.want {
			t.Errorf("Median(%v) = %v; want %v", tt.in, got, tt.want)
		}
	}
}

func TestAlternate(t *testing.T) {
	order := ""
	side := func(name string, figures ...float64) func() (float64, error) {
		return func() (float64, error) {
			order += name
			f := figures[0]
			figures = figures[1:]
			return f, nil
		}
	}
	got, err := Alternate(3, side("a", 1, 9, 2), side("b", 5, 6, 7))
	want := [][]float64{{1, 9, 2}, {5, 6, 7}}
	if err != nil || !slices.EqualFunc(got, want, slices.Equal) || order != "abbaab" {
		t.Errorf("got %v, %v in the order %s; want %v in the order abbaab", got, err, order, want)
	}
	broken := errors.New("broken")
	if _, err := Alternate(2, func() (float64, error) { return 0, broken }); err != broken {
		t.Errorf("got %v", err)
	}
}

func TestRatio(t *testing.T) {
	if got := Ratio([]float64{1, 10, 100}, []float64{2, 30, 200}); got != 2 {
		t.Errorf("got %v; want 2", got)
	}
}
