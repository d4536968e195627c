package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"dovepost/cmd/internal/bench/rounds"
	"dovepost/cmd/internal/stack"
)

const (
	clients     = 32 // of auth-client and auth-userdb, at a time
	imapClients = 8
	manyTimes   = 20 // how often authd is asked where Dovecot is asked once: it is done too soon to be measured
)

// sides runs both sides. A round of each has the same number.
func (b *bench) sides(native, ours func(round int) (float64, error)) ([][]float64, error) {
	counted := func(f func(int) (float64, error)) func() (float64, error) {
		round := -1
		return func() (float64, error) {
			round++
			return f(round)
		}
	}
	return rounds.Alternate(b.rounds, counted(native), counted(ours))
}

// logins returns the logins of n people, from the first one on.
func logins(first, n int) (questions []string) {
	for i := range n {
		questions = append(questions, login(person(first+i)))
	}
	return questions
}

func repeat(questions []string, times int) (all []string) {
	for range times {
		all = append(all, questions...)
	}
	return all
}

// fresh has people log in who have not been seen before, each with a password and a
// hash of its own.
func (b *bench) fresh() error {
	first := b.people
	b.people += b.rounds * b.logins
	side := func(s *stack.Stack) func(int) (float64, error) {
		return func(round int) (float64, error) {
			return rate(socket(s, "auth-client"), clientHello, clients, logins(first+round*b.logins, b.logins), "OK")
		}
	}
	got, err := b.sides(side(b.native), side(b.ours))
	if err != nil {
		return err
	}
	rounds.PerSecond("SHA512-CRYPT logins, never seen", got[0], got[1], 1)
	return nil
}

// again has the same people log in again and again.
func (b *bench) again() error {
	got, err := b.sides(b.loginsAgain(b.native, 1), b.loginsAgain(b.ours, manyTimes))
	if err != nil {
		return err
	}
	rounds.PerSecond("the same people again", got[0], got[1], 20)
	return nil
}

// loginsAgain is a side of again. What is said once before is not measured.
func (b *bench) loginsAgain(s *stack.Stack, times int) func(int) (float64, error) {
	return func(int) (float64, error) {
		questions := logins(0, b.logins)
		if times > 1 {
			if _, err := rate(socket(s, "auth-client"), clientHello, clients, questions, "OK"); err != nil {
				return 0, err
			}
		}
		return rate(socket(s, "auth-client"), clientHello, clients, repeat(questions, times), "OK")
	}
}

// cached is again with Dovecot's own cache on, which saves it the query but not the hash.
func (b *bench) cached() error {
	conf, err := os.OpenFile(filepath.Join(b.native.Dir, "dovecot/dovecot.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer conf.Close()
	if _, err := conf.WriteString("auth_cache_size = 10M\nauth_cache_ttl = 1 hour\n"); err != nil {
		return err
	}
	if err := b.native.StopDovecot(); err != nil {
		return err
	}
	if err := b.native.StartDovecot(); err != nil {
		return err
	}
	if _, err := b.loginsAgain(b.native, 1)(0); err != nil { // fills the cache
		return err
	}
	got, err := b.sides(b.loginsAgain(b.native, 1), b.loginsAgain(b.ours, manyTimes))
	if err != nil {
		return err
	}
	rounds.PerSecond("  Dovecot with auth_cache_size = 10M", got[0], got[1], 20)
	return nil
}

// lookups asks auth-userdb: as lmtp does when mail comes in, mostly for the same users,
// and for users that nobody has asked for before.
func (b *bench) lookups() error {
	n := 5 * b.logins
	boxes := func(first, n int) (questions []string) {
		for i := range n {
			questions = append(questions, lookup(box(first+i)))
		}
		return questions
	}
	first := b.boxes
	b.boxes += b.rounds*n + b.logins
	hot := func(s *stack.Stack) func(int) (float64, error) {
		return func(int) (float64, error) {
			return rate(socket(s, "auth-userdb"), masterHello, clients, repeat(boxes(first+b.rounds*n, n/10), 10), "USER")
		}
	}
	cold := func(s *stack.Stack) func(int) (float64, error) {
		return func(round int) (float64, error) {
			return rate(socket(s, "auth-userdb"), masterHello, clients, boxes(first+round*n, n), "USER")
		}
	}
	got, err := b.sides(hot(b.native), hot(b.ours))
	if err != nil {
		return err
	}
	rounds.PerSecond("userdb lookups, busy users", got[0], got[1], 3)
	if got, err = b.sides(cold(b.native), cold(b.ours)); err != nil {
		return err
	}
	rounds.PerSecond("userdb lookups, users never seen", got[0], got[1], 1)
	return nil
}

// imap logs in through imap-login, with a process for each login as Dovecot has it by
// default: people who have not been seen before, and then the same people again, as
// phones and webmails do all day. What all processes of a side took for it swings less than the rate.
func (b *bench) imap() error {
	n := b.logins / 4
	first := b.people
	b.people += b.rounds * n
	for _, people := range []struct {
		which string
		each  int // how many others come in each round
	}{{"never seen", n}, {"the same people again", 0}} {
		side := func(s *stack.Stack, cost *[]float64) func(int) (float64, error) {
			return func(round int) (rate float64, err error) {
				took, err := processorTime(s, func() (err error) {
					rate, err = imapLogins(s.IMAPAddr, imapClients, first+round*people.each, n)
					return err
				})
				*cost = append(*cost, took.Seconds()*1000/float64(n))
				return rate, err
			}
		}
		var native, ours []float64
		got, err := b.sides(side(b.native, &native), side(b.ours, &ours))
		if err != nil {
			return err
		}
		rounds.PerSecond("IMAP logins, "+people.which, got[0], got[1], 1)
		ratio := rounds.Ratio(native, ours)
		rounds.Line("  processor time of each", fmt.Sprintf("%.2f ms", rounds.Median(native)), fmt.Sprintf("%.2f ms", rounds.Median(ours)),
			fmt.Sprintf("%.2f", ratio), "<= 1.00", ratio <= 1)
	}
	return nil
}

// processorTime is what the processes of a side take while f runs.
func processorTime(s *stack.Stack, f func() error) (time.Duration, error) {
	before, err := s.CPU()
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	after, err := s.CPU()
	return after.Sub(before).Total(), err
}

// memory is what the two take with a thousand clients that have logged in once.
func (b *bench) memory() error {
	const connections = 1000
	var mb [2]float64
	for side, s := range []*stack.Stack{b.native, b.ours} {
		for i := range connections {
			c, err := dial(socket(s, "auth-client"), clientHello, 200_000+i)
			if err != nil {
				return fmt.Errorf("client %d: %w", i, err)
			}
			defer c.Close()
			if answer, err := c.ask(login(person(0))); err != nil || !bytes.HasPrefix(answer, []byte("OK\t")) {
				return fmt.Errorf("client %d: %q, %v", i, answer, err)
			}
		}
		pids, err := authProcesses(s, b.bin)
		if err != nil {
			return err
		}
		for _, pid := range pids {
			kib, err := proportional(pid)
			if err != nil {
				return err
			}
			mb[side] += float64(kib) * 1024 / 1e6
		}
	}
	rounds.Line(fmt.Sprintf("memory, %d connections", connections), fmt.Sprintf("%.1f MB", mb[0]), fmt.Sprintf("%.1f MB", mb[1]), "", "< 80 MB", mb[1] < 80)
	return nil
}

// authProcesses returns the processes that do the work of one side: authd, or auth
// with its workers.
func authProcesses(s *stack.Stack, bin string) (pids []int, err error) {
	if s.Flavour == stack.Native {
		out, err := s.Doveadm("process", "status")
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) > 1 && (f[0] == "auth" || f[0] == "auth-worker") {
				pid, err := strconv.Atoi(f[1])
				if err != nil {
					return nil, err
				}
				pids = append(pids, pid)
			}
		}
		return pids, err
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if exe, err := os.Readlink(dir + "/exe"); err == nil && exe == filepath.Join(bin, "authd") {
			pid, err := strconv.Atoi(filepath.Base(dir))
			if err != nil {
				return nil, err
			}
			pids = append(pids, pid)
		}
	}
	return pids, err
}

// proportional returns a process's memory in KiB; what it shares with n others
// counts 1/n.
func proportional(pid int) (kib int, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "\nPss:")
	if f := strings.Fields(rest); len(f) > 0 {
		return strconv.Atoi(f[0])
	}
	return 0, fmt.Errorf("process %d: no Pss", pid)
}
