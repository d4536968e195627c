package rounds

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

// A Row is a part of a benchmark that can run alone.
type Row struct {
	Name string
	Run  func() error
}

// Main runs a benchmark to its end, and ends the process with 1 after an error. What was
// set up is torn down in any case, but for an interrupt: then the watchdog of the stack ends what runs.
func Main(setUp, run, tearDown func() error) {
	ExitOnInterrupt()
	err := setUp()
	if err == nil {
		err = run()
	}
	if err = errors.Join(err, tearDown()); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// ExitOnInterrupt ends the process with 130 at an interrupt. The watchdog of the stack ends
// what runs when this process ends.
func ExitOnInterrupt() {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		os.Exit(130)
	}()
}

// Check returns an error for a name in only that no row has.
func Check(rows []Row, only []string) error {
	for _, name := range only {
		if !slices.ContainsFunc(rows, func(r Row) bool { return r.Name == name }) {
			return fmt.Errorf("there is no comparison %q", name)
		}
	}
	return nil
}

// Run prints the head of the table and runs the rows that only names, or all where it is empty.
func Run(left, right string, rows []Row, only []string) error {
	fmt.Printf("%-46s %12s %12s %8s %10s\n", "", left, right, "ratio", "target")
	for _, r := range rows {
		if len(only) > 0 && !slices.Contains(only, r.Name) {
			continue
		}
		if err := r.Run(); err != nil {
			return fmt.Errorf("%s: %w", r.Name, err)
		}
	}
	return nil
}

// Line prints one comparison.
func Line(what, left, right, ratio, target string, pass bool) {
	verdict := "BELOW"
	if pass {
		verdict = "PASS"
	}
	fmt.Printf("%-46s %12s %12s %8s %10s  %s\n", what, left, right, ratio, target, verdict)
}

// PerSecond prints a comparison of two rates: the higher, the better.
func PerSecond(what string, theirs, ours []float64, target float64) {
	ratio := Ratio(theirs, ours)
	Line(what, fmt.Sprintf("%.0f/s", Median(theirs)), fmt.Sprintf("%.0f/s", Median(ours)), fmt.Sprintf("%.2f", ratio),
		fmt.Sprintf(">= %.2f", target), ratio >= target)
}
