// Delivery measures delivery over LMTP side by side: Dovecot's LMTP server and lmtpd, with
// users from the same kind of database, quota on, and the same durability. The client is Postfix's
// smtp-source, which keeps its connections, as Postfix does.
//
//	delivery [--rounds 3] [--only s8,bare,s1,s32,rcpts,large,memory]
//
// It prints one line for each comparison: the medians of rounds in which the sides alternate,
// the median of the rounds' ratios, the target, and PASS or BELOW. Figures of one machine and
// one run are comparable with each other only. A message that is missing is an error.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"dovepost/cmd/internal/bench/rounds"
	"dovepost/cmd/internal/stack"
)

// mailboxes is how many users there are. Each client writes to all of them, one after the other.
const mailboxes = 500

// bench holds both servers.
type bench struct {
	rounds       int
	only         []string
	native, ours *site
}

// site is one server, and what was sent to it.
type site struct {
	*stack.Stack
	sent int // deliveries
}

// load is what a round sends: by each of clients, a number of messages.
type load struct {
	clients, messages int
	recipients        int // of each message
	octets            int // of each message
}

func (l load) deliveries() int { return l.clients * l.messages * l.recipients }

var (
	one   = load{clients: 1, messages: 500, recipients: 1, octets: 10 << 10}
	eight = load{clients: 8, messages: 500, recipients: 1, octets: 10 << 10}
	many  = load{clients: 32, messages: 128, recipients: 1, octets: 10 << 10}
	lists = load{clients: 4, messages: 10, recipients: 50, octets: 10 << 10}
	large = load{clients: 8, messages: 40, recipients: 1, octets: 1 << 20}
	huge  = load{clients: 200, messages: 1, recipients: 1, octets: 20 << 20}
)

func main() {
	b := &bench{}
	pflag.IntVar(&b.rounds, "rounds", 3, "how often each side runs")
	pflag.StringSliceVar(&b.only, "only", nil, "the comparisons to run; all of them if empty")
	bin := pflag.String("bin", "", "`DIR` with the built daemons; they are built if empty")
	pflag.Parse()
	rounds.Main(func() error { return b.setUp(*bin) }, b.run, b.tearDown)
}

func (b *bench) setUp(bin string) error {
	for _, side := range []struct {
		flavour stack.Flavour
		site    **site
	}{{stack.Native, &b.native}, {stack.Dovepost, &b.ours}} {
		o := stack.Options{Flavour: side.flavour, Domains: []string{"example.net"}, Bin: bin}
		for i := range mailboxes + 1 {
			o.Users = append(o.Users, stack.User{Email: fmt.Sprintf("%duser@example.net", i), Password: "secret", Quota: 100 << 20})
		}
		s, err := stack.Start(o)
		if err != nil {
			return err
		}
		*side.site = &site{Stack: s}
		// The mailboxes exist when it begins.
		if _, err := (*side.site).send(load{clients: 2, messages: mailboxes, recipients: 1, octets: 100}); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) tearDown() (err error) {
	for _, s := range []*site{b.native, b.ours} {
		if s != nil {
			err = errors.Join(err, s.Stop())
		}
	}
	return err
}

func (b *bench) run() error {
	return rounds.Run("native", "dovepost", []rounds.Row{
		{Name: "s8", Run: b.eight},
		{Name: "bare", Run: b.bare},
		{Name: "s1", Run: func() error { return b.rate("10 KB, 1 session", "messages", one, 2.0) }},
		{Name: "s32", Run: func() error { return b.rate("10 KB, 32 sessions", "messages", many, 4.0) }},
		{Name: "rcpts", Run: func() error { return b.rate("10 KB to 50 recipients, 4 sessions", "deliveries", lists, 5.0) }},
		{Name: "large", Run: func() error { return b.rate("1 MB, 8 sessions", "messages", large, 2.0) }},
		{Name: "memory", Run: b.memory},
	}, b.only)
}

// rate compares deliveries per second.
func (b *bench) rate(what, unit string, l load, target float64) error {
	figures, err := rounds.Alternate(b.rounds, b.native.perSecond(l), b.ours.perSecond(l))
	if err != nil {
		return err
	}
	rounds.PerSecond(what+", "+unit, figures[0], figures[1], target)
	return nil
}

func (s *site) perSecond(l load) func() (float64, error) {
	return func() (float64, error) {
		took, err := s.send(l)
		return float64(l.deliveries()) / took.Seconds(), err
	}
}

// eight compares messages per second and processor time.
func (b *bench) eight() error {
	var cpu [2][]float64
	side := func(i int, s *site) func() (float64, error) {
		return func() (float64, error) {
			before, err := s.CPU()
			if err != nil {
				return 0, err
			}
			took, err := s.send(eight)
			if err != nil {
				return 0, err
			}
			after, err := s.CPU()
			cpu[i] = append(cpu[i], after.Sub(before).Total().Seconds()/float64(eight.deliveries()))
			return float64(eight.deliveries()) / took.Seconds(), err
		}
	}
	figures, err := rounds.Alternate(b.rounds, side(0, b.native), side(1, b.ours))
	if err != nil {
		return err
	}
	rounds.PerSecond("10 KB, 8 sessions, messages", figures[0], figures[1], 3)
	ratio := rounds.Ratio(cpu[0], cpu[1])
	rounds.Line("  CPU a delivery", fmt.Sprintf("%.0f us", rounds.Median(cpu[0])*1e6), fmt.Sprintf("%.0f us", rounds.Median(cpu[1])*1e6),
		fmt.Sprintf("%.2f", ratio), "<= 0.33", ratio <= 1.0/3)
	return nil
}

// bare compares lmtpd with what the disk can do: write, fsync, rename, fsync of the directory. Both store in the same
// mailboxes: what a new file takes depends on what was deleted in the part of the disk where its directory is. What
// is to be told apart is less than elsewhere, so there are three times as many rounds.
func (b *bench) bare() error {
	root := filepath.Join(b.ours.MailRoot(), "example.net")
	loop := func() (float64, error) {
		b.ours.sent += eight.deliveries()
		return bareLoop(root, eight)
	}
	figures, err := rounds.Alternate(3*b.rounds, loop, b.ours.perSecond(eight))
	if err != nil {
		return err
	}
	rounds.PerSecond("10 KB, 8 sessions, against a bare loop", figures[0], figures[1], 0.7)
	return nil
}

// memory sends 200 messages of 20 MB at the same time.
func (b *bench) memory() error {
	if _, err := b.ours.send(huge); err != nil {
		return err
	}
	peak, err := b.ours.PeakMemory("lmtpd")
	if err != nil {
		return err
	}
	const most = 256 << 20
	rounds.Line("memory, 200 messages of 20 MB at once", "", fmt.Sprintf("%.0f MB", float64(peak)/(1<<20)), "", "< 256 MB", peak < most)
	return nil
}

// send sends a load, and returns how long it took. What was sent has arrived.
func (s *site) send(l load) (time.Duration, error) {
	for client := range l.clients {
		if err := os.WriteFile(s.message(client), l.text(client), 0o644); err != nil {
			return 0, err
		}
	}
	var sending errgroup.Group
	began := time.Now()
	for client := range l.clients {
		sending.Go(func() error {
			out, err := exec.Command("smtp-source", "-L", "-d", "-N", "-s", "1", "-m", fmt.Sprint(l.messages), "-r", fmt.Sprint(l.recipients),
				"-F", s.message(client), "-f", "sender@remote.example", "-t", "user@example.net", "unix:"+s.LMTPAddr).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("smtp-source: %w: %s", err, out)
			}
			return err
		})
	}
	err := sending.Wait()
	took := time.Since(began)
	if err != nil {
		return took, err
	}
	s.sent += l.deliveries()
	arrived, err := s.Unread()
	if err == nil && arrived != s.sent {
		err = fmt.Errorf("%s: %d messages arrived; want %d", s.Flavour, arrived, s.sent)
	}
	return took, err
}

// message is the file with what a client sends.
func (s *site) message(client int) string { return filepath.Join(s.Dir, fmt.Sprint("message", client)) }

// text is a message as Postfix sends it: with a queue id, which another client and another round do not have,
// so that lmtpd writes its journal of deliveries. One client sends it to each mailbox but once.
func (l load) text(client int) []byte {
	b := fmt.Appendf(nil, "Received: from client.example (client.example [192.0.2.1])\n\tby mail.example.net (Postfix) with ESMTPS id 4%dZ%d\n\t(envelope-from <sender@remote.example>); Sun, 22 Nov 2026 07:07:18 +0000\n"+
		"Subject: delivery\n\n", time.Now().UnixNano(), client)
	for len(b) < l.octets {
		b = append(b, "The quick brown fox jumps over the lazy dog, and does it once more for good.\n"...)
	}
	return b
}
