package main

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestGuardSettings(t *testing.T) {
	tests := []struct {
		name string
		args []string
		err  string // empty: they are good
	}{
		{"the defaults", nil, ""},
		{"the guard switched off", []string{"--auth_guard=no"}, ""},
		{"a webmail's addresses", []string{"--auth_guard_allow_nets=192.0.2.1, 2001:db8::/32"}, ""},
		{"counts switched off", []string{"--auth_guard_account_networks=0", "--auth_guard_network_accounts=0"}, ""},
		{"no network", []string{"--auth_guard_allow_nets=webmail"}, "auth_guard_allow_nets"},
		{"a count that is not kept", []string{"--auth_guard_network_accounts=33"}, "auth_guard_network_accounts"},
		{"less than none", []string{"--auth_guard_account_networks=-1"}, "auth_guard_account_networks"},
		{"no window", []string{"--auth_guard_window=0s"}, "auth_guard_window"},
		{"a week", []string{"--auth_guard_window=7d"}, "auth_guard_window"},
		{"less than no worker", []string{"--auth_worker_max_count=-1"}, "auth_worker_max_count"},
	}
	for _, tt := range tests {
		var s guardSettings
		fs := pflag.NewFlagSet("authd", pflag.ContinueOnError)
		s.guardFlags(fs)
		if err := fs.Parse(tt.args); err != nil {
			t.Errorf("it handles %s: %v", tt.name, err)
			continue
		}
		_, err := s.policy()
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("it handles %s: %v, want %q", tt.name, err, tt.err)
		}
	}
}

func TestMachineMemory(t *testing.T) {
	machine := machineMemory("max\n")
	if machine < 64<<20 {
		t.Errorf("the machine has %d octets", machine)
	}
	if got := machineMemory("67108864\n"); got != 64<<20 {
		t.Errorf("a cgroup of 64 MiB: %d", got)
	}
	s := guardSettings{workerMemory: 1 << 20}
	if got := s.hashMemory(); got != 1<<20 {
		t.Errorf("auth_worker_memory = 1M: %d", got)
	}
}
