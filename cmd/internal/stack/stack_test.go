package stack

import (
	"strings"
	"testing"
	"time"
)

// TestNative boots the flavour that needs nothing of ours.
func TestNative(t *testing.T) {
	s, err := Start(Options{
		Flavour: Native,
		Domains: []string{"example.net"},
		Users:   []User{{"alice@example.net", "secret", 1024}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop() })
	out, err := s.Doveadm("user", "*")
	if err != nil || strings.TrimSpace(out) != "alice@example.net" {
		t.Errorf("doveadm user: %q, %v", out, err)
	}
	if out, err := s.Doveadm("auth", "test", "alice@example.net", "secret"); err != nil {
		t.Errorf("doveadm auth test: %q, %v", out, err)
	}
	got, err := s.Postmap("virtual_mailbox_maps", "alice@example.net")
	if err != nil || got != "1" {
		t.Errorf("postmap: %q, %v", got, err)
	}
	if _, err := s.Postmap("virtual_mailbox_maps", "bob@example.net"); err != ErrNoKey {
		t.Errorf("postmap: %v, want ErrNoKey", err)
	}
	if err := s.WaitQueue(time.Minute); err != nil {
		t.Error(err)
	}
	usage, err := s.CPU()
	if err != nil || usage.Total() <= 0 {
		t.Errorf("CPU: %v, %v", usage, err)
	}
}
