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
	rounds.Main(b.setUp, func() error { return b.run(*only) }, b.tearDown)
}

// run runs the comparisons that were asked for.
func (b *bench) run(only []string) error {
	return rounds.Run("dovecot", "authd", []rounds.Row{
		{Name: "fresh", Run: b.fresh}, {Name: "again", Run: b.again}, {Name: "lookups", Run: b.lookups}, {Name: "imap", Run: b.imap},
		{Name: "memory", Run: b.memory}, {Name: "alike", Run: b.alike}, {Name: "schemes", Run: b.schemes},
		{Name: "cached", Run: b.cached}, // changes Dovecot's settings
	}, only)
}
