// Auth measures logins side by side: Dovecot's own auth service, and authd in its
// place, each with its own Dovecot and MariaDB, the same rows, queries and load.
//
//	auth [--rounds 9] [--logins 600] [--only ROW,...]
//
// The questions are put as Dovecot's processes put them: over auth-client,
// auth-userdb and IMAP, by many clients with one open question each. Dovecot has
// the settings that it has by default, unless a line says something else; both
// verify SHA512-CRYPT with 5000 rounds.
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
	b := &bench{}
	pflag.IntVar(&b.rounds, "rounds", 9, "how often each side runs")
	pflag.IntVar(&b.logins, "logins", 600, "logins of each side in a round")
	pflag.StringVar(&b.bin, "bin", "", "`DIR` with the built daemons; they are built if empty")
	only := pflag.StringSlice("only", nil, "the `ROWS` to measure: fresh, again, cached, lookups, imap, memory, alike, schemes")
	pflag.Parse()
	// The watchdog of the stack ends what runs when this process ends.
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		os.Exit(130)
	}()
	err := b.setUp()
	if err == nil {
		err = b.run(*only)
	}
	if err = errors.Join(err, b.tearDown()); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// run runs the comparisons that were asked for.
func (b *bench) run(only []string) error {
	fmt.Printf("%-46s %12s %12s %8s %10s\n", "", "dovecot", "authd", "ratio", "target")
	for _, row := range []struct {
		name    string
		compare func() error
	}{
		{"fresh", b.fresh}, {"again", b.again}, {"lookups", b.lookups}, {"imap", b.imap},
		{"memory", b.memory}, {"alike", b.alike}, {"schemes", b.schemes}, {"cached", b.cached}, // the last changes Dovecot's settings
	} {
		if len(only) > 0 && !slices.Contains(only, row.name) {
			continue
		}
		if err := row.compare(); err != nil {
			return fmt.Errorf("%s: %w", row.name, err)
		}
	}
	return nil
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
