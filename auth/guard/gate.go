package guard

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dovepost/auth"
)

// Policy says when an attempt has to wait before its password is looked at.
//
// Of a network (an IPv4 address, or an IPv6 /48) Dovecot's penalty is kept: 4, 8,
// 15 s after one, two, three failures, over after a success or 15 s, and the same
// wrong password again is no new failure. Beyond it, an account on which
// AccountNetworks networks have failed within Window makes networks that do not
// know it wait 4, 8, 15 s, 64 attempts at a time; and so does a network from which NetworkAccounts
// accounts have failed, more than have logged in from it. At twice that number its
// attempts are not looked at any more but told to come again later.
//
// Whoever has logged in to an account from a network in the last 30 days is known
// there: none of this makes him wait, or refuses him, unless that very network has
// also guessed ten passwords of that very account. A right password is never
// called wrong; it may be late, by 15 s at most.
type Policy struct {
	Off             bool           // no penalty either
	Allow           []netip.Prefix // networks that neither wait nor count
	Window          time.Duration
	AccountNetworks int // 0: the networks that fail on an account are not counted
	NetworkAccounts int // 0: the accounts that fail from a network are not counted
}

const (
	knownTime    = 30 * 24 * time.Hour
	knownGuesses = 10 // wrong passwords that end the trust in a known network
	knownPlaces  = 8  // networks of one account, the latest

	// The bounds of what is remembered, and of attempts that are under way.
	maxNetworks   = 32 << 10
	maxAccounts   = 64 << 10
	maxKnown      = 128 << 10
	maxSet        = 64 // networks of an account, accounts of a network
	maxAttempts   = 16 << 10
	maxPerNetwork = 256
	maxPerAccount = 64 // that have to wait: a few guesses a second from all the world

	// maxMTAWait leaves Postfix, which waits for 10 s, time for a hash and for
	// auth_failure_delay.
	maxMTAWait = 4500 * time.Millisecond
)

// Temporary errors: nothing has been said about the password.
var (
	errFull     = errors.New("guard: too many attempts at a time")
	errCrowded  = errors.New("guard: too many attempts at a time from this network")
	errBesieged = errors.New("guard: too many networks try this user at a time")
	errSprayers = errors.New("guard: too many users have failed from this network")
)

// Gate stands before the mechanisms: it makes attempts wait as the Policy says,
// counts how they end, and tells refusals late. What it remembers is in memory,
// bounded, and lost at a restart.
type Gate struct {
	// Separator is auth_master_user_separator: "user*master" is a guess at the master's
	// password, whoever the user. Empty: there is none. Set it before the first use.
	Separator string

	policy   Policy
	names    *Names
	delay    *Delay
	networks *table[networkRecord]
	accounts *table[recent] // the networks that have failed
	known    *table[knownRecord]

	mu    sync.Mutex // guards what follows
	all   int
	under map[id]int // attempts under way, by network, and by account
	crowd crowd

	waits, refused, again, delayed atomic.Int64
}

type networkRecord struct {
	penalty
	failed, good recent // accounts
}

// knownRecord are the networks from which an account has logged in, the latest first.
type knownRecord struct{ places []place }

type place struct {
	network id
	at      time.Time
	guesses int // failures since
}

// NewGate returns a gate. names may be nil.
func NewGate(policy Policy, names *Names, delay *Delay) *Gate {
	return &Gate{policy: policy, names: names, delay: delay, under: make(map[id]int), crowd: crowd{queues: make(map[sourceKey]*list.List)},
		networks: newTable[networkRecord](maxNetworks),
		accounts: newTable[recent](maxAccounts),
		known:    newTable[knownRecord](maxKnown)}
}

// ParseNets reads a list of addresses and networks, separated by commas and blanks.
func ParseNets(list string) (nets []netip.Prefix, err error) {
	for text := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' || r == ' ' }) {
		net, ok := parseNet(text)
		if !ok {
			return nil, fmt.Errorf("%q is no address or network", text)
		}
		nets = append(nets, net)
	}
	return nets, nil
}

// attempt is one exchange, as the gate sees it.
type attempt struct {
	begun   bool
	counts  bool // it has an address that is not excepted
	network network
	account id
	known   bool
	seen    int           // the network's penalty when it began
	wait    time.Duration // what it still has to wait, before or after
	crowd   bool          // it is counted by account
	sum     uint32
}

// begin finds out how long r has to wait.
func (g *Gate) begin(a *attempt, r *auth.Request) {
	a.begun = true
	ip := r.RemoteIP.Unmap().WithZone("")
	if g.policy.Off || r.NoPenalty || !ip.IsValid() || slices.ContainsFunc(g.policy.Allow, func(p netip.Prefix) bool { return p.Contains(ip) }) {
		return
	}
	a.counts, a.network, a.account = true, networkOf(ip), g.account(r)
	now := time.Now()
	a.known = g.isKnown(a.network.id, a.account, now)
	level, spread := 0, 0
	g.networks.with(a.network.shard, a.network.id, false, func(n *networkRecord) {
		a.seen = n.at(now)
		spread = n.failed.count(now, g.policy.Window, 0) - n.good.count(now, knownTime, 0)
	})
	if limit := g.policy.NetworkAccounts; limit > 0 && spread >= limit {
		level = 1 + spread - limit
	}
	if limit := g.policy.AccountNetworks; limit > 0 {
		g.accounts.with(a.account, a.account, false, func(s *recent) {
			level = max(level, 1+s.count(now, g.policy.Window, a.network.id)-limit)
		})
	}
	a.wait = penaltyWait(max(a.seen, level))
	if forMTA(r) {
		a.wait = min(a.wait, maxMTAWait)
	}
}

// barred reports whether attempts of the network are not looked at for now.
func (g *Gate) barred(a *attempt) (yes bool) {
	limit := g.policy.NetworkAccounts
	if !a.counts || a.known || limit <= 0 {
		return false
	}
	now := time.Now()
	g.networks.with(a.network.shard, a.network.id, false, func(n *networkRecord) {
		yes = n.failed.count(now, g.policy.Window, 0)-n.good.count(now, knownTime, 0) >= min(2*limit, maxSet)
	})
	return yes
}

// account names the account that r claims: unknown users have one as well, or else
// it would show who is known.
func (g *Gate) account(r *auth.Request) id {
	name := cmp.Or(r.Login, r.User)
	if g.Separator != "" {
		if _, master, found := strings.Cut(name, g.Separator); found {
			name = master
		}
	}
	if g.names != nil {
		if canonical, err := g.names.Canonical(name); err == nil {
			name = canonical
		}
	}
	return idOf(lower(name))
}

// Known reports whether the account of r has logged in from its network before.
func (g *Gate) Known(r *auth.Request) bool {
	return !g.policy.Off && r.RemoteIP.IsValid() && g.isKnown(networkOf(r.RemoteIP).id, g.account(r), time.Now())
}

func (g *Gate) isKnown(network, account id, now time.Time) (yes bool) {
	g.known.with(account, account, false, func(k *knownRecord) {
		for _, p := range k.places {
			yes = yes || p.network == network && p.guesses < knownGuesses && now.Sub(p.at) < knownTime
		}
	})
	return yes
}

// passed remembers a right password.
func (g *Gate) passed(a *attempt) {
	if !a.counts {
		return
	}
	now := time.Now()
	g.networks.with(a.network.shard, a.network.id, true, func(n *networkRecord) {
		if a.seen > 0 {
			n.pass(now)
		}
		n.good.add(a.account, now, knownTime, maxSet)
	})
	g.known.with(a.account, a.account, true, func(k *knownRecord) {
		k.places = slices.DeleteFunc(k.places, func(p place) bool { return p.network == a.network.id })
		k.places = slices.Insert(k.places, 0, place{network: a.network.id, at: now})
		k.places = k.places[:min(len(k.places), knownPlaces)]
	})
}

// failed counts a refusal. again: that very mistake has been counted before.
func (g *Gate) failed(a *attempt, refusal error) (again bool) {
	if !a.counts {
		return false
	}
	now, room := time.Now(), false
	guess := errors.Is(refusal, auth.ErrPasswordMismatch) || errors.Is(refusal, auth.ErrUnknownUser)
	g.networks.with(a.network.shard, a.network.id, true, func(n *networkRecord) {
		again = n.fail(now, a.seen, a.sum)
		if guess && !again {
			// A network that has no room for more accounts makes no records of them either.
			room = n.failed.add(a.account, now, g.policy.Window, maxSet)
		}
	})
	if room {
		g.accounts.with(a.account, a.account, true, func(s *recent) { s.add(a.network.id, now, g.policy.Window, maxSet) })
	}
	if !guess || again {
		return again
	}
	g.known.with(a.account, a.account, false, func(k *knownRecord) {
		for i, p := range k.places {
			if p.network == a.network.id {
				k.places[i].guesses++
			}
		}
	})
	return again
}

// enter counts an attempt that is under way. leave has to be called after nil.
func (g *Gate) enter(a *attempt) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	most := maxAttempts
	if a.known || !a.counts {
		most *= 2
	}
	switch {
	case g.all >= most:
		return errFull
	case a.counts && g.under[a.network.id] >= places(a.known):
		return errCrowded
	}
	if a.crowd = a.counts && !a.known && a.wait > 0; a.crowd && g.under[a.account] >= maxPerAccount {
		a.crowd = false
		return errBesieged
	}
	g.all++
	if a.counts {
		g.under[a.network.id]++
	}
	if a.crowd {
		g.under[a.account]++
	}
	return nil
}

func (g *Gate) leave(a *attempt) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all--
	if a.counts {
		g.drop(a.network.id)
		g.wake(a.network.id)
	}
	if a.crowd {
		g.drop(a.account)
	}
}

// drop counts one less; g.mu is held.
func (g *Gate) drop(key id) {
	if g.under[key]--; g.under[key] == 0 {
		delete(g.under, key)
	}
}

// hold waits for d, or until ctx ends.
func (g *Gate) hold(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	g.delayed.Add(1)
	defer g.delayed.Add(-1)
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("guard: waiting: %w", context.Cause(ctx))
	}
}

// Stats are the figures of a gate.
type Stats struct {
	Waits    int64 // attempts that had to wait before they were looked at
	Refused  int64 // attempts that were told to come again later
	Again    int64 // failures that were no new ones
	Delayed  int64 // attempts that wait now, for either reason
	Networks int   // records
	Accounts int
	Known    int
}

// Stats returns the present figures.
func (g *Gate) Stats() Stats {
	return Stats{Waits: g.waits.Load(), Refused: g.refused.Load(), Again: g.again.Load(), Delayed: g.delayed.Load(),
		Networks: g.networks.len(), Accounts: g.accounts.len(), Known: g.known.len()}
}

// sumOf is 32 bits, as in Dovecot: enough to know a mistake again, too little to
// know the password.
func sumOf(account id, password []byte) uint32 {
	return max(1, uint32(id(maphash.Bytes(seed, password))^account*0x9e3779b97f4a7c15))
}
