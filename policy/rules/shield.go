package rules

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"dovepost/policy"
	"dovepost/policy/ledger"
)

// Shield finds accounts that somebody else sends with, and puts their mail on hold.
//
// What it goes by, within Window:
//
//   - From how many networks a login sends: distinct /24 and /64, distinct /16 and /32, and, with Countries,
//     distinct countries.
//   - How many recipients of its messages are refused behind policyd, for whatever reason: Postfix asks at RCPT
//     for each recipient and says at DATA and END-OF-MESSAGE how many it has accepted, and its queue_id is
//     empty before the first one was (always, with an smtpd_proxy_filter: then it goes by DATA alone). The last recipient of a message that never gets to DATA is not known.
//     What is refused before policyd is asked is not seen.
//   - How many bounces come in for it: whole messages of the null sender for one recipient, which, without
//     extension, is a login that sends. Bounces that this Postfix makes itself are delivered without smtpd,
//     so nobody asks about them; those of other servers come in by SMTP. Anybody can send such mail, to hurt a
//     user or because his address was forged: so this is off by default, more bounces than recipients
//     are none of what the login has sent, and nobody is locked for bounces.
//
// Refused recipients and bounces must be many, a large part of what was tried, and three times as large a part
// as in the day before.
//
// A login that is found is held: Action, on all machines, until an administrator sets the state of its row to
// released, or, for ever, to exempt. What was seen before a release counts no more. Where Holds has no room, since a
// mistake makes everybody look stolen, it is not, and the log and one message say so. Nothing is judged of a login
// whose state was never read: it may be exempt.
//
// An error means that the state of a login could not be read, and that this process has none from before. A state
// that was read holds while the store does not answer.
type Shield struct {
	Store     ShieldStore
	Counts    *ledger.Ledger // tried, refused, bounces
	Limits    ShieldLimits
	Countries func(netip.Addr) string // may be nil; empty: not known
	Delimiter string                  // as in main.cf
	Action    policy.Action
	Fresh     time.Duration // how old a state may be; 0 is 5 s

	Holds  *ShieldHolds                                  // nil: as many accounts may be held as are found
	Lock   func(ctx context.Context, login string) error // nil: accounts are held and not locked
	Notify func(ctx context.Context, subject, body string) error
	Now    func() time.Time
	Log    *slog.Logger

	mu       sync.Mutex // guards what follows
	accounts generations[*shielded]
	messages sessions
	spared   recent // accounts that the log has told of

	work chan func(context.Context) error
	stop context.CancelFunc
	done chan struct{}
}

// ShieldLimits are the most that is ordinary. 0: it does not matter.
type ShieldLimits struct {
	Window    time.Duration
	Networks  int // /24, /64
	Regions   int // /16, /32
	Countries int
	Refused   int // recipients
	Bounces   int
	Percent   int // of what was tried, for the last two
}

// DefaultShieldLimits are beyond what one person with several devices and a mobile network does.
var DefaultShieldLimits = ShieldLimits{Window: time.Hour, Networks: 12, Regions: 8, Countries: 4, Refused: 30, Percent: 30}

// The states of a row.
const (
	ShieldHeld     = "held"
	ShieldReleased = "released"
	ShieldExempt   = "exempt"
)

// ShieldRecord is what is stored of an account.
type ShieldRecord struct {
	State    string                   // empty: none
	Age      time.Duration            // of the state
	Networks map[string]time.Duration // when each was last seen: so long ago
}

// ShieldStore is shared by several machines. The login is an AccountKey.
type ShieldStore interface {
	Load(ctx context.Context, login string, window time.Duration) (ShieldRecord, error)
	// See notes that the login has just sent from a network.
	See(ctx context.Context, login, network string) error
	// Hold makes the account held unless it is exempt. news: it was not before.
	Hold(ctx context.Context, login, reason string) (news bool, err error)
}

// MaxShieldNetworks bounds the limits of networks: so many are remembered of an account, and a few more.
const MaxShieldNetworks = 60

const (
	shieldFresh    = 5 * time.Second
	shieldAccounts = 1 << 13 // in memory, in each of two generations
	shieldNetworks = 64      // of an account
	shieldAgain    = 10 * time.Minute
	shieldQueue    = 1024
	shieldRetry    = 5 * time.Second
	shieldDay      = 24 * time.Hour
)

// shielded is one account.
type shielded struct {
	state    string
	released time.Time            // what was seen before does not count
	networks map[string]time.Time // last seen
	saved    map[string]time.Time // as the store knows it
	loaded   time.Time            // zero: never
	loading  chan struct{}        // nil: nobody asks
	pending  bool                 // it is held here, and not in the store yet
}

func (s *Shield) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

func (s *Shield) log() *slog.Logger {
	if s.Log != nil {
		return s.Log
	}
	return slog.Default()
}

// Decide answers a request.
func (s *Shield) Decide(ctx context.Context, q *policy.Request) (policy.Action, error) {
	switch q.State {
	case "MAIL", "RCPT", "DATA", "END-OF-MESSAGE":
	default:
		return policy.Dunno, nil
	}
	if q.SASLUsername == "" {
		// At RCPT it may be a callout of somebody whom the login writes to.
		if q.State == "END-OF-MESSAGE" && q.Sender == "" && q.Recipient != "" && s.Limits.Bounces > 0 {
			s.bounced(q.Recipient)
		}
		return policy.Dunno, nil
	}
	login := strings.ToLower(q.SASLUsername)
	err := s.load(ctx, login)
	s.see(login, q.ClientAddress)
	s.recipients(login, q)
	s.judge(ctx, login, q.State == "DATA" || q.State == "END-OF-MESSAGE")
	s.mu.Lock()
	a := s.account(login)
	held, known := a.state == ShieldHeld, !a.loaded.IsZero()
	s.mu.Unlock()
	switch {
	case held:
		return s.Action, nil
	case !known:
		return policy.Dunno, err
	}
	return policy.Dunno, nil
}

// account returns the account of a login. s.mu is held.
func (s *Shield) account(login string) *shielded {
	key := AccountKey(login)
	a, ok := s.accounts.get(key)
	if !ok {
		a = &shielded{networks: map[string]time.Time{}, saved: map[string]time.Time{}}
	}
	s.accounts.put(key, a, shieldAccounts)
	return a
}

// load reads the account if what is known is too old, or waits for somebody who does.
func (s *Shield) load(ctx context.Context, login string) error {
	fresh := s.Fresh
	if fresh <= 0 {
		fresh = shieldFresh
	}
	for {
		s.mu.Lock()
		a := s.account(login)
		if !a.loaded.IsZero() && s.now().Sub(a.loaded) < fresh {
			s.mu.Unlock()
			return nil
		}
		if loading := a.loading; loading != nil {
			s.mu.Unlock()
			select {
			case <-loading:
				if known := s.known(a); known || ctx.Err() != nil {
					return ctx.Err()
				}
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		done := make(chan struct{})
		a.loading = done
		s.mu.Unlock()
		asked := s.now()
		record, err := s.Store.Load(ctx, AccountKey(login), s.Limits.Window)
		s.mu.Lock()
		a.loading = nil
		if err == nil {
			a.take(record, asked)
		}
		s.mu.Unlock()
		close(done)
		return err
	}
}

func (s *Shield) known(a *shielded) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !a.loaded.IsZero()
}

// take takes what the store knows at the time now.
func (a *shielded) take(r ShieldRecord, now time.Time) {
	a.loaded = now
	for network, age := range r.Networks {
		at := now.Add(-age)
		a.saved[network] = at
		if a.networks[network].Before(at) {
			a.networks[network] = at
		}
	}
	switch {
	case a.pending && r.State != ShieldExempt: // the store does not know it yet
	case a.state == ShieldHeld && r.State != ShieldHeld: // released, or the row is gone
		a.state, a.released = r.State, now
	default:
		a.state = r.State
	}
	if r.State == ShieldReleased {
		if at := now.Add(-r.Age); at.After(a.released) {
			a.released = at
		}
	}
}

// see notes from where the login sends.
func (s *Shield) see(login string, client netip.Addr) {
	if !client.IsValid() || client.IsLoopback() {
		return
	}
	network := networkOf(client, 24, 64).String()
	now := s.now()
	s.mu.Lock()
	a := s.account(login)
	_, again := a.networks[network]
	if again || len(a.networks) < shieldNetworks {
		a.networks[network] = now
	}
	for other, at := range a.networks {
		if now.Sub(at) > s.Limits.Window {
			delete(a.networks, other)
			delete(a.saved, other)
		}
	}
	last, known := a.saved[network]
	save := (!known || now.Sub(last) >= min(shieldAgain, s.Limits.Window/6)) && (again || len(a.networks) < shieldNetworks)
	if save {
		a.saved[network] = now
	}
	s.mu.Unlock()
	if save {
		s.later(func(ctx context.Context) error {
			err := s.Store.See(ctx, AccountKey(login), network)
			if err != nil {
				s.mu.Lock()
				delete(a.saved, network) // the next message tries again
				s.mu.Unlock()
			}
			return nil
		})
	}
}

// networkOf returns the network of an address.
func networkOf(addr netip.Addr, bits4, bits6 int) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := bits6
	if addr.Is4() {
		bits = bits4
	}
	network, _ := addr.Prefix(bits)
	return network
}

// judge holds the account if it does what is not ordinary. counts: also by its counts.
func (s *Shield) judge(ctx context.Context, login string, counts bool) {
	s.mu.Lock()
	a := s.account(login)
	if a.loaded.IsZero() || a.state == ShieldHeld || a.state == ShieldExempt {
		s.mu.Unlock()
		return
	}
	reason, released := s.travels(a), a.released
	s.mu.Unlock()
	proven := true // by what only the login itself can do
	if reason == "" && counts {
		reason, proven = s.fails(ctx, login, released)
	}
	if reason != "" {
		s.hold(login, reason, proven)
	}
}

// travels says from how many networks the account sends, if they are too many. s.mu is held.
func (s *Shield) travels(a *shielded) string {
	regions, countries := map[netip.Prefix]bool{}, map[string]bool{}
	networks := 0
	now := s.now()
	for text, at := range a.networks {
		network, err := netip.ParsePrefix(text)
		if err != nil || !at.After(a.released) || now.Sub(at) > s.Limits.Window {
			continue
		}
		networks++
		regions[networkOf(network.Addr(), 16, 32)] = true
		if s.Countries != nil {
			if country := s.Countries(network.Addr()); country != "" {
				countries[country] = true
			}
		}
	}
	for _, c := range []struct {
		n, most int
		what    string
	}{{len(countries), s.Limits.Countries, "countries"}, {len(regions), s.Limits.Regions, "networks of /16 or /32"}, {networks, s.Limits.Networks, "networks of /24 or /64"}} {
		if c.most > 0 && c.n > c.most {
			return fmt.Sprintf("sends from %d %s within %v", c.n, c.what, s.Limits.Window)
		}
	}
	return ""
}

// Start begins to do what nobody waits for. Close ends it.
func (s *Shield) Start() {
	var ctx context.Context
	ctx, s.stop = context.WithCancel(context.Background())
	s.mu.Lock()
	s.work = make(chan func(context.Context) error, shieldQueue)
	s.mu.Unlock()
	s.done = make(chan struct{})
	go s.run(ctx)
}

// Close does what is left, once.
func (s *Shield) Close() error {
	if s.stop == nil {
		return nil
	}
	s.stop()
	<-s.done
	s.stop = nil
	return nil
}

// later has f done soon, and again until it gives no error. When too much waits it is left out.
func (s *Shield) later(f func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.work <- f: // never, if it is nil
	default:
		if s.work != nil {
			s.log().Warn("too much waits for the database, something is left out", "rule", "shield")
		}
	}
}

// perhaps is later for what strangers can make much of: there stays room for the rest.
func (s *Shield) perhaps(f func(context.Context) error) {
	s.mu.Lock()
	busy := len(s.work) >= shieldQueue/2
	s.mu.Unlock()
	if !busy {
		s.later(f)
	}
}

// run does what later was told.
func (s *Shield) run(ctx context.Context) {
	defer close(s.done)
	tick := time.NewTicker(shieldRetry)
	defer tick.Stop()
	var failed []func(context.Context) error
	do := func(f func(context.Context) error) {
		limited, cancel := context.WithTimeout(context.Background(), shieldRetry)
		defer cancel()
		if err := f(limited); err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled) {
			s.log().Warn("tried again soon", "rule", "shield", "err", err)
			if len(failed) < shieldQueue {
				failed = append(failed, f)
			}
		}
	}
	for {
		select {
		case f := <-s.work:
			do(f)
		case <-tick.C:
			again := failed
			failed = nil
			for _, f := range again {
				do(f)
			}
		case <-ctx.Done():
			for {
				select {
				case f := <-s.work:
					limited, cancel := context.WithTimeout(context.Background(), shieldRetry)
					f(limited)
					cancel()
				default:
					return
				}
			}
		}
	}
}
