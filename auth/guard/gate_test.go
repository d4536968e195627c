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

func smtp(r *auth.Request)      { r.Service = "smtp" }
func noPenalty(r *auth.Request) { r.NoPenalty = true }

const grid = flushInterval + shuffle

// The schedule of anvil: what waits how long, of 203.0.113.1 unless a step names another network.
func TestPenalty(t *testing.T) {
	type step struct {
		after          time.Duration
		user, password string
		ip             string
		want           string
		wait           time.Duration
	}
	const s = time.Second
	tests := []struct {
		name  string
		steps []step
	}{
		{"wrong passwords in a row", []step{
			{0, "a", "1", "", "no", 0}, {0, "a", "2", "", "no", 4 * s}, {0, "a", "3", "", "no", 8 * s}, {0, "a", "4", "", "no", 15 * s}, {0, "a", "5", "", "no", 15 * s}, {0, "a", "6", "", "no", 15 * s}}},
		{"the same wrong password", []step{
			{0, "a", "1", "", "no", 0}, {0, "a", "1", "", "no", 4 * s}, {0, "a", "1", "", "no", 4 * s}, {0, "a", "1", "", "no", 0}, {0, "a", "2", "", "no", 0}, {0, "a", "1", "", "no", 4 * s}}},
		{"the same wrong password of two users", []step{
			{0, "a", "1", "", "no", 0}, {0, "b", "1", "", "no", 4 * s}, {0, "b", "1", "", "no", 8 * s}}},
		{"unknown users, who are like others", []step{
			{0, "nobody", "1", "", "no", 0}, {0, "nobody", "2", "", "no", 4 * s}, {0, "nobody", "2", "", "no", 8 * s}}},
		{"an end after 15 s", []step{
			{0, "a", "1", "", "no", 0}, {0, "a", "2", "", "no", 4 * s}, {0, "a", "3", "", "no", 8 * s}, {13 * s, "a", "4", "", "no", 0}, {0, "a", "5", "", "no", 4 * s}}},
		{"a right password, which ends it, and is late itself", []step{
			{0, "a", "1", "", "no", 0}, {0, "a", "2", "", "no", 4 * s}, {0, "a", "right", "", "ok", 8 * s}, {0, "a", "3", "", "no", 0}}},
		{"another address", []step{
			{0, "a", "1", "", "no", 0}, {0, "a", "2", "203.0.113.2", "no", 0}, {0, "a", "3", "", "no", 4 * s}}},
		{"addresses of one /48", []step{
			{0, "a", "1", "2001:db8:1::1", "no", 0}, {0, "a", "2", "2001:db8:1:ffff::2", "no", 4 * s}, {0, "a", "3", "2001:db8:2::1", "no", 0}}},
		{"a mapped address", []step{
			{0, "a", "1", "", "no", 0}, {0, "a", "2", "::ffff:203.0.113.1", "no", 4 * s}}},
		{"what the client broke", []step{
			{0, "a", "malformed", "", "no", 0}, {0, "a", "malformed", "", "no", 4 * s}, {0, "a", "malformed", "", "no", 8 * s}}},
		{"nodelay, which does not count", []step{
			{0, "nodelay", "1", "", "no", 0}, {0, "nodelay", "2", "", "no", 0}, {0, "a", "right", "", "ok", 0}}},
		{"a database that is away, which does not count", []step{
			{0, "a", "away", "", "later", 0}, {0, "a", "away", "", "later", 0}, {0, "a", "1", "", "no", 0}}},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			y := newYard(usual)
			for i, s := range tt.steps {
				time.Sleep(s.after)
				if s.ip == "" {
					s.ip = "203.0.113.1"
				}
				got, took := y.try(t, s.user, s.password, s.ip)
				late := time.Duration(0)
				if got == "no" {
					late = grid
				}
				if got != s.want || took < s.wait || took > s.wait+late {
					t.Errorf("it handles %s: step %d: %s after %v, want %s after %v", tt.name, i, got, took, s.want, s.wait)
				}
			}
		})
	}
}

func TestPenaltyExceptions(t *testing.T) {
	allowed := usual
	allowed.Allow, _ = ParseNets("203.0.113.0/24, 2001:db8::1")
	off := usual
	off.Off = true
	for _, tt := range []struct {
		name   string
		policy Policy
		ip     string
		change []func(*auth.Request)
	}{
		{"no-penalty", usual, "203.0.113.1", []func(*auth.Request){noPenalty}},
		{"no address", usual, "", nil},
		{"a network that is excepted", allowed, "203.0.113.1", nil},
		{"the same, mapped", allowed, "::ffff:203.0.113.1", nil},
		{"auth_guard = no", off, "203.0.113.1", nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			y := newYard(tt.policy)
			for i := range 100 {
				if got, took := y.try(t, fmt.Sprint(i), "wrong", tt.ip, tt.change...); got != "no" || took > grid {
					t.Errorf("it handles %s: try %d: %s after %v", tt.name, i, got, took)
				}
			}
			if s := y.Stats(); s.Networks+s.Accounts+s.Known != 0 || s.Waits != 0 {
				t.Errorf("it handles %s: %+v", tt.name, s)
			}
		})
	}
}

// Postfix has every answer within 8 s, auth_failure_delay included.
func TestPenaltySMTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(usual)
		y.delay.Failure = 5 * time.Second
		for i := range 30 {
			start := time.Now()
			got, _ := y.try(t, "a", fmt.Sprint(i), "203.0.113.1", smtp)
			if took := time.Since(start); took > maxMTADelay || i > 0 && took < maxMTADelay-shuffle || got != "no" {
				t.Errorf("try %d: %s after %v", i, got, took)
			}
		}
		if got, took := y.try(t, "a", "right", "203.0.113.1", smtp); got != "ok" || took > maxMTAWait {
			t.Errorf("a right password: %s after %v", got, took)
		}
	})
}

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
			{"new", "203.0.113.1", "later"}, {"known", "203.0.113.1", "ok"}, {"new", "203.0.113.2", "ok"},
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

// FuzzPenalty checks, against a second reading of anvil, that the levels are its own.
func FuzzPenalty(f *testing.F) {
	f.Add([]byte{1, 1, 1, 2, 1, 3, 14, 4})  // new passwords, the last after a pause
	f.Add([]byte{1, 1, 1, 1, 20, 1, 1, 0})  // the same one again, then a right one
	f.Add([]byte{0, 1, 0, 2, 0, 3, 15, 17}) // exactly at the end
	f.Fuzz(func(t *testing.T, script []byte) {
		now := time.Unix(1_000_000, 0)
		var p penalty
		var level, last int64 // anvil's penalty_rec
		var sums []uint32
		for i := 0; i+1 < len(script); i += 2 {
			now = now.Add(time.Duration(script[i]%32) * time.Second)
			// auth_penalty_anvil_callback
			seen := level
			for drop := int64(4); seen > 0 && now.Unix()-last >= min(int64(2)<<drop, 15); drop-- {
				seen--
			}
			if got := p.at(now); got != int(seen) {
				t.Fatalf("step %d: level %d, anvil's %d", i/2, got, seen)
			}
			sum := uint32(script[i+1] % 16)
			if sum == 15 { // a right password
				if seen > 0 {
					level, last = 0, now.Unix()
					p.pass(now)
				}
				continue
			}
			value := min(seen+1, 4)
			at := -1
			for k, s := range sums {
				if sum != 0 && s == sum {
					at = k
				}
			}
			again := p.fail(now, int(seen), sum)
			if again != (at >= 0) {
				t.Fatalf("step %d: again is %v", i/2, again)
			}
			if again {
				level = value - 1
				sums = append(sums[:at:at], sums[at+1:]...)
			} else {
				level, last = value, now.Unix()
			}
			if sum != 0 {
				sums = append([]uint32{sum}, sums...)
				sums = sums[:min(len(sums), 10)]
			}
		}
	})
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
