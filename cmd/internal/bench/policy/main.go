// Policy measures policyd beside postfwd, and a real smtpd with policyd beside one without.
//
//	policy [--rounds 7] [--messages 4000] [--rules access,sender,...] [--only requests,site,bare]
//
// The questions are those that smtpd puts about a message, at RCPT and at its end, over as many
// connections as a busy server has smtpd processes, each with one open question. policyd has all its
// rules on, with their tables in MariaDB; the users, networks and counters are warm. postfwd is
// Debian's, with an access list and a limit for each login, which it keeps in memory: it answers
// less of the question.
//
// The smtpd is that of a site, which looks up domains, mailboxes and aliases; and one that takes all and looks up
// nothing, so that a message costs as little as it can. Both throw away what they take.
//
// It prints one line for each comparison: the medians of rounds in which the sides alternate,
// the median of the rounds' ratios, the target, and PASS or BELOW. Figures of one machine and
// one run are comparable with each other only. An answer other than DUNNO is an error.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"dovepost/cmd/internal/bench/rounds"
	"dovepost/cmd/internal/stack"
)

// What asks at a time: connections of smtpd to policyd, and SMTP clients.
const (
	clients     = 16
	smtpClients = 8
)

func main() {
	b := &bench{}
	pflag.IntVar(&b.rounds, "rounds", 7, "how often each side runs")
	pflag.IntVar(&b.messages, "messages", 4000, "messages of a round of policyd; postfwd gets an eighth, an smtpd the half")
	pflag.StringVar(&b.rules, "rules", "access,sender,rate,shield,greylist,quota", "the rules that are on")
	only := pflag.StringSlice("only", nil, "the comparisons to run; all of them if empty")
	pflag.Parse()
	rows := []rounds.Row{{Name: "requests", Run: b.requests},
		{Name: "site", Run: func() error { return b.beside(b.site, "messages, smtpd of a site, without and with") }},
		{Name: "bare", Run: func() error { return b.beside(b.bare, "messages, smtpd alone, without and with") }}}
	if err := rounds.Check(rows, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(64)
	}
	rounds.Main(b.setUp, func() error { return rounds.Run("others", "policyd", rows, *only) }, b.tearDown)
}

// requests asks both the same questions: of users and known strangers.
func (b *bench) requests() error {
	theirs := func() (float64, error) { return rate("tcp", b.postfwd.addr, clients, b.messages/8) }
	ours := func() (float64, error) { return rate("unix", b.policySocket(), clients, b.messages) }
	for _, side := range []func() (float64, error){theirs, ours} {
		if _, err := side(); err != nil { // warms it
			return err
		}
	}
	figures, err := rounds.Alternate(b.rounds, theirs, ours)
	if err != nil {
		return err
	}
	rounds.PerSecond("requests, all rules, beside postfwd", figures[0], figures[1], 5)
	return nil
}

// beside sends messages to two real smtpds: one that asks policyd as contrib's main.cf has it, at RCPT
// about all and at the end about bounces, and one that does not ask.
func (b *bench) beside(m *mailServer, what string) error {
	side := func(listener int) func() (float64, error) {
		return func() (float64, error) { return send(m.postfix, listener, b.messages/2) }
	}
	without, with := side(0), side(1)
	for _, side := range []func() (float64, error){without, with} {
		if _, err := side(); err != nil {
			return err
		}
	}
	figures, err := rounds.Alternate(b.rounds, without, with)
	if err != nil {
		return err
	}
	rounds.PerSecond(what, figures[0], figures[1], 0.95)
	return nil
}

// send sends messages with smtp-source and returns how many were accepted in a second.
func send(p *stack.Postfix, listener, messages int) (float64, error) {
	began := time.Now()
	out, err := exec.Command("smtp-source", "-c", "-s", strconv.Itoa(smtpClients), "-m", strconv.Itoa(messages), "-l", "4096",
		"-f", user(0), "-t", user(1), p.Addr(listener)).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("smtp-source: %w\n%s", err, out)
	}
	took := time.Since(began)
	return float64(messages) / took.Seconds(), p.WaitQueue(time.Minute)
}
