package rules

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dovepost/policy"
	"dovepost/policy/ledger"
)

// shieldTables is a ShieldStore of several machines.
type shieldTables struct {
	now func() time.Time

	mu       sync.Mutex
	states   map[string]string
	changed  map[string]time.Time
	reasons  map[string]string
	networks map[string]map[string]time.Time
	away     bool
	loads    int
	locked   []string
	notified []string
}

func (s *shieldTables) Load(_ context.Context, login string, window time.Duration) (ShieldRecord, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return ShieldRecord{}, errors.New("away")
	}
	s.loads++
	r := ShieldRecord{State: s.states[login], Age: s.now().Sub(s.changed[login]), Networks: map[string]time.Duration{}}
	for network, at := range s.networks[login] {
		if age := s.now().Sub(at); age <= window {
			r.Networks[network] = age
		}
	}
	return r, nil
}

func (s *shieldTables) See(_ context.Context, login, network string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return errors.New("away")
	}
	if s.networks[login] == nil {
		s.networks[login] = map[string]time.Time{}
	}
	s.networks[login][network] = s.now()
	return nil
}

func (s *shieldTables) Hold(_ context.Context, login, reason string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return false, errors.New("away")
	}
	if s.states[login] == ShieldHeld || s.states[login] == ShieldExempt {
		return false, nil
	}
	s.states[login], s.reasons[login], s.changed[login] = ShieldHeld, reason, s.now()
	return true, nil
}

func (s *shieldTables) set(login, state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.states[login], s.changed[login] = state, s.now()
	if state == "" {
		delete(s.states, login)
	}
}

func (s *shieldTables) fail(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
}

// shieldSite is some machines with one store and one clock.
type shieldSite struct {
	*testing.T
	mu     sync.Mutex
	clock  time.Time
	tables *shieldTables
	log    bytes.Buffer
	nodes  []*Shield
	serial int
}

func (s *shieldSite) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clock
}

func (s *shieldSite) pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock = s.clock.Add(d)
}

func newShieldSite(t *testing.T, n int) *shieldSite {
	s := &shieldSite{T: t, clock: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	s.tables = &shieldTables{now: s.now, states: map[string]string{}, changed: map[string]time.Time{}, reasons: map[string]string{}, networks: map[string]map[string]time.Time{}}
	counts := ledger.New(nil)
	counts.Now = s.now
	log := slog.New(slog.NewTextHandler(&s.log, nil))
	for range n {
		limits := DefaultShieldLimits
		limits.Networks, limits.Regions, limits.Bounces = 5, 3, 30
		node := &Shield{
			Store: s.tables, Counts: counts, Limits: limits, Delimiter: "+", Action: policy.Action{Word: "HOLD"}, Now: s.now,
			Log: log,
			Lock: func(_ context.Context, login string) error {
				s.tables.mu.Lock()
				defer s.tables.mu.Unlock()
				s.tables.locked = append(s.tables.locked, login)
				return nil
			},
			Notify: func(_ context.Context, subject, _ string) error {
				s.tables.mu.Lock()
				defer s.tables.mu.Unlock()
				s.tables.notified = append(s.tables.notified, subject)
				return nil
			},
		}
		node.Start()
		t.Cleanup(func() { node.Close() })
		s.nodes = append(s.nodes, node)
	}
	return s
}

// settle waits until nothing is left to be done.
func (s *shieldSite) settle() {
	for _, node := range s.nodes {
		for range 3 { // what is done may find more
			done := make(chan struct{})
			node.later(func(context.Context) error { close(done); return nil })
			<-done
		}
	}
}

// mail is a message of so many recipients, some of which are refused behind the rule.
func (s *shieldSite) mail(node *Shield, login, client string, recipients, refused int) string {
	s.Helper()
	s.serial++
	q := policy.Request{State: "RCPT", Instance: fmt.Sprint(s.serial), SASLUsername: login, Sender: login, ClientAddress: netip.MustParseAddr(client)}
	for i := range recipients {
		if i > refused {
			q.QueueID = "Q"
		}
		s.decide(node, q)
	}
	if refused == recipients {
		return ""
	}
	q.QueueID, q.RecipientCount = "Q", recipients-refused
	q.State = "DATA"
	s.decide(node, q)
	q.State = "END-OF-MESSAGE"
	got := s.decide(node, q)
	s.settle()
	return got
}

func (s *shieldSite) decide(node *Shield, q policy.Request) string {
	s.Helper()
	got, err := node.Decide(s.Context(), &q)
	if err != nil {
		return "error " + got.String()
	}
	return got.String()
}

func TestShieldHoldsWhoSendsFromManyNetworks(t *testing.T) {
	for _, tt := range []struct {
		name    string
		address func(i int) string
		held    int // after so many
		reason  string
	}{
		{"one address", func(int) string { return "192.0.2.1" }, 0, ""},
		{"one network", func(i int) string { return fmt.Sprintf("192.0.2.%d", i) }, 0, ""},
		{"one IPv6 network", func(i int) string { return fmt.Sprintf("2001:db8::%x", i) }, 0, ""},
		{"this machine", func(i int) string { return fmt.Sprintf("127.0.%d.1", i) }, 0, ""},
		{"many networks", func(i int) string { return fmt.Sprintf("198.18.%d.1", i) }, 6, "sends from 6 networks of /24 or /64 within 1h0m0s"},
		{"many IPv6 networks", func(i int) string { return fmt.Sprintf("2001:db8:0:%x::1", i) }, 6, "sends from 6 networks of /24 or /64 within 1h0m0s"},
		{"mapped addresses", func(i int) string { return fmt.Sprintf("::ffff:198.18.%d.1", i) }, 6, "sends from 6 networks of /24 or /64 within 1h0m0s"},
		{"many regions", func(i int) string { return fmt.Sprintf("198.%d.2.1", i) }, 4, "sends from 4 networks of /16 or /32 within 1h0m0s"},
	} {
		s := newShieldSite(t, 2)
		for i := range 12 {
			want := "DUNNO"
			if tt.held > 0 && i+1 >= tt.held {
				want = "HOLD"
			}
			s.pass(6 * time.Second) // so each machine reads what the other has seen
			if got := s.mail(s.nodes[i%2], "Joe@example.com", tt.address(i), 1, 0); got != want {
				t.Errorf("it handles %s: message %d has %s, want %s", tt.name, i, got, want)
			}
		}
		if got := s.tables.reasons["joe@example.com"]; got != tt.reason {
			t.Errorf("it handles %s: reason %q, want %q", tt.name, got, tt.reason)
		}
		want := 0
		if tt.held > 0 {
			want = 1
		}
		if len(s.tables.locked) != want || len(s.tables.notified) != want || strings.Count(s.log.String(), "put on hold") != want {
			t.Errorf("it handles %s: locked %v, notified %v\n%s", tt.name, s.tables.locked, s.tables.notified, s.log.String())
		}
	}
}

func TestShieldForgetsAfterTheWindow(t *testing.T) {
	s := newShieldSite(t, 1)
	for i := range 60 {
		s.pass(13 * time.Minute)
		if got := s.mail(s.nodes[0], "joe", fmt.Sprintf("198.18.%d.1", i), 1, 0); got != "DUNNO" {
			t.Fatalf("message %d: %s", i, got)
		}
	}
}

func TestShieldReleases(t *testing.T) {
	for _, how := range []string{ShieldReleased, ShieldExempt, "delete"} {
		s := newShieldSite(t, 2)
		a, b := s.nodes[0], s.nodes[1]
		for i := range 6 {
			s.mail(a, "joe", fmt.Sprintf("198.18.%d.1", i), 1, 0)
		}
		s.pass(6 * time.Second)
		for _, node := range s.nodes {
			if got := s.mail(node, "joe", "198.18.1.1", 1, 0); got != "HOLD" {
				t.Errorf("%s: %s before", how, got)
			}
		}
		s.pass(time.Minute)
		s.tables.set("joe", strings.TrimPrefix(how, "delete"))
		s.pass(6 * time.Second)
		for _, node := range s.nodes {
			if got := s.mail(node, "joe", "198.18.1.1", 1, 0); got != "DUNNO" {
				t.Errorf("%s: %s after", how, got)
			}
		}
		want := "HOLD"
		if how == ShieldExempt {
			want = "DUNNO"
		}
		var got string
		s.pass(time.Second)
		for i := range 6 {
			got = s.mail(b, "joe", fmt.Sprintf("198.19.%d.1", i), 1, 0)
		}
		if got != want {
			t.Errorf("%s: %s when it begins again, want %s", how, got, want)
		}
	}
}

func TestShieldWithoutItsStore(t *testing.T) { synctest.Test(t, withoutItsStore) }

func withoutItsStore(t *testing.T) {
	s := newShieldSite(t, 1)
	node := s.nodes[0]
	s.mail(node, "joe", "198.18.0.1", 1, 0)
	s.tables.set("jim", ShieldHeld)
	s.mail(node, "jim", "198.18.0.1", 1, 0)
	s.tables.fail(true)
	s.pass(time.Minute)
	if got := s.mail(node, "jim", "198.18.0.1", 1, 0); got != "HOLD" {
		t.Errorf("an account that is known to be held: %s", got)
	}
	if got := s.mail(node, "jane", "198.18.0.1", 1, 0); got != "error DUNNO" {
		t.Errorf("an account that is not known: %s", got)
	}
	var got string
	for i := range 6 {
		got = s.mail(node, "joe", fmt.Sprintf("198.18.%d.1", i), 1, 0)
	}
	if got != "HOLD" || s.tables.states["joe"] != "" {
		t.Errorf("an account that goes wrong meanwhile: %s, %q", got, s.tables.states["joe"])
	}
	s.tables.fail(false)
	s.pass(time.Minute)
	if got := s.mail(node, "joe", "198.18.0.1", 1, 0); got != "HOLD" {
		t.Errorf("when the store is back, and does not know yet: %s", got)
	}
	time.Sleep(shieldRetry) // of the bubble
	synctest.Wait()
	if got := s.tables.states["joe"]; got != ShieldHeld {
		t.Errorf("the store is not told: %q", got)
	}
}

func TestShieldCountsRefusedRecipients(t *testing.T) {
	s := newShieldSite(t, 1)
	node := s.nodes[0]
	for range 10 {
		s.mail(node, "joe", "192.0.2.1", 5, 1)
	}
	s.mail(node, "joe", "192.0.2.1", 3, 3) // of these the last is not known
	if got := node.Counts.Sum(t.Context(), "joe", time.Hour); got != (ledger.Counts{52, 12, 0}) {
		t.Errorf("%v counted, want 52 tried, 12 refused", got)
	}
	var got string
	for range 10 {
		got = s.mail(node, "joe", "192.0.2.1", 5, 3)
	}
	if got != "HOLD" || !strings.Contains(s.tables.reasons["joe"], "recipients were refused for") {
		t.Errorf("%s, %q", got, s.tables.reasons["joe"])
	}
	for range 20 {
		got = s.mail(node, "jim", "192.0.2.1", 10, 2)
	}
	if got != "DUNNO" {
		t.Errorf("a fifth refused: %s", got)
	}
	for range 24 { // somebody whose lists are old, all day long
		s.tables.set("list", ShieldExempt)
		s.mail(node, "list", "192.0.2.1", 20, 8)
		s.pass(time.Hour - time.Second)
	}
	s.tables.set("list", ShieldReleased)
	s.pass(time.Hour + time.Minute + time.Second)
	for range 10 {
		got = s.mail(node, "list", "192.0.2.1", 20, 9)
	}
	if got != "DUNNO" {
		t.Errorf("no more than the day before: %s", got)
	}
}

// With an smtpd_proxy_filter there is no queue file, so there is never a queue_id.
func TestShieldBeforeAProxyFilter(t *testing.T) {
	s := newShieldSite(t, 1)
	node := s.nodes[0]
	q := policy.Request{SASLUsername: "joe", ClientAddress: netip.MustParseAddr("192.0.2.1"), ServerPort: 465, QueueID: "Q", State: "RCPT"}
	s.decide(node, q) // another service of the same server has queue files
	q.ServerPort, q.QueueID = 587, ""
	for i := range 10 {
		q.Instance, q.RecipientCount = fmt.Sprint("proxied", i), 0
		for range 10 {
			q.State = "RCPT"
			if got := s.decide(node, q); got != "DUNNO" {
				t.Fatalf("message %d: %s", i, got)
			}
		}
		for _, q.State = range []string{"DATA", "END-OF-MESSAGE"} {
			q.RecipientCount = 10 - i/5
			if got := s.decide(node, q); got != "DUNNO" {
				t.Fatalf("message %d: %s", i, got)
			}
		}
	}
	if got := node.Counts.Sum(t.Context(), "joe", time.Hour); got != (ledger.Counts{100, 5, 0}) {
		t.Errorf("%v counted, want 100 tried, 5 refused", got)
	}
}

// Everybody's mail is refused behind policyd, which is no reason to hold everybody's mail.
func TestShieldDoesNotHoldAWholeSite(t *testing.T) {
	s := newShieldSite(t, 1)
	node := s.nodes[0]
	node.Holds = NewShieldHolds(3)
	held := func(hour string) (n int) {
		for i := range 12 {
			login := fmt.Sprint(hour, i, "@example.com")
			for range 5 {
				s.mail(node, login, "198.18.0.1", 10, 9)
			}
			if s.mail(node, login, "198.18.0.1", 1, 0) == "HOLD" {
				n++
			}
		}
		return n
	}
	count := func(text string) (n int) {
		s.tables.mu.Lock()
		defer s.tables.mu.Unlock()
		for _, subject := range s.tables.notified {
			if strings.HasPrefix(subject, text) {
				n++
			}
		}
		return n
	}
	for i, hour := range []string{"first", "second"} {
		if got := held(hour); got != 3 {
			t.Errorf("%d accounts are held in the %s hour, want 3", got, hour)
		}
		if got, lines := len(s.tables.locked), strings.Count(s.log.String(), "account not put on hold"); got != 3*(i+1) || lines != 9*(i+1) {
			t.Errorf("after the %s hour %d accounts are locked, and %d lines tell of others; want %d and %d", hour, got, lines, 3*(i+1), 9*(i+1))
		}
		if each, once := count("account put on hold"), count("no more accounts"); each != 3*(i+1) || once != i+1 {
			t.Errorf("after the %s hour %d and %d messages; want %d and %d", hour, each, once, 3*(i+1), i+1)
		}
		s.pass(time.Hour)
	}
	node.Holds = NewShieldHolds(0)
	if got := held("third"); got != 12 {
		t.Errorf("%d accounts are held without a bound, want 12", got)
	}
}

func TestShieldIsBounded(t *testing.T) {
	s := newShieldSite(t, 1)
	node := s.nodes[0]
	node.Limits.Networks, node.Limits.Regions = 0, 0
	for i := range 1000 {
		s.decide(node, policy.Request{State: "RCPT", SASLUsername: "joe", ClientAddress: netip.AddrFrom4([4]byte{byte(i >> 8), byte(i), 1, 1})})
	}
	if n := len(node.account("joe").networks); n > shieldNetworks {
		t.Errorf("%d networks", n)
	}
	for i := range 3 * shieldAccounts {
		s.decide(node, policy.Request{State: "MAIL", SASLUsername: fmt.Sprint(i)})
	}
	if n := node.accounts.len(); n > 2*shieldAccounts {
		t.Errorf("%d accounts", n)
	}
}

func TestShieldAtOnce(t *testing.T) {
	s := newShieldSite(t, 2)
	var wait sync.WaitGroup
	for i := range 200 {
		wait.Go(func() {
			q := policy.Request{State: "END-OF-MESSAGE", Instance: fmt.Sprint(i), RecipientCount: 1, SASLUsername: fmt.Sprint("joe", i%4), ClientAddress: netip.AddrFrom4([4]byte{198, 18, byte(i), 1})}
			if _, err := s.nodes[i%2].Decide(t.Context(), &q); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	s.settle()
	if len(s.tables.notified) != 4 {
		t.Errorf("notified %v, want each of four once", s.tables.notified)
	}
}

func TestCountries(t *testing.T) {
	c, err := ReadCountries(strings.NewReader("# net country\n192.0.2.0/24 DE\n192.0.2.128/25,fr\n2001:db8::/32\tJP # test\n\n198.51.100.0/24 AT\n"))
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{"192.0.2.1": "DE", "192.0.2.200": "FR", "::ffff:192.0.2.200": "FR", "2001:db8:1::1": "JP", "198.51.100.7": "AT", "198.51.101.8": "", "::1": ""} {
		if got := c.Of(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s is in %q, want %q", address, got, want)
		}
	}
	for _, in := range []string{"192.0.2.0/24\n", "x DE\n", "192.0.2.1/24 DE\n", "192.0.2.0/24 DE FR\n"} {
		if _, err := ReadCountries(strings.NewReader(in)); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%q: %v", in, err)
		}
	}
	s := newShieldSite(t, 1)
	s.nodes[0].Limits.Countries = 2
	s.nodes[0].Countries = c.Of
	for _, tt := range []struct{ address, want string }{
		{"192.0.2.1", "DUNNO"}, {"203.0.113.1", "DUNNO"}, {"2001:db8::1", "DUNNO"}, {"198.51.100.7", "HOLD"},
	} {
		if got := s.mail(s.nodes[0], "joe", tt.address, 1, 0); got != tt.want {
			t.Errorf("from %s: %s, want %s", tt.address, got, tt.want)
		}
	}
}
