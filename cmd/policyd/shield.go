package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/pflag"

	"dovepost/cmd/internal/daemon"
	"dovepost/policy"
	"dovepost/policy/rules"
	"dovepost/policy/sqldb"
)

// shieldRule is the rule shield: accounts that somebody else sends with.
type shieldRule struct {
	limits    rules.ShieldLimits
	countries string
	action    string
	maxHolds  int
	lock      string

	counts sharedLedger
	holds  *rules.ShieldHolds // outlives the reloads
}

// shieldSync is how old the counts of other machines may be.
const shieldSync = 10 * time.Second

func (*shieldRule) name() string { return "shield" }

func (s *shieldRule) flags(fs *pflag.FlagSet) {
	l, d := &s.limits, rules.DefaultShieldLimits
	daemon.DurationVar(fs, &l.Window, "shield_window", d.Window, "how far back is looked")
	fs.IntVar(&l.Networks, "shield_networks", d.Networks, "a login sends from so many /24 and /64 at most; 0: it does not matter")
	fs.IntVar(&l.Regions, "shield_regions", d.Regions, "the same for /16 and /32")
	fs.IntVar(&l.Countries, "shield_countries", d.Countries, "the same for countries, if shield_country_file is set")
	fs.StringVar(&s.countries, "shield_country_file", "", "`FILE` of lines of a network and its country")
	fs.IntVar(&l.Refused, "shield_refused", d.Refused, "so many recipients of a login may be refused, whatever part they are; 0: it does not matter")
	fs.IntVar(&l.Bounces, "shield_bounces", d.Bounces, "so many bounces may come in for a login; 0: it does not matter")
	fs.IntVar(&l.Percent, "shield_percent", d.Percent, "more than those hold the account when they are such a part of its recipients, and three times that of the day before")
	fs.StringVar(&s.action, "shield_action", "HOLD", "`action` for the mail of an account that is held")
	fs.IntVar(&s.maxHolds, "shield_max_holds", rules.DefaultShieldHolds, "so many accounts are held within an hour at most, by each policyd; the log and one message tell of more; 0: no limit")
	fs.StringVar(&s.lock, "shield_lock_query", "", "`UPDATE` that also locks such an account, with %u for the login, or %n and %d; all are bound")
}

func (s *shieldRule) check() error {
	l := s.limits
	switch {
	case l.Window < 10*time.Second || l.Window > 24*time.Hour || l.Window%time.Second != 0:
		return fmt.Errorf("shield_window: %v is not between 10s and 1d, in whole seconds", l.Window)
	case min(l.Networks, l.Regions, l.Countries, l.Refused, l.Bounces) < 0:
		return errors.New("shield_networks, shield_regions, shield_countries, shield_refused, shield_bounces: negative")
	case s.maxHolds < 0:
		return errors.New("shield_max_holds: negative")
	case max(l.Networks, l.Regions, l.Countries) > rules.MaxShieldNetworks:
		return fmt.Errorf("shield_networks, shield_regions, shield_countries: more than %d", rules.MaxShieldNetworks)
	case l.Percent < 1 || l.Percent > 100:
		return fmt.Errorf("shield_percent: %d is not between 1 and 100", l.Percent)
	}
	return nil
}

func (s *shieldRule) build(_ context.Context, b *builder) (policy.Decider, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	action, err := policy.ParseAction(s.action)
	if err != nil || action.IsDunno() {
		return nil, errors.Join(errors.New("shield_action: want an action that stops mail"), err)
	}
	db, err := b.database()
	if err != nil {
		return nil, err
	}
	store, counters := db.Shield(), db.ShieldCounters()
	b.wants(db, append(store.Statements(), counters.Statements()...)...)
	b.prepare(db.Pool(), counters.Prepare)
	s.counts.next(db.Pool(), counters)
	if s.holds == nil {
		s.holds = rules.NewShieldHolds(s.maxHolds)
	}
	shield := &rules.Shield{Store: store, Counts: s.counts.ledger(shieldSync), Limits: s.limits, Holds: s.holds, Delimiter: b.delimiter, Action: action, Log: b.Log}
	if s.countries != "" {
		countries, err := readFile(s.countries, rules.ReadCountries)
		if err != nil {
			return nil, fmt.Errorf("shield_country_file: %w", err)
		}
		shield.Countries = countries.Of
	}
	if s.lock != "" {
		lock, err := db.Lock(s.lock)
		if err != nil {
			return nil, fmt.Errorf("shield_lock_query: %w", err)
		}
		b.prepare(db.Pool(), lock.Prepare)
		shield.Lock = locker(lock, b.Log)
	}
	if b.notifier != nil {
		shield.Notify = b.notifier.Notify
	}
	return &shieldInUse{
		Shield: shield, counts: &s.counts,
		purges: []*purger{
			{rule: "shield", log: b.Log, purge: func(ctx context.Context) (bool, error) { return store.Purge(ctx, 24*time.Hour) }},
			{rule: "shield", log: b.Log, purge: counters.Purge},
		},
	}, nil
}

// locker returns what locks an account, and tells the log.
func locker(lock *sqldb.Lock, log *slog.Logger) func(context.Context, string) error {
	return func(ctx context.Context, login string) error {
		changed, err := lock.Lock(ctx, login)
		switch {
		case err != nil:
		case changed == 0:
			log.Warn("account not locked: shield_lock_query has changed no row", "login", login)
		default:
			log.Warn("account locked", "login", login)
		}
		return err
	}
}

// shieldInUse is the rule with what it has running.
type shieldInUse struct {
	*rules.Shield
	counts  *sharedLedger
	purges  []*purger
	started bool
}

// Start implements starter.
func (u *shieldInUse) Start() {
	u.started = true
	u.counts.start()
	u.Shield.Start()
	for _, p := range u.purges {
		p.start()
	}
}

// Close implements closer.
func (u *shieldInUse) Close() error {
	if !u.started {
		return nil
	}
	for _, p := range u.purges {
		p.stop()
	}
	return errors.Join(u.Shield.Close(), u.counts.stop())
}
