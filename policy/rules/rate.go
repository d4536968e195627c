package rules

import (
	"cmp"
	"context"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"dovepost/policy"
	"dovepost/policy/ledger"
)

// RateLookup returns the limits that are set for a name, in small letters: a login, or
// "@" and a domain. found is false where there are none, also when they are empty.
type RateLookup func(ctx context.Context, name string) (text string, found bool, err error)

// Rate limits what logged-in clients send.
//
// The limits of a login are those that Logins has for it; else those that Logins has for "@"
// and its domain, for each login there; else Default. The nearest one holds as a whole:
// what it does not mention is not limited, unless it says inherit. Beside them, what
// all logins of a domain send together has the limits that Totals has for "@" and the domain, else
// DefaultTotal. A login without a domain has no such level.
//
// One state is enough: END-OF-MESSAGE, where the number of recipients and the size are what
// they are, and all that Postfix itself refuses is gone. There a message is counted that fits into
// all limits; one that does not is refused for all its recipients and not counted, unless Action lets it
// pass. At DATA, if Postfix asks, what is over a limit already is refused before it is sent.
// Nothing else is answered, and no client without a login.
//
// The same request twice, as after a lost connection, is counted once.
//
// An error is a lookup of limits that failed. Limits that make no sense are skipped, with a
// warning, and the next level holds. What happens to the counts without their store is the
// ledger's to say: the rule never fails for it.
type Rate struct {
	Ledger         *ledger.Ledger
	Default        RateLimits
	DefaultTotal   RateLimits
	Logins, Totals RateLookup    // nil: there are none
	Action         policy.Action // on excess; its text is followed by when that ends
	Now            func() time.Time
	Log            *slog.Logger // one line a minute for each account that is over; nil: slog.Default()
	answered       instances
	mu             sync.Mutex // guards logged
	logged         map[string]time.Time
}

// DefaultRateAction is what Postfix is told on excess, where nothing else is set: the client
// may try again, so nothing is lost.
var DefaultRateAction = policy.Action{Word: "DEFER"}

// Decide answers a request.
func (r *Rate) Decide(ctx context.Context, q *policy.Request) (policy.Action, error) {
	if q.SASLUsername == "" {
		return policy.Dunno, nil
	}
	switch q.State {
	case "DATA":
		if refuses(r.Action.Word) {
			return r.take(ctx, q, ledger.Look)
		}
	case "END-OF-MESSAGE":
		return r.answered.once(ctx, instanceOf(q), func() (policy.Action, error) {
			if stops(r.Action.Word) {
				return r.take(ctx, q, ledger.Commit)
			}
			return r.take(ctx, q, ledger.Force)
		})
	}
	return policy.Dunno, nil
}

// refuses reports whether the client is told no.
func refuses(word string) bool {
	switch word {
	case "REJECT", "DEFER", "DEFER_IF_PERMIT":
		return true
	}
	return len(word) == 3 && (word[0] == '4' || word[0] == '5')
}

// stops reports whether the message does not go out.
func stops(word string) bool { return refuses(word) || word == "HOLD" || word == "DISCARD" }

func (r *Rate) take(ctx context.Context, q *policy.Request, mode ledger.Mode) (policy.Action, error) {
	login := strings.ToLower(q.SASLUsername)
	asks, err := r.Asks(ctx, login)
	if err != nil {
		return policy.Dunno, err
	}
	v := r.Ledger.Take(ctx, asks, ledger.Counts{
		rateMessages: 1, rateRecipients: max(1, int64(q.RecipientCount)), rateBytes: max(0, q.Size),
	}, mode)
	if v.OK {
		return policy.Dunno, nil
	}
	now := r.now()
	whose := "account"
	if v.Ask == 1 {
		whose = "domain"
	}
	r.report(login, whose, v, now)
	return policy.Action{Word: r.Action.Word, Text: rateText(r.Action.Text, whose, v, now)}, nil
}

// Asks returns the limits of a login, in small letters, and those of all logins of its domain, if it has one.
func (r *Rate) Asks(ctx context.Context, login string) ([]ledger.Ask, error) {
	domain := domainOf(login)
	limits, err := r.limits(ctx, login, domain)
	if err != nil {
		return nil, err
	}
	asks := []ledger.Ask{{Name: AccountKey(login), Limits: limits}}
	if domain != "" {
		if limits, err = r.totals(ctx, domain); err != nil {
			return nil, err
		}
		asks = append(asks, ledger.Ask{Name: DomainKey(domain), Limits: limits})
	}
	return asks, nil
}

func (r *Rate) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}

// limits returns those of a login.
func (r *Rate) limits(ctx context.Context, login, domain string) ([]ledger.Limit, error) {
	l := RateLimits{Inherit: true}
	for _, name := range []string{login, domain} {
		if !l.Inherit || name == "" {
			break
		}
		own, err := r.lookup(ctx, r.Logins, name)
		if err != nil {
			return nil, err
		}
		l = l.Over(own)
	}
	return l.Over(r.Default).Limits, nil
}

// totals returns those of all logins of a domain together.
func (r *Rate) totals(ctx context.Context, domain string) ([]ledger.Limit, error) {
	l, err := r.lookup(ctx, r.Totals, domain)
	return l.Over(r.DefaultTotal).Limits, err
}

// lookup returns the limits of one name; inherit, if there are none.
func (r *Rate) lookup(ctx context.Context, lookup RateLookup, name string) (RateLimits, error) {
	none := RateLimits{Inherit: true}
	if lookup == nil {
		return none, nil
	}
	text, found, err := lookup(ctx, name)
	if err != nil || !found || strings.TrimSpace(text) == "" {
		return none, err
	}
	l, err := ParseRateLimits(text)
	if err != nil {
		r.log().Warn("limits that make no sense are skipped", "name", name, "err", err)
		return none, nil
	}
	return l, nil
}

func (r *Rate) log() *slog.Logger {
	if r.Log != nil {
		return r.Log
	}
	return slog.Default()
}

// report logs that an account is over a limit, once a minute.
func (r *Rate) report(login, whose string, v ledger.Verdict, now time.Time) {
	const most = 4096
	r.mu.Lock()
	last, again := r.logged[login]
	if again && now.Sub(last) < time.Minute {
		r.mu.Unlock()
		return
	}
	if r.logged == nil || len(r.logged) >= most {
		r.logged = map[string]time.Time{}
	}
	r.logged[login] = now
	r.mu.Unlock()
	attrs := []any{"login", login, "of", whose, "limit", RateLimits{Limits: []ledger.Limit{v.Limit}}.String(), "used", v.Used}
	if !v.Until.IsZero() {
		attrs = append(attrs, "until", v.Until.UTC().Format(time.RFC3339))
	}
	r.log().Info("sending limit reached", attrs...)
}

// rateText is what the client reads: when it may try again, and no figures.
func rateText(text, whose string, v ledger.Verdict, now time.Time) string {
	text = cmp.Or(text, "sending limit of this "+whose+" reached")
	if v.Until.IsZero() {
		return text + ", this message is too much by itself"
	}
	return text + ", try again in " + waitText(v.Until.Sub(now))
}

// waitText rounds up.
func waitText(wait time.Duration) string {
	unit, name := time.Second, "second"
	switch {
	case wait > 2*24*time.Hour:
		unit, name = 24*time.Hour, "day"
	case wait > 2*time.Hour:
		unit, name = time.Hour, "hour"
	case wait > 2*time.Minute:
		unit, name = time.Minute, "minute"
	}
	n := max(1, (wait+unit-1)/unit)
	if n != 1 {
		name += "s"
	}
	return strconv.FormatInt(int64(n), 10) + " " + name
}
