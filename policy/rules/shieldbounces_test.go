package rules

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"dovepost/policy"
)

func TestShieldCountsBounces(t *testing.T) {
	s := newShieldSite(t, 1)
	node := s.nodes[0]
	bounce := func(state, recipient string) {
		s.decide(node, policy.Request{State: state, Recipient: recipient, RecipientCount: 1, ClientAddress: netip.MustParseAddr("203.0.113.1")})
		s.settle()
	}
	for range 40 {
		s.mail(node, "joe@example.com", "192.0.2.1", 2, 0)
		s.mail(node, "jim@example.com", "192.0.2.1", 1, 0)
	}
	for i := range 100 {
		bounce("END-OF-MESSAGE", fmt.Sprintf("nobody%d@example.com", i))
		bounce("RCPT", "joe@example.com") // callouts
	}
	if node.Counts.Len() != 2 || node.accounts.len() != 2 {
		t.Errorf("%d accounts, %d in memory: one is counted that does not send", node.Counts.Len(), node.accounts.len())
	}
	for i := range 31 {
		if s.tables.states["joe@example.com"] != "" {
			t.Fatalf("held after %d", i)
		}
		bounce("END-OF-MESSAGE", "Joe+list@Example.COM")
	}
	if got := s.tables.reasons["joe@example.com"]; got != "31 bounces came for 80 within 1h0m0s" {
		t.Errorf("%q", got)
	}
	if got := s.mail(node, "joe@example.com", "192.0.2.1", 1, 0); got != "HOLD" {
		t.Error(got)
	}
	if len(s.tables.locked) > 0 {
		t.Errorf("locked %v for what anybody can send", s.tables.locked)
	}
}

// A spammer has forged an address, and its owner gets all the bounces.
func TestShieldDoesNotHoldWhomSomebodyForges(t *testing.T) {
	if DefaultShieldLimits.Bounces != 0 {
		t.Error("bounces, which anybody can send, count by default")
	}
	s := newShieldSite(t, 1)
	node := s.nodes[0]
	for i := range 500 {
		q := policy.Request{State: "END-OF-MESSAGE", Recipient: "joe@example.com", RecipientCount: 1, ClientAddress: netip.MustParseAddr("203.0.113.1")}
		s.decide(node, q)
		s.settle()
		if i%50 == 0 {
			if got := s.mail(node, "joe@example.com", "192.0.2.1", 1, 0); got != "DUNNO" {
				t.Fatalf("after %d bounces: %s", i, got)
			}
		}
	}
	if reason := s.tables.reasons["joe@example.com"]; reason != "" {
		t.Errorf("held: %s", reason)
	}
}

// Strangers fill the queue with bounces, so that it forgets whom it has to hold.
func TestShieldHoldsDuringAFloodOfBounces(t *testing.T) {
	s := newShieldSite(t, 1)
	node := s.nodes[0]
	block := make(chan struct{})
	node.later(func(context.Context) error { <-block; return nil })
	for i := range 2 * shieldQueue {
		s.decide(node, policy.Request{State: "END-OF-MESSAGE", Recipient: fmt.Sprintf("x%d@example.com", i), RecipientCount: 1})
	}
	for i := range 6 {
		q := policy.Request{State: "RCPT", Instance: "1", SASLUsername: "joe", ClientAddress: netip.AddrFrom4([4]byte{198, 18, byte(i), 1})}
		s.decide(node, q)
	}
	close(block)
	s.settle()
	if got := s.tables.states["joe"]; got != ShieldHeld {
		t.Errorf("the store has %q, want held", got)
	}
	if strings.Contains(s.log.String(), "left out") {
		t.Error(s.log.String())
	}
}

// The database is away when policyd starts, so nobody knows yet who is exempt.
func TestShieldLeavesAloneWhoIsExempt(t *testing.T) {
	s := newShieldSite(t, 1)
	node := s.nodes[0]
	s.tables.set("list", ShieldExempt)
	s.tables.fail(true)
	for i := range 8 {
		if got := s.mail(node, "list", fmt.Sprintf("198.18.%d.1", i), 1, 0); got != "error DUNNO" {
			t.Errorf("message %d, with the store away: %s", i, got)
		}
	}
	s.tables.fail(false)
	for i := range 8 {
		if got := s.mail(node, "list", fmt.Sprintf("198.18.%d.1", i), 1, 0); got != "DUNNO" {
			t.Errorf("message %d: %s", i, got)
		}
	}
	node.hold("list", "a race with the administrator", true)
	s.settle()
	if s.tables.states["list"] != ShieldExempt || len(s.tables.locked) > 0 || len(s.tables.notified) > 0 {
		t.Errorf("%q, locked %v, notified %v", s.tables.states["list"], s.tables.locked, s.tables.notified)
	}
}
