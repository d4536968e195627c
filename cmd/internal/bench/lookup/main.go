// Lookup measures lookups side by side: Postfix's own mysql: tables, and lookupd
// asked through a socketmap, with the same server, rows and .cf files. The client is
// the real postmap, as Postfix has it, and as many of them as a busy server has
// processes; where lookupd is compared with itself, raw connections.
//
//	lookup [--rounds 9] [--keys 10000] [--users 1000000] [--only hot,nothing,cold,ladder,many,size,memory]
//
// It prints one line for each comparison: the medians of rounds in which the sides
// alternate, the median of the rounds' ratios, the target, and PASS or BELOW. Figures of one machine and
// one run are comparable with each other only. Wrong answers are an error.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"dovepost/cmd/internal/bench/rounds"
)

func main() {
	// The server that does nothing is a process of its own, as lookupd is.
	if len(os.Args) == 2 && os.Args[1] == "echo" {
		fmt.Fprintln(os.Stderr, echo())
		os.Exit(1)
	}
	b := &bench{}
	pflag.IntVar(&b.rounds, "rounds", 9, "how often each side runs")
	pflag.IntVar(&b.keys, "keys", 10_000, "lookups of each side in a round")
	pflag.IntVar(&b.users, "users", 1_000_000, "rows of the large table")
	pflag.StringSliceVar(&b.only, "only", nil, "the comparisons to run; all of them if empty")
	pflag.Parse()
	if err := rounds.Check(b.comparisons(), b.only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(64)
	}
	rounds.Main(b.setUp, func() error { return rounds.Run("native", "dovepost", b.comparisons(), b.only) }, b.tearDown)
}

func (b *bench) comparisons() []rounds.Row {
	return []rounds.Row{
		{Name: "hot", Run: b.hot}, {Name: "nothing", Run: b.nothing}, {Name: "cold", Run: b.cold}, {Name: "ladder", Run: b.ladder},
		{Name: "many", Run: b.many}, {Name: "size", Run: b.size}, {Name: "memory", Run: b.memory},
	}
}

// seconds prints a comparison of two times: the lower, the better.
func seconds(what string, left, right []float64, target float64) {
	ratio := rounds.Ratio(left, right)
	rounds.Line(what, fmt.Sprintf("%.1f us", rounds.Median(left)*1e6), fmt.Sprintf("%.1f us", rounds.Median(right)*1e6), fmt.Sprintf("%.2f", ratio),
		fmt.Sprintf("<= %.2f", target), ratio <= target)
}

// times turns rates into times.
func times(rates []float64) (t []float64) {
	for _, r := range rates {
		t = append(t, 1/r)
	}
	return t
}
