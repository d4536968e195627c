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
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/pflag"

	"dovepost/cmd/internal/bench/rounds"
)

func main() {
	// The server that does nothing is a process of its own, as lookupd is.
	if len(os.Args) == 3 && os.Args[1] == "echo" {
		fmt.Fprintln(os.Stderr, echo(os.Args[2]))
		os.Exit(1)
	}
	b := &bench{}
	pflag.IntVar(&b.rounds, "rounds", 9, "how often each side runs")
	pflag.IntVar(&b.keys, "keys", 10_000, "lookups of each side in a round")
	pflag.IntVar(&b.users, "users", 1_000_000, "rows of the large table")
	pflag.StringSliceVar(&b.only, "only", nil, "the comparisons to run; all of them if empty")
	pflag.Parse()
	// The watchdog of the stack ends what runs when this process ends.
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		os.Exit(130)
	}()
	for _, name := range b.only {
		if !slices.ContainsFunc(b.comparisons(), func(c comparison) bool { return c.name == name }) {
			fmt.Fprintf(os.Stderr, "bench: there is no comparison %q\n", name)
			os.Exit(64)
		}
	}
	err := b.setUp()
	if err == nil {
		err = b.run()
	}
	if err = errors.Join(err, b.tearDown()); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// run runs all comparisons.
func (b *bench) run() error {
	fmt.Printf("%-46s %12s %12s %8s %10s\n", "", "native", "dovepost", "ratio", "target")
	for _, c := range b.comparisons() {
		if len(b.only) > 0 && !slices.Contains(b.only, c.name) {
			continue
		}
		if err := c.run(); err != nil {
			return err
		}
	}
	return nil
}

// comparison is a part of the benchmark that can run alone.
type comparison struct {
	name string
	run  func() error
}

func (b *bench) comparisons() []comparison {
	return []comparison{
		{"hot", b.hot}, {"nothing", b.nothing}, {"cold", b.cold}, {"ladder", b.ladder},
		{"many", b.many}, {"size", b.size}, {"memory", b.memory},
	}
}

// line prints one comparison.
func line(what, left, right, ratio, target string, pass bool) {
	verdict := "BELOW"
	if pass {
		verdict = "PASS"
	}
	fmt.Printf("%-46s %12s %12s %8s %10s  %s\n", what, left, right, ratio, target, verdict)
}

// perSecond prints a comparison of two rates: the higher, the better.
func perSecond(what string, native, ours []float64, target float64) {
	ratio := rounds.Ratio(native, ours)
	line(what, fmt.Sprintf("%.0f/s", rounds.Median(native)), fmt.Sprintf("%.0f/s", rounds.Median(ours)), fmt.Sprintf("%.2f", ratio),
		fmt.Sprintf(">= %.2f", target), ratio >= target)
}

// seconds prints a comparison of two times: the lower, the better.
func seconds(what string, left, right []float64, target float64) {
	ratio := rounds.Ratio(left, right)
	line(what, fmt.Sprintf("%.1f us", rounds.Median(left)*1e6), fmt.Sprintf("%.1f us", rounds.Median(right)*1e6), fmt.Sprintf("%.2f", ratio),
		fmt.Sprintf("<= %.2f", target), ratio <= target)
}

// times turns rates into times.
func times(rates []float64) (t []float64) {
	for _, r := range rates {
		t = append(t, 1/r)
	}
	return t
}
