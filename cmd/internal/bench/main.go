// Bench measures the whole chain side by side: smtp-source, smtpd, cleanup, qmgr,
// lmtp, the LMTP server, Maildir. It boots the native and the dovepost flavour
// in turn, each time in a fresh directory, with the same schema, rows, main.cf and
// load, and prints the ratios of messages per second and of processor time.
//
//	bench [--rounds 2] [--messages 2000] [--mailboxes 500] [--size 4096] [--sessions 20]
//
// Figures of one machine and one run are comparable with each other only. A run
// that loses or doubles a message fails.
package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"dovepost/cmd/internal/bench/rounds"
	"dovepost/cmd/internal/stack"
)

// load is what each run has to carry.
type load struct {
	rounds, messages, mailboxes, size, sessions int
	mainCF                                      []string
	keep                                        bool
	bin                                         string
}

// result is what one run came to.
type result struct {
	took time.Duration
	cpu  stack.Usage
	load load
}

func (r result) perSecond() float64 { return float64(r.load.messages) / r.took.Seconds() }

func (r result) cpuPerMessage() time.Duration { return r.cpu.Total() / time.Duration(r.load.messages) }

func main() {
	var l load
	pflag.IntVar(&l.rounds, "rounds", 2, "runs of each flavour, in turn")
	pflag.IntVar(&l.messages, "messages", 2000, "messages a run, a multiple of the mailboxes")
	pflag.IntVar(&l.mailboxes, "mailboxes", 500, "mailboxes that get them")
	pflag.IntVar(&l.size, "size", 4096, "octets a message")
	pflag.IntVar(&l.sessions, "sessions", 20, "SMTP sessions at a time")
	pflag.StringArrayVar(&l.mainCF, "main-cf", nil, "a line more for main.cf of both flavours, repeatable")
	pflag.BoolVar(&l.keep, "keep", false, "leave the directories")
	pflag.StringVar(&l.bin, "bin", "", "`DIR` with the built daemons; they are built if empty")
	only := pflag.String("only", "", "run one `FLAVOUR` alone: native or dovepost")
	pflag.Parse()
	flavours := []stack.Flavour{stack.Native, stack.Dovepost}
	if *only != "" {
		flavours = []stack.Flavour{stack.Flavour(*only)}
	}
	if err := bench(l, flavours); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func bench(l load, flavours []stack.Flavour) error {
	if l.rounds < 1 || l.mailboxes < 1 || l.messages%l.mailboxes != 0 || l.sessions < l.messages/l.mailboxes {
		return errors.New("messages must be a multiple of mailboxes, and sessions at least messages/mailboxes")
	}
	rounds.ExitOnInterrupt()
	fmt.Printf("%d messages of %d octets to %d mailboxes, %d sessions\n", l.messages, l.size, l.mailboxes, l.sessions)
	results := map[stack.Flavour][]result{}
	var dirs []string
	// Deleting a mail store slows the next run down, where ext4 avoids the inodes
	// just freed: nothing is removed before the last run is over.
	defer func() {
		for _, dir := range dirs {
			if !l.keep {
				os.RemoveAll(dir)
			}
		}
	}()
	for round := range l.rounds {
		for _, flavour := range flavours {
			r, dir, err := run(l, flavour)
			if dir != "" {
				dirs = append(dirs, dir)
			}
			if err != nil {
				l.keep = true
				return fmt.Errorf("round %d, %s: %w (logs are in %s)", round+1, flavour, err, dir)
			}
			results[flavour] = append(results[flavour], r)
			fmt.Printf("%-9s %7.1f messages/s  %5.2f ms CPU a message  (%s)\n", flavour, r.perSecond(),
				float64(r.cpuPerMessage())/float64(time.Millisecond), parts(r))
		}
	}
	if len(flavours) == 2 {
		native, ours := results[stack.Native], results[stack.Dovepost]
		fmt.Printf("dovepost/native: %.2f in messages/s, %.2f in CPU\n",
			median(ours, result.perSecond)/median(native, result.perSecond),
			median(ours, cpuSeconds)/median(native, cpuSeconds))
	}
	return nil
}

func cpuSeconds(r result) float64 { return r.cpu.Total().Seconds() }

// median of one figure over the runs.
func median(all []result, figure func(result) float64) float64 {
	var v []float64
	for _, r := range all {
		v = append(v, figure(r))
	}
	return rounds.Median(v)
}

// parts lists the processor time of each part, the greatest first.
func parts(r result) string {
	var names []string
	for name := range r.cpu {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(r.cpu[b], r.cpu[a]) })
	for i, name := range names {
		names[i] = fmt.Sprintf("%s %.2fs", name, r.cpu[name].Seconds())
	}
	return strings.Join(names, ", ")
}

// run boots one flavour, carries the load, and counts what arrived.
func run(l load, flavour stack.Flavour) (r result, dir string, err error) {
	options := stack.Options{Flavour: flavour, Domains: []string{"example.net"}, MainCF: l.mainCF, Bin: l.bin}
	for i := range l.mailboxes + 1 {
		options.Users = append(options.Users, stack.User{Email: fmt.Sprintf("%duser@example.net", i), Password: "secret", Quota: 1 << 20})
	}
	s, err := stack.Start(options)
	if err != nil {
		return r, "", err
	}
	defer func() { err = errors.Join(err, s.Halt()) }()
	before, err := s.CPU()
	if err != nil {
		return r, s.Dir, err
	}
	began := time.Now()
	if err := send(l, s.SMTPAddr); err != nil {
		return r, s.Dir, err
	}
	if err := s.WaitQueue(5 * time.Minute); err != nil {
		return r, s.Dir, err
	}
	r.load, r.took = l, time.Since(began)
	after, err := s.CPU()
	if err != nil {
		return r, s.Dir, err
	}
	r.cpu = after.Sub(before)
	arrived, err := s.Unread()
	if err == nil && arrived != l.messages {
		err = fmt.Errorf("%d messages arrived, want %d", arrived, l.messages)
	}
	return r, s.Dir, err
}

// send runs as many smtp-sources as each mailbox gets messages: each of them
// writes once to 1user, 2user and so on.
func send(l load, addr string) error {
	sources := l.messages / l.mailboxes
	var sending errgroup.Group
	for range sources {
		sending.Go(func() error {
			out, err := exec.Command("smtp-source", "-N", "-s", fmt.Sprint(l.sessions/sources), "-m", fmt.Sprint(l.mailboxes),
				"-l", fmt.Sprint(l.size), "-f", "sender@remote.example", "-t", "user@example.net", addr).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("smtp-source: %w: %s", err, out)
			}
			return err
		})
	}
	return sending.Wait()
}
