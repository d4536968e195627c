package rules

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"dovepost/policy"
)

// Defaults of Greylist, which are those of postgrey.
const (
	DefaultGreylistDelay     = 5 * time.Minute     // no longer than Postfix's first retry takes, minimal_backoff_time
	DefaultGreylistWindow    = 48 * time.Hour      // the longest pause between two tries that is taken for a retry
	DefaultGreylistLifetime  = 35 * 24 * time.Hour // monthly mail finds itself known
	DefaultGreylistAutoAllow = 5
	DefaultGreylistIPv4Bits  = 24
	DefaultGreylistIPv6Bits  = 64
)

const (
	passesKept   = 1 << 16          // passes that are remembered here, without asking
	passFresh    = 5 * time.Minute  // of a triplet or network: deleting its row is live after that
	optOutFresh  = 10 * time.Second // of a recipient without greylisting
	headersKept  = 1 << 12          // messages that have got their header
	touchedEvery = 35               // an expiry is moved when 1/35 of the lifetime is over: once a day by default
)

// Greylist puts strangers off once: mail is deferred that comes from a client network,
// sender and recipient, a triplet, that has not been seen before. A mail server tries
// again; who does so after Delay and within Window passes, and so does the triplet
// for Lifetime after its last use. After AutoAllow triplets of a network have passed,
// the whole network passes, as long.
//
// The answer is DEFER_IF_PERMIT, and Postfix makes it 450 4.2.0: what restrictions after
// policyd refuse for good, such as an unknown recipient, is refused at once and not
// after a second try.
//
// Never deferred are clients that have logged in, those without an IP address, those on
// this machine and those of Allow. Mail from the null sender is let through at RCPT,
// where others try whether a sender of ours exists (callouts, which cannot wait),
// and is judged at DATA or at the end of the message, where only real bounces come.
//
// It is for the store to say what time it is, since several machines share it.
// Errors are the store's; the Action is then DUNNO.
type Greylist struct {
	Store GreylistStore

	Delay, Window, Lifetime time.Duration // 0: the defaults
	AutoAllow               int           // triplets; 0: never
	IPv4Bits, IPv6Bits      int           // of a client network; 0: the defaults
	OptIn                   bool          // recipients without a row are not greylisted
	NullSender              bool          // judge the null sender, after RCPT
	Delimiter               string        // Postfix's recipient_delimiter
	Allow                   []*Clients    // sets of clients that are never greylisted
	Header                  string        // the host to name in X-Greylist of what has passed; empty: no such header

	Now func() time.Time // nil: time.Now

	passes  recent // what needs not be asked
	headers recent // instances that have their header
}

// GreylistStore remembers triplets and networks, and knows who wants greylisting.
// Times are its own, in seconds since 1970.
type GreylistStore interface {
	// Facts returns all that is known for a question.
	Facts(ctx context.Context, q GreylistQuestion) (GreylistFacts, error)
	// Begin notes a triplet as seen for the first time, to be forgotten after window.
	// One that is known and not forgotten stays as it is.
	Begin(ctx context.Context, t GreylistTriplet, window time.Duration) error
	// Pass notes that a triplet has passed, and counts it for its network if it is the first
	// to say so. Both are kept for lifetime.
	Pass(ctx context.Context, t GreylistTriplet, lifetime time.Duration) error
	// KeepTriplet and KeepNetwork keep them for lifetime from now on.
	KeepTriplet(ctx context.Context, key string, lifetime time.Duration) error
	KeepNetwork(ctx context.Context, network string, lifetime time.Duration) error
}

// GreylistQuestion names what to look up.
type GreylistQuestion struct {
	Key        string   // of the triplet: 32 hexadecimal digits
	Network    string   // "192.0.2.0/24", "2001:db8::/64"
	Recipients []string // forms of the recipient, the most specific first: user+ext@domain, user@domain, domain, @domain
}

// GreylistTriplet is a triplet to be noted. What Key does not say is for people to read.
type GreylistTriplet struct {
	Key, Network, Sender, Recipient string
}

// GreylistFacts are what a store knows. A zero Expires means that there is nothing, and
// one before Now that it is forgotten.
type GreylistFacts struct {
	Now     int64
	Triplet struct {
		Since, Expires int64
		Passed         bool
	}
	Network struct{ Passes, Expires int64 }
	Listed  []GreylistRecipient // rows for forms of the recipient, in any order
}

// GreylistRecipient is a row about an address or a domain.
type GreylistRecipient struct {
	Address string
	On      bool
}

// Decide implements policy.Decider.
func (g *Greylist) Decide(ctx context.Context, r *policy.Request) (policy.Action, error) {
	if !g.concerns(r) {
		return policy.Dunno, nil
	}
	t, recipients := g.triplet(r)
	now := g.now()
	if g.passes.has(t.Network, now) || g.passes.has(t.Key, now) || g.passes.has("to "+recipients[0], now) {
		return policy.Dunno, nil
	}
	facts, err := g.Store.Facts(ctx, GreylistQuestion{t.Key, t.Network, recipients})
	if err != nil {
		return policy.Dunno, err
	}
	if !g.wanted(recipients, facts.Listed) {
		g.passes.add("to "+recipients[0], now.Add(optOutFresh), passesKept)
		return policy.Dunno, nil
	}
	if n := &facts.Network; g.AutoAllow > 0 && n.Passes >= int64(g.AutoAllow) && n.Expires > facts.Now {
		g.passes.add(t.Network, now.Add(passFresh), passesKept)
		if !g.fresh(n.Expires, facts.Now) {
			err = g.Store.KeepNetwork(ctx, t.Network, g.lifetime())
		}
		return policy.Dunno, err
	}
	return g.judge(ctx, r, t, &facts)
}

// judge decides on a triplet whose network is not known well enough.
func (g *Greylist) judge(ctx context.Context, r *policy.Request, t GreylistTriplet, f *GreylistFacts) (policy.Action, error) {
	known := f.Triplet.Expires > f.Now
	waited := time.Duration(f.Now-f.Triplet.Since) * time.Second
	now := g.now()
	switch {
	case !known:
		// A triplet that cannot be noted would wait for ever, so the error lets it pass.
		if err := g.Store.Begin(ctx, t, orElse(g.Window, DefaultGreylistWindow)); err != nil {
			return policy.Dunno, err
		}
		return deferFor(g.delay()), nil
	case f.Triplet.Passed:
		g.passes.add(t.Key, now.Add(passFresh), passesKept)
		if g.fresh(f.Triplet.Expires, f.Now) {
			return policy.Dunno, nil
		}
		return policy.Dunno, g.Store.KeepTriplet(ctx, t.Key, g.lifetime())
	case waited < g.delay():
		return deferFor(g.delay() - max(waited, 0)), nil
	}
	err := g.Store.Pass(ctx, t, g.lifetime())
	if err == nil {
		g.passes.add(t.Key, now.Add(passFresh), passesKept)
	}
	return g.header(r, waited, now), err
}

// concerns reports whether a request is one to be judged at all.
func (g *Greylist) concerns(r *policy.Request) bool {
	state := r.State == "RCPT"
	if r.Sender == "" {
		state = g.NullSender && (r.State == "DATA" || r.State == "END-OF-MESSAGE")
	}
	client := r.ClientAddress
	return state && r.Recipient != "" && r.SASLUsername == "" &&
		client.IsValid() && !client.Unmap().IsLoopback() &&
		!slices.ContainsFunc(g.Allow, func(c *Clients) bool { return c.has(client, r.ClientName) })
}

// triplet returns what a request is known by, and the forms of its recipient.
func (g *Greylist) triplet(r *policy.Request) (t GreylistTriplet, recipients []string) {
	address := r.ClientAddress.Unmap().WithZone("")
	bits := orElse(g.IPv6Bits, DefaultGreylistIPv6Bits)
	if address.Is4() {
		bits = orElse(g.IPv4Bits, DefaultGreylistIPv4Bits)
	}
	network, err := address.Prefix(bits)
	if err != nil { // bits are more than the address has
		network = netip.PrefixFrom(address, address.BitLen())
	}
	whole := strings.ToLower(r.Recipient)
	local, domain := whole, ""
	if at := strings.LastIndexByte(whole, '@'); at >= 0 {
		local, domain = whole[:at], whole[at+1:]
	}
	base := whole
	if ext := strings.IndexAny(local, g.Delimiter); ext > 0 {
		base = local[:ext] + "@" + domain
	}
	t = GreylistTriplet{Network: network.String(), Sender: r.Sender, Recipient: r.Recipient}
	t.Key = tripletKey(t.Network, normalSender(r.Sender), base)
	return t, []string{whole, base, domain, "@" + domain}
}

// tripletKey is as long for any texts, and another one for any others.
func tripletKey(texts ...string) string {
	h := sha256.New()
	for _, text := range texts {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(text)))
		h.Write(n[:])
		h.Write([]byte(text))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// wanted reports whether the recipient is to be greylisted: the row for the most
// specific form decides. Rows that are only alike for the database count as none.
func (g *Greylist) wanted(forms []string, rows []GreylistRecipient) bool {
	for _, form := range forms {
		for _, row := range rows {
			if strings.ToLower(row.Address) == form {
				return row.On
			}
		}
	}
	return !g.OptIn
}

// fresh reports whether an expiry needs not be moved yet.
func (g *Greylist) fresh(expires, now int64) bool {
	life := g.lifetime()
	return time.Duration(expires-now)*time.Second > life-life/touchedEvery
}

// header returns what a message gets that has passed, once.
func (g *Greylist) header(r *policy.Request, waited time.Duration, now time.Time) policy.Action {
	// Postfix takes no header any more at the end of the message.
	if g.Header == "" || r.State == "END-OF-MESSAGE" || g.headers.has(r.Instance, now) {
		return policy.Dunno
	}
	g.headers.add(r.Instance, now.Add(passFresh), headersKept)
	return policy.Action{Word: "PREPEND", Text: fmt.Sprintf("X-Greylist: delayed %d seconds by dovepost at %s; %s",
		int64(waited/time.Second), g.Header, now.Format(time.RFC1123Z))}
}

func deferFor(d time.Duration) policy.Action {
	return policy.Action{Word: "DEFER_IF_PERMIT", Text: fmt.Sprintf("4.2.0 Greylisted, try again in %d seconds", int64((d+time.Second-1)/time.Second))}
}

func (g *Greylist) delay() time.Duration    { return orElse(g.Delay, DefaultGreylistDelay) }
func (g *Greylist) lifetime() time.Duration { return orElse(g.Lifetime, DefaultGreylistLifetime) }

func (g *Greylist) now() time.Time {
	if g.Now != nil {
		return g.Now()
	}
	return time.Now()
}

func orElse[T int | time.Duration](value, otherwise T) T {
	if value != 0 {
		return value
	}
	return otherwise
}
