package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"dovepost/cmd/internal/bench/rounds"
	"dovepost/lookup/socketmap"
)

// side is one side of a comparison that makes clients and lets postmap run for them:
// lookups a second.
func (b *bench) side(table string, lookups int, clients func() ([]client, error)) func() (float64, error) {
	return func() (float64, error) {
		c, err := clients()
		if err != nil {
			return 0, err
		}
		took, err := b.postmap(table, c)
		return float64(lookups) / took.Seconds(), err
	}
}

// hot asks for a hundred keys again and again, as Postfix does for a busy domain. A
// round is long, since Postfix's processes live long: their start shall not count.
func (b *bench) hot() error {
	for _, n := range []int{1, 8} {
		each := 5 * b.keys / n
		clients := func() (all []client, err error) {
			for range n {
				c, err := b.file(hotKeys(each), each)
				if err != nil {
					return nil, err
				}
				all = append(all, c)
			}
			return all, nil
		}
		lookups := each * n
		got, err := rounds.Alternate(b.rounds, b.side(b.mysql("users"), lookups, clients),
			b.side(b.remote("lookupd", "users"), lookups, clients), b.side(b.remote("echo", "users"), lookups, clients))
		if err != nil {
			return err
		}
		rounds.PerSecond(fmt.Sprintf("hot keys, %d postmap", n), got[0], got[1], 2)
		seconds("  time, against a server that does nothing", times(got[2]), times(got[1]), overNothing)
	}
	return nil
}

// overNothing is how much longer lookupd may take than a server that does nothing.
const overNothing = 1.15

// nothing asks the same over raw connections.
func (b *bench) nothing() error {
	keys := hotKeys(5 * b.keys)
	for _, n := range []int{1, 8} {
		side := func(server string) func() (float64, error) {
			return func() (float64, error) {
				took, err := b.raw(server, "users", n, keys)
				return took.Seconds() / float64(len(keys)), err
			}
		}
		got, err := rounds.Alternate(b.rounds, side("echo"), side("lookupd"))
		if err != nil {
			return err
		}
		seconds(fmt.Sprintf("hot keys, %d raw, against doing nothing", n), got[0], got[1], overNothing)
	}
	return nil
}

// cold asks for users that nobody has asked for before.
func (b *bench) cold() error {
	for _, n := range []int{1, 8} {
		target := 1.0
		if n == 1 { // the way over a second process is real
			target = 0.7
		}
		each := b.keys / 2 / n
		clients := func() (all []client, err error) {
			for range n {
				keys, err := b.newUsers(each)
				if err != nil {
					return nil, err
				}
				c, err := b.file(keys, each)
				if err != nil {
					return nil, err
				}
				all = append(all, c)
			}
			return all, nil
		}
		got, err := rounds.Alternate(b.rounds, b.side(b.mysql("users"), each*n, clients), b.side(b.remote("lookupd", "users"), each*n, clients))
		if err != nil {
			return err
		}
		rounds.PerSecond(fmt.Sprintf("keys never asked before, %d postmap", n), got[0], got[1], target)
	}
	return nil
}

// ladder asks for addresses that a catch-all has: user+ext@domain and user@domain are
// not there, @domain is. Postfix asks its own tables three times, and lookupd once.
func (b *bench) ladder() error {
	next := 0
	for _, n := range []int{1, 8} {
		each := b.keys / 4 / n
		clients := func(forms ...string) func() ([]client, error) {
			return func() (all []client, err error) {
				for range n {
					var keys []string
					for range each {
						domain := fmt.Sprintf("@dom%07d.example", next*7_368_787%b.users)
						for _, form := range forms {
							keys = append(keys, form+domain)
						}
						next++
					}
					c, err := b.file(keys, each)
					if err != nil {
						return nil, err
					}
					all = append(all, c)
				}
				return all, nil
			}
		}
		got, err := rounds.Alternate(b.rounds, b.side(b.mysql("aliases"), each*n, clients("user+ext", "user", "")),
			b.side(b.remote("lookupd", "aliases"), each*n, clients("user+ext")))
		if err != nil {
			return err
		}
		rounds.PerSecond(fmt.Sprintf("a whole ladder, %d postmap", n), got[0], got[1], 1)
	}
	return nil
}

// many lets 300 clients ask at the same time and stay, with 50 connections to be had.
func (b *bench) many() error {
	const clients, limit = 300, 50
	if err := b.db.Exec(fmt.Sprintf("SET GLOBAL max_connections = %d", limit)); err != nil {
		return err
	}
	nativeFailed, nativeSays, nativeConnections, err := b.crowd(clients, b.mysql("users"), native)
	if err != nil {
		return err
	}
	oursFailed, oursSays, connections, err := b.crowd(clients, b.remote("lookupd", "users"), ours)
	if err != nil {
		return err
	}
	rounds.Line(fmt.Sprintf("%d clients, max_connections=%d: failed", clients, limit), fmt.Sprint(nativeFailed), fmt.Sprint(oursFailed), "", "0", oursFailed == 0)
	rounds.Line("  connections", fmt.Sprint(nativeConnections), fmt.Sprint(connections), "", "<= 8", connections <= 8)
	for _, says := range []string{nativeSays, oursSays} {
		if says != "" {
			fmt.Printf("  %s\n", says)
		}
	}
	return b.db.Exec("SET GLOBAL max_connections = 200")
}

// crowd runs postmaps that ask for one user each and keep their connection until all
// have asked. It returns how many failed, what one of those said, and how
// many connections the account had.
func (b *bench) crowd(n int, table, account string) (failed int, says string, connections int, err error) {
	type postmap struct {
		*exec.Cmd
		stdin          io.WriteCloser
		stdout, stderr bytes.Buffer
	}
	keys, err := b.newUsers(n)
	if err != nil {
		return 0, "", 0, err
	}
	var all []*postmap
	for _, key := range keys {
		p := &postmap{Cmd: exec.Command("/usr/sbin/postmap", "-c", b.dir, "-q", "-", table)}
		p.Stdout, p.Stderr = &p.stdout, &p.stderr
		if p.stdin, err = p.StdinPipe(); err != nil {
			return 0, "", 0, err
		}
		if err := p.Start(); err != nil {
			return 0, "", 0, err
		}
		all = append(all, p)
		io.WriteString(p.stdin, key+"\n") // it may have failed already
	}
	time.Sleep(time.Second)
	if connections, err = b.connections(account); err != nil {
		return 0, "", 0, err
	}
	for i, p := range all {
		p.stdin.Close()
		err := p.Wait()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return 0, "", 0, err
		}
		if err != nil || !strings.HasPrefix(p.stdout.String(), keys[i]+"\t/home/") {
			failed++
			says, _, _ = strings.Cut(strings.TrimSpace(p.stderr.String()), "\n")
		}
	}
	return failed, says, connections, nil
}

// connections counts the connections of an account. There may be none left for the
// one who counts, until those who were refused have ended.
func (b *bench) connections(account string) (n int, err error) {
	for range 50 {
		var rows []string
		if rows, err = b.db.Query("SELECT COUNT(*) FROM information_schema.processlist WHERE user = '" + account + "'"); err == nil {
			return strconv.Atoi(rows[0])
		}
		time.Sleep(100 * time.Millisecond)
	}
	return 0, err
}

// size compares a table of a thousand users with one of a million, without a cache.
func (b *bench) size() error {
	d, err := b.startLookupd("uncached", "--cache_fresh=0", "--cache_stale=0")
	if err != nil {
		return err
	}
	side := func(table string, users int) func() (float64, error) {
		return func() (float64, error) {
			var keys []string
			for range b.keys / 2 {
				keys = append(keys, user(rand.IntN(users)))
			}
			took, err := b.raw("uncached", table, 1, keys)
			return took.Seconds() / float64(len(keys)), err
		}
	}
	got, err := rounds.Alternate(b.rounds, side("few", 1000), side("users", b.users))
	if err != nil {
		return err
	}
	seconds(fmt.Sprintf("1000 against %d users, time per key", b.users), got[0], got[1], 1.15)
	return d.Stop()
}

// memory is what a lookupd takes that has a thousand connections and a hundred
// thousand answers.
func (b *bench) memory() error {
	const connections, answers = 1000, 100_000
	d, err := b.startLookupd("large")
	if err != nil {
		return err
	}
	var clients []*socketmap.Client
	for range connections {
		c, err := socketmap.Dial(context.Background(), "unix", b.socket("large"))
		if err != nil {
			return err
		}
		defer c.Close()
		clients = append(clients, c)
	}
	var asking errgroup.Group
	for i, c := range clients {
		asking.Go(func() error {
			for n := i; n < min(answers, b.users); n += connections {
				if _, err := c.Lookup(context.Background(), "users", user(n)); err != nil {
					return fmt.Errorf("%s: %w", user(n), err)
				}
			}
			return nil
		})
	}
	if err := asking.Wait(); err != nil {
		return err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.PID()))
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		return err
	}
	mb := float64(kib) * 1024 / 1e6
	rounds.Line(fmt.Sprintf("memory, %d connections, %d answers", connections, answers), "", fmt.Sprintf("%.1f MB", mb), "", "< 80 MB", mb < 80)
	return d.Stop()
}
