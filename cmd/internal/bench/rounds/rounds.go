// Package rounds is what the benchmarks have in common: two sides in turn, again
// and again, the median of each, and a line for each comparison.
package rounds

import "slices"

// Median returns the middle of values, of an even number the mean of the middle two.
func Median(values []float64) float64 {
	v := slices.Clone(values)
	slices.Sort(v)
	n := len(v)
	if n == 0 {
		return 0
	}
	return (v[(n-1)/2] + v[n/2]) / 2
}

// Alternate runs every side n times, in turn, and each second time in the opposite
// order, so that no side always comes first. It returns the figures of each side,
// one for each round. The first error ends it.
func Alternate(n int, sides ...func() (float64, error)) ([][]float64, error) {
	figures := make([][]float64, len(sides))
	for round := range n {
		for i := range sides {
			if round%2 == 1 {
				i = len(sides) - 1 - i
			}
			f, err := sides[i]()
			if err != nil {
				return nil, err
			}
			figures[i] = append(figures[i], f)
		}
	}
	return figures, nil
}

// Ratio returns the median of what the rounds of two sides have to each other, ours/theirs:
// what slows a whole round down, such as another user of the machine, does not
// show in it.
func Ratio(theirs, ours []float64) float64 {
	var all []float64
	for i := range ours {
		all = append(all, ours[i]/theirs[i])
	}
	return Median(all)
}
