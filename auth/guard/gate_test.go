package guard

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dovepost/auth"
)

// onePlain is a mechanism whose only message is the password.
type onePlain struct{}

func (onePlain) Name() string    { return "PLAIN" }
func (onePlain) Flags() []string { return nil }
func (onePlain) Start(r *auth.Request, v auth.Verifier) auth.Exchange {
	return onePlainExchange{r, v}
}

type onePlainExchange struct {
	r *auth.Request
	v auth.Verifier
}

func (x onePlainExchange) Next(ctx context.Context, response []byte) ([]byte, *auth.Credentials, error) {
	if string(response) == "malformed" {
		return nil, nil, auth.ErrMalformed
	}
	row, err := x.v.VerifyPlain(ctx, x.r, response)
	return nil, row, err
}

// site knows every user but "nobody"; the password of all is "right".
type site struct {
	mu    sync.Mutex
	asked int
	slow  time.Duration // for a comparison
}

func (s *site) VerifyPlain(_ context.Context, r *auth.Request, password []byte) (*auth.Credentials, error) {
	s.mu.Lock()
	s.asked++
	s.mu.Unlock()
	time.Sleep(s.slow)
	switch {
	case string(password) == "away":
		return nil, context.DeadlineExceeded
	case r.Login == "nodelay":
		return nil, &auth.Refusal{Err: auth.ErrPasswordMismatch, NoDelay: true}
	case r.Login == "nobody":
		return nil, auth.ErrUnknownUser
	case string(password) != "right":
		return nil, auth.ErrPasswordMismatch
	}
	return &auth.Credentials{User: r.Login}, nil
}

func (s *site) LookupCredentials(context.Context, *auth.Request, string) (*auth.Credentials, error) {
	return nil, auth.ErrUnknownUser
}

// yard is a gate with a site behind it.
type yard struct {
	*Gate
	site
	mech auth.Mechanism
}

func newYard(p Policy) *yard {
	y := &yard{Gate: NewGate(p, nil, NewDelay(2*time.Second))}
	y.mech = y.Mechanisms([]auth.Mechanism{onePlain{}})[0]
	return y
}

// usual are the defaults, but for round figures.
var usual = Policy{Window: 30 * time.Minute, AccountNetworks: 10, NetworkAccounts: 20}

// try is one attempt; took leaves out auth_failure_delay and its grid.
func (y *yard) try(t testing.TB, user, password, ip string, change ...func(*auth.Request)) (result string, took time.Duration) {
	r := &auth.Request{Login: user, Service: "imap", Mech: "PLAIN"}
	if ip != "" {
		r.RemoteIP = netip.MustParseAddr(ip)
	}
	for _, f := range change {
		f(r)
	}
	start := time.Now()
	_, row, err := y.mech.Start(r, &y.site).Next(t.Context(), []byte(password))
	took = time.Since(start)
	switch {
	case row != nil:
		return "ok", took
	case !auth.Refused(err):
		return "later", took
	}
	if took >= y.delay.Failure {
		took -= y.delay.Failure
	}
	return "no", took
}

func smtp(r *auth.Request)       { r.Service = "smtp" }
func submission(r *auth.Request) { r.Service, r.MTA = "submission", true }
func noPenalty(r *auth.Request)  { r.NoPenalty = true }

const grid = flushInterval + shuffle

// Many networks try one account. Whoever is known there notices nothing; others are
// late, and not refused; it ends by itself.
func TestDistributed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(usual)
		y.delay.Failure = 0
		if got, took := y.try(t, "victim", "right", "198.51.100.7"); got != "ok" || took != 0 {
			t.Fatalf("before: %s after %v", got, took)
		}
		for i := range 60 {
			want := min(penaltyWait(1+max(i-usual.AccountNetworks, -1)), penaltyMost)
			if got, took := y.try(t, "victim", fmt.Sprint(i), fmt.Sprintf("203.0.%d.1", i)); got != "no" || took < want || took > want+grid {
				t.Fatalf("attacker %d: %s after %v, want %v", i, got, took, want)
			}
		}
		for _, tt := range []struct {
			name, user, ip string
			change         []func(*auth.Request)
			wait           time.Duration
		}{
			{"the victim where he was before", "victim", "198.51.100.7", nil, 0},
			{"the victim elsewhere", "victim", "198.51.100.8", nil, penaltyMost},
			{"the victim elsewhere, from where he is known now", "victim", "198.51.100.8", nil, 0},
			{"the victim elsewhere, sending mail", "victim", "198.51.100.9", []func(*auth.Request){smtp}, maxMTAWait},
			{"the victim elsewhere, by Postfix under another name", "victim", "198.51.100.10", []func(*auth.Request){submission}, maxMTAWait},
			{"the victim at an address that attacked others too", "victim", "203.0.1.1", nil, penaltyMost},
			{"somebody else", "other", "198.51.100.7", nil, 0},
		} {
			if got, took := y.try(t, tt.user, "right", tt.ip, tt.change...); got != "ok" || took != tt.wait {
				t.Errorf("it handles %s: %s after %v, want ok after %v", tt.name, got, took, tt.wait)
			}
		}
		time.Sleep(usual.Window)
		if got, took := y.try(t, "victim", "right", "192.0.2.1"); got != "ok" || took != 0 {
			t.Errorf("afterwards: %s after %v", got, took)
		}
	})
}

// Whoever guesses at a master user is counted at him, as whomever he logs in.
func TestMasterGuesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(usual)
		y.Separator = "*"
		for i := range usual.AccountNetworks {
			y.try(t, fmt.Sprintf("user%d*admin", i), fmt.Sprint(i), fmt.Sprintf("203.0.%d.1", i))
		}
		for _, tt := range []struct {
			user string
			wait time.Duration
		}{{"other*admin", 4 * time.Second}, {"admin", 4 * time.Second}, {"user1", 0}} {
			if got, took := y.try(t, tt.user, "right", "198.51.100.1"); got != "ok" || took != tt.wait {
				t.Errorf("it handles %s: %s after %v, want ok after %v", tt.user, got, took, tt.wait)
			}
			time.Sleep(time.Second)
			y.known = newTable[knownRecord](maxKnown)
		}
	})
}

// The network where the victim is known guesses too: after ten passwords it waits
// like any other, and a right password ends that.
func TestGuessingNeighbour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(usual)
		y.try(t, "victim", "right", "198.51.100.7")
		for i := range knownGuesses {
			if got, took := y.try(t, "victim", "right", "198.51.100.7"); got != "ok" || took != 0 {
				t.Errorf("the victim after %d guesses: %s after %v", i, got, took)
			}
			for j := range i { // as many as before, and one more
				y.try(t, "victim", fmt.Sprint(i, j), "198.51.100.7")
			}
		}
		for j := range knownGuesses {
			y.try(t, "victim", fmt.Sprint("last", j), "198.51.100.7")
		}
		if got, took := y.try(t, "victim", "right", "198.51.100.7"); got != "ok" || took != penaltyMost {
			t.Errorf("after %d guesses: %s after %v", knownGuesses, got, took)
		}
		if got, took := y.try(t, "victim", "right", "198.51.100.7"); got != "ok" || took != 0 {
			t.Errorf("afterwards: %s after %v", got, took)
		}
	})
}

// One network tries many accounts: it waits, then nothing of it is looked at, while
// those who are known there log in, and it ends by itself.
func TestSpray(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(usual)
		y.delay.Failure = 0
		y.try(t, "known", "right", "203.0.113.1")
		refused := -1
		for i := range 100 {
			time.Sleep(penaltyMost) // long enough for Dovecot's penalty to be over
			asked := y.asked
			got, took := y.try(t, fmt.Sprintf("user%d", i), "spring2024", "203.0.113.1")
			if got == "later" && refused < 0 {
				refused = i
			}
			switch {
			case refused >= 0 && (took != 0 || y.asked != asked):
				t.Fatalf("try %d: %s after %v, and it was looked at", i, got, took)
			case refused < 0 && (got != "no" || i > usual.NetworkAccounts && took < 4*time.Second):
				t.Fatalf("try %d: %s after %v", i, got, took)
			}
			if refused >= 0 {
				break
			}
		}
		if refused < 2*usual.NetworkAccounts-1 || refused > 2*usual.NetworkAccounts+1 {
			t.Errorf("refused from %d on", refused)
		}
		for _, tt := range []struct {
			name, user, ip, want string
		}{
			{"who is known there", "known", "203.0.113.1", "ok"},
			{"who is not", "new", "203.0.113.1", "later"},
			{"one of those that were tried, elsewhere", "user3", "203.0.113.2", "ok"},
		} {
			if got, took := y.try(t, tt.user, "right", tt.ip); got != tt.want || took != 0 {
				t.Errorf("it handles %s: %s after %v, want %s", tt.name, got, took, tt.want)
			}
		}
		time.Sleep(usual.Window)
		if got, took := y.try(t, "new", "right", "203.0.113.1"); got != "ok" || took != 0 {
			t.Errorf("afterwards: %s after %v", got, took)
		}
	})
}

// A large office behind one address, where many have logged in, may mistype.
func TestOffice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(usual)
		for i := range maxSet {
			y.try(t, fmt.Sprintf("user%d", i), "right", "203.0.113.1")
		}
		for i := range maxSet {
			time.Sleep(penaltyMost)
			if got, took := y.try(t, fmt.Sprintf("user%d", i), "old", "203.0.113.1"); got != "no" || took > grid {
				t.Fatalf("user %d: %s after %v", i, got, took)
			}
		}
		time.Sleep(penaltyMost)
		if got, took := y.try(t, "new", "right", "203.0.113.1"); got != "ok" || took != 0 {
			t.Errorf("a new one: %s after %v", got, took)
		}
	})
}

// At most so many attempts of a network are under way; they hold nothing when they
// have ended, and whoever hangs up has no answer and frees his place.
func TestCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(usual)
		ctx, cancel := context.WithCancel(t.Context())
		y.try(t, "known", "right", "203.0.113.1")
		var wait sync.WaitGroup
		for i := range maxPerNetwork {
			wait.Go(func() {
				r := &auth.Request{Login: fmt.Sprint(i), Service: "imap", RemoteIP: netip.MustParseAddr("203.0.113.1")}
				_, row, err := y.mech.Start(r, &y.site).Next(ctx, []byte("wrong"))
				if row != nil || err == nil {
					t.Errorf("%v, %v", row, err)
				}
			})
		}
		synctest.Wait()
		if n := y.Stats().Delayed; n != maxPerNetwork {
			t.Errorf("%d are delayed, want %d", n, maxPerNetwork)
		}
		for _, tt := range []struct{ user, ip, want string }{
			{"known", "203.0.113.1", "ok"}, {"new", "203.0.113.2", "ok"},
		} {
			if got, took := y.try(t, tt.user, "right", tt.ip); got != tt.want || took != 0 {
				t.Errorf("%s from %s: %s after %v, want %s", tt.user, tt.ip, got, took, tt.want)
			}
		}
		start := time.Now()
		cancel()
		wait.Wait()
		if took := time.Since(start); took != 0 || y.all != 0 || len(y.under) != 0 || y.Stats().Delayed != 0 {
			t.Errorf("after %v: %d attempts, %v, %+v", took, y.all, y.under, y.Stats())
		}
	})
}

// An office that comes back all at once waits for its places, and nobody is turned
// away; neither is one who comes when others of his network have failed. There is a
// bound to it, and an end.
func TestCrowdWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(usual)
		y.slow = 100 * time.Millisecond
		var wait sync.WaitGroup
		for i := range 1000 {
			wait.Go(func() {
				if got, took := y.try(t, fmt.Sprint(i), "right", "203.0.113.1"); got != "ok" || took > 2*time.Second {
					t.Errorf("user %d: %s after %v", i, got, took)
				}
			})
		}
		wait.Wait()
		for i := range maxPerNetwork {
			wait.Go(func() { y.try(t, fmt.Sprint("new", i%10), fmt.Sprint(i), "203.0.113.1") })
		}
		synctest.Wait()
		for _, tt := range []struct {
			what string
			most time.Duration
			ask  []func(*auth.Request)
		}{{"reading", 2 * penaltyMost, nil}, {"sending", maxMTADelay, []func(*auth.Request){smtp}}} {
			wait.Go(func() {
				if got, took := y.try(t, "another", "right", "203.0.113.1", tt.ask...); got != "ok" || took > tt.most {
					t.Errorf("%s behind others who fail: %s after %v", tt.what, got, took)
				}
			})
		}
		wait.Wait()

		y.slow = time.Hour // nobody leaves
		for i := range maxPerNetwork + maxCrowd {
			go y.try(t, fmt.Sprint(i, "later"), "right", "203.0.113.9")
		}
		synctest.Wait()
		if got, took := y.try(t, "one more", "right", "203.0.113.9"); got != "later" || took != 0 {
			t.Errorf("one too many: %s after %v", got, took)
		}
		time.Sleep(2 * penaltyMost)
		y.Gate.mu.Lock()
		if y.crowd.n != 0 || len(y.crowd.queues) != 0 {
			t.Errorf("%d still wait for a place", y.crowd.n)
		}
		y.Gate.mu.Unlock()
		time.Sleep(time.Hour)
	})
}

// However many networks try an account, few guesses a second are looked at, and the
// victim logs in from where he is known.
func TestSiege(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(usual)
		y.delay.Failure = 0
		y.try(t, "victim", "right", "198.51.100.1")
		for i := range usual.AccountNetworks {
			y.try(t, "victim", fmt.Sprint(i), fmt.Sprintf("203.0.%d.1", i))
		}
		asked := y.asked
		var wait sync.WaitGroup
		for i := range 10_000 {
			wait.Go(func() {
				y.try(t, "victim", fmt.Sprint(i), fmt.Sprintf("%d.%d.1.1", 1+i/250, i%250))
			})
		}
		synctest.Wait()
		if n := y.Stats().Delayed; n != maxPerAccount {
			t.Errorf("%d wait, want %d", n, maxPerAccount)
		}
		if got, took := y.try(t, "victim", "right", "198.51.100.1"); got != "ok" || took != 0 {
			t.Errorf("the victim: %s after %v", got, took)
		}
		wait.Wait()
		if n := y.asked - asked; n != maxPerAccount+1 {
			t.Errorf("%d were looked at, want %d", n, maxPerAccount+1)
		}
		if y.all != 0 || len(y.under) != 0 {
			t.Errorf("%d attempts are left, %v", y.all, y.under)
		}
	})
}

// Who tries in parallel waits no less in the end than who tries in a row: all
// failures count, also of those who hung up.
func TestParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(usual)
		y.slow = time.Second
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 3 {
			go func() {
				r := &auth.Request{Login: "a", Service: "imap", RemoteIP: netip.MustParseAddr("203.0.113.1")}
				y.mech.Start(r, &y.site).Next(ctx, fmt.Append(nil, i))
			}()
		}
		time.Sleep(1500 * time.Millisecond)
		cancel()
		if got, took := y.try(t, "a", "right", "203.0.113.1"); got != "ok" || took != penaltyMost+y.slow {
			t.Errorf("%s after %v, want ok after %v", got, took, penaltyMost)
		}
	})
}

// What is remembered is bounded, and an attacker with a whole /32 makes others be
// forgotten no more than a shard of them.
func TestBounds(t *testing.T) {
	g := NewGate(usual, nil, NewDelay(0))
	fail := func(user string, ip netip.Addr) {
		var a attempt
		r := &auth.Request{Login: user, RemoteIP: ip}
		g.begin(&a, r)
		g.failed(&a, auth.ErrPasswordMismatch)
	}
	const others = 1000
	other := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{byte(i), byte(i >> 8), 1, 1}) }
	for i := range others {
		fail("x", other(i))
	}
	for i := range 1 << 16 { // all /48 of 2001:db8::/32
		fail(fmt.Sprint(i), netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, byte(i >> 8), byte(i), 1}))
	}
	kept := 0
	for i := range others {
		n := networkOf(other(i))
		g.networks.with(n.shard, n.id, false, func(*networkRecord) { kept++ })
	}
	if kept < others*9/10 {
		t.Errorf("%d of %d networks are still known", kept, others)
	}
	if s := g.Stats(); s.Networks > maxNetworks || s.Accounts > maxAccounts || s.Networks < others {
		t.Errorf("%+v", s)
	}
	// One network makes a bounded number of records, whatever it tries.
	g = NewGate(Policy{Window: time.Hour}, nil, NewDelay(0))
	for i := range 10_000 {
		fail(fmt.Sprint(i), other(1))
	}
	if s := g.Stats(); s.Networks != 1 || s.Accounts > maxSet {
		t.Errorf("one network: %+v", s)
	}
}

// BenchmarkGate is what the gate costs a login of a known user.
func BenchmarkGate(b *testing.B) {
	y := newYard(usual)
	r := &auth.Request{Login: "alice@example.com", Service: "imap", RemoteIP: netip.MustParseAddr("192.0.2.1")}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := y.mech.Start(r, &y.site).Next(b.Context(), []byte("right")); err != nil {
			b.Fatal(err)
		}
	}
}
