package rules

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"dovepost/policy"
	"dovepost/policy/ledger"
)

// What the rule shield counts, as indexes of ledger.Counts.
const (
	shieldTried = iota
	shieldRefused
	shieldBounces
)

// sessions remembers the messages that are being announced.
type sessions struct {
	mu    sync.Mutex // guards what follows
	all   generations[*announced]
	named map[netip.AddrPort]bool // servers that were seen to name a queue file
}

// maxNamed bounds the servers that are known.
const maxNamed = 256

// names reports whether the server of q names the queue file of a message as soon as it has
// accepted a recipient. One with an smtpd_proxy_filter never has any. s.mu is held.
func (s *sessions) names(q *policy.Request) bool {
	server := netip.AddrPortFrom(q.ServerAddress, q.ServerPort)
	switch {
	case q.QueueID != "":
		if s.named == nil || len(s.named) >= maxNamed {
			s.named = map[netip.AddrPort]bool{}
		}
		s.named[server] = true
	case q.State != "RCPT": // a recipient was accepted, and there is no file
		delete(s.named, server)
	}
	return s.named[server]
}

// announced is a message between its first RCPT and its end.
type announced struct {
	recipients int // that Postfix has asked about
	refused    int // of them, as far as is known and counted
	done       bool
}

// at calls f with the message of an instance, alone.
func (s *sessions) at(instance string, f func(*announced)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.all.get(instance)
	if !ok {
		m = &announced{}
	}
	s.all.put(instance, m, maxInstances)
	f(m)
}

// recipients counts those of a message, and those of them that were refused.
func (s *Shield) recipients(login string, q *policy.Request) {
	if s.Limits.Refused <= 0 && s.Limits.Bounces <= 0 || q.Instance == "" {
		return
	}
	var n ledger.Counts
	s.messages.at(fmt.Sprintf("%s %s %d %s", q.Instance, q.ClientAddress, q.ClientPort, login), func(m *announced) {
		named := s.messages.names(q)
		switch {
		case m.done:
		case q.State == "RCPT":
			if named && q.QueueID == "" && m.recipients > m.refused { // so none was accepted yet
				more := int64(m.recipients - m.refused)
				n[shieldTried], n[shieldRefused] = more, more
				m.refused = m.recipients
			}
			m.recipients++
		case q.State == "DATA" || q.State == "END-OF-MESSAGE":
			m.done = true
			tried := max(m.recipients, q.RecipientCount) - m.refused
			n[shieldTried] = int64(tried)
			n[shieldRefused] = int64(max(0, tried-q.RecipientCount))
		}
	})
	if n != (ledger.Counts{}) {
		s.Counts.Add(AccountKey(login), s.windows(), n)
	}
}

func (s *Shield) windows() []time.Duration { return []time.Duration{s.Limits.Window, shieldDay} }

// bounced counts a bounce, if it is for somebody who sends.
func (s *Shield) bounced(recipient string) {
	login := strings.ToLower(recipient)
	at := strings.LastIndexByte(login, '@')
	if at < 0 {
		at = len(login)
	}
	if ext := strings.IndexAny(login[:at], s.Delimiter); s.Delimiter != "" && ext > 0 {
		login = login[:ext] + login[at:]
	}
	s.perhaps(func(ctx context.Context) error {
		if !s.sends(ctx, login) {
			return nil
		}
		s.Counts.Add(AccountKey(login), s.windows(), ledger.Counts{shieldBounces: 1})
		s.judge(ctx, login, true)
		return nil
	})
}

// sends reports whether a login, which may be none, has sent within the window. One that has not
// takes no place in memory. Where that cannot be told it has not: it is one bounce more or less.
func (s *Shield) sends(ctx context.Context, login string) bool {
	s.mu.Lock()
	key := AccountKey(login)
	_, known := s.accounts.get(key)
	s.mu.Unlock()
	if !known {
		if r, err := s.Store.Load(ctx, key, s.Limits.Window); err != nil || len(r.Networks) == 0 {
			return false
		}
	}
	if s.load(ctx, login) != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.account(login).networks) > 0
}

// fails says how much of what the account sends is refused or bounces, if that has jumped, and
// whether it was no stranger who made it so.
func (s *Shield) fails(ctx context.Context, login string, released time.Time) (reason string, proven bool) {
	if s.Limits.Refused <= 0 && s.Limits.Bounces <= 0 || s.now().Sub(released) <= s.Limits.Window {
		return "", false // what was counted is from before the release, or may be
	}
	now := s.Counts.Sum(ctx, AccountKey(login), s.Limits.Window)
	day := s.Counts.Sum(ctx, AccountKey(login), shieldDay)
	for _, c := range []struct {
		what, most int
		text       string
	}{{shieldRefused, s.Limits.Refused, "recipients were refused"}, {shieldBounces, s.Limits.Bounces, "bounces came"}} {
		if c.what == shieldBounces && now[c.what] > now[shieldTried] {
			continue // it has not sent what they are for
		}
		if c.most > 0 && jumps(now[c.what], now[shieldTried], day[c.what], day[shieldTried], int64(c.most), int64(s.Limits.Percent)) {
			return fmt.Sprintf("%d %s for %d within %v", now[c.what], c.text, now[shieldTried], s.Limits.Window), c.what == shieldRefused
		}
	}
	return "", false
}

// jumps reports whether n of tried is many, a large part, and three times the part that it was
// in the rest of the day.
func jumps(n, tried, dayN, dayTried, most, percent int64) bool {
	if n <= most || tried <= 0 || n*100 < percent*tried {
		return false
	}
	beforeN, beforeTried := max(0, dayN-n), max(0, dayTried-tried)
	return beforeTried == 0 || float64(n)/float64(tried) >= 3*float64(beforeN)/float64(beforeTried)
}
