package main

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"dovepost/auth/guard"
	"dovepost/cmd/internal/daemon"
)

// guardSettings are the flags that concern guessing, and what a login may cost.
type guardSettings struct {
	guard           bool
	allowNets       string
	window          time.Duration
	accountNetworks int
	networkAccounts int
	workerCount     int
	workerMemory    int64
}

func (s *guardSettings) guardFlags(fs *pflag.FlagSet) {
	daemon.BoolVar(fs, &s.guard, "auth_guard", true, "let those wait who guess passwords")
	fs.StringVar(&s.allowNets, "auth_guard_allow_nets", "", "`networks` that never wait and whose failures do not count, such as a webmail's")
	daemon.DurationVar(fs, &s.window, "auth_guard_window", 30*time.Minute, "for how long failures count for the next two")
	fs.IntVar(&s.accountNetworks, "auth_guard_account_networks", 10, "on an account on which so many networks have failed, all wait that do not know it; 0: none does")
	fs.IntVar(&s.networkAccounts, "auth_guard_network_accounts", 20, "a network from which so many accounts have failed waits, and at twice as many is refused for a time; 0: none is")
	fs.IntVar(&s.workerCount, "auth_worker_max_count", 0, "password hashes computed at a time; 0: the number of processors")
	daemon.SizeVar(fs, &s.workerMemory, "auth_worker_memory", 0, "memory that they take together; 0: a quarter of the machine's")
}

// maxGuardCount is what the guard remembers of one account, and twice of one network.
const maxGuardCount = 32

// policy compiles the settings. Errors say which cannot be.
func (s *guardSettings) policy() (p guard.Policy, err error) {
	p = guard.Policy{Off: !s.guard, Window: s.window, AccountNetworks: s.accountNetworks, NetworkAccounts: s.networkAccounts}
	for name, n := range map[string]int{"auth_guard_account_networks": s.accountNetworks, "auth_guard_network_accounts": s.networkAccounts} {
		if n < 0 || n > maxGuardCount {
			return p, fmt.Errorf("%s: %d is not between 0 and %d", name, n, maxGuardCount)
		}
	}
	switch {
	case s.window <= 0 || s.window > 24*time.Hour:
		return p, fmt.Errorf("auth_guard_window: %v is not between 0 and 1d", s.window)
	case s.workerCount < 0:
		return p, fmt.Errorf("auth_worker_max_count: %d is less than 0", s.workerCount)
	case s.workerMemory < 0:
		return p, fmt.Errorf("auth_worker_memory: %d is less than 0", s.workerMemory)
	}
	if p.Allow, err = guard.ParseNets(s.allowNets); err != nil {
		return p, fmt.Errorf("auth_guard_allow_nets: %w", err)
	}
	return p, nil
}

// hashMemory is auth_worker_memory, in octets.
func (s *guardSettings) hashMemory() int64 {
	if s.workerMemory > 0 {
		return s.workerMemory
	}
	limit, _ := os.ReadFile("/sys/fs/cgroup/memory.max")
	return max(machineMemory(string(limit))/4, 64<<20)
}

// machineMemory is what the machine has, or what cgroup v2, by memory.max, lets us have.
func machineMemory(limit string) int64 {
	memory := int64(math.MaxInt64)
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) == nil {
		memory = int64(info.Totalram) * int64(info.Unit)
	}
	if n, err := strconv.ParseInt(strings.TrimSpace(limit), 10, 64); err == nil && n > 0 {
		memory = min(memory, n)
	}
	if memory == math.MaxInt64 {
		return 1 << 30
	}
	return memory
}

// newGate makes the gate of the settings, and publishes its figures.
func (a *authd) newGate() *guard.Gate {
	g := guard.NewGate(a.rules.policy, a.names, guard.NewDelay(a.failureDelay))
	g.Separator = a.separator
	a.env.Metrics.Guard(func() (waits, refused, again, delayed, records int64) {
		s := g.Stats()
		return s.Waits, s.Refused, s.Again, s.Delayed, int64(s.Networks + s.Accounts + s.Known)
	})
	return g
}
