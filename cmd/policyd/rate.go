package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"dovepost/cmd/internal/daemon"
	"dovepost/lookup"
	"dovepost/lookup/cache"
	"dovepost/policy"
	"dovepost/policy/ledger"
	"dovepost/policy/rules"
	"dovepost/policy/sqldb"
)

// rateRule is the rule rate: what logged-in clients may send.
type rateRule struct {
	limits, totals         string
	limitsMaps, totalsMaps string
	action                 string
	sync                   time.Duration

	counts sharedLedger
	cache  *cache.Cache
}

const (
	rateFresh     = 3 * time.Second // of limits: a change is live by then
	rateStale     = 24 * time.Hour
	rateCacheSize = 8 << 20
	closeTimeout  = 5 * time.Second
)

func (*rateRule) name() string { return "rate" }

func (r *rateRule) flags(fs *pflag.FlagSet) {
	fs.StringVar(&r.limits, "rate_limits", "unlimited", "what a login may send: `LIMITS` such as 100 messages/1h, 1000 recipients/1d, 500M bytes/1d")
	fs.StringVar(&r.totals, "rate_total_limits", "unlimited", "what all logins of a domain may send together: `LIMITS`")
	fs.StringVar(&r.limitsMaps, "rate_limits_maps", "", "look limits up by login, then by @domain, in these mysql_table(5) `FILES` instead of the table rate_limits")
	fs.StringVar(&r.totalsMaps, "rate_total_limits_maps", "", "the same, by @domain, for all logins of a domain together")
	fs.StringVar(&r.action, "rate_action", rules.DefaultRateAction.String(), "`action` on excess: REJECT, DEFER, HOLD or any other of access(5); when it ends is added to its text")
	daemon.DurationVar(fs, &r.sync, "rate_sync_interval", ledger.DefaultInterval, "how old the counts of other machines may be")
}

func (r *rateRule) build(_ context.Context, b *builder) (policy.Decider, error) {
	rate := &rules.Rate{Log: b.Log}
	var err error
	if rate.Default, err = rules.ParseRateLimits(r.limits); err != nil {
		return nil, fmt.Errorf("rate_limits: %w", err)
	}
	if rate.DefaultTotal, err = rules.ParseRateLimits(r.totals); err != nil {
		return nil, fmt.Errorf("rate_total_limits: %w", err)
	}
	if rate.Action, err = policy.ParseAction(r.action); err != nil {
		return nil, fmt.Errorf("rate_action: %w", err)
	}
	if rate.Action.IsDunno() {
		return nil, errors.New("rate_action: DUNNO limits nothing; WARN is for trying limits out")
	}
	if r.sync < 10*time.Millisecond || r.sync > time.Minute {
		return nil, fmt.Errorf("rate_sync_interval: %v is not between 10ms and 1 minute", r.sync)
	}
	inUse := &rateInUse{Rate: rate, counts: &r.counts}
	var db *sqldb.DB
	if b.mysql != "" {
		if db, err = b.database(); err != nil {
			return nil, err
		}
		counters := db.RateCounters()
		b.wants(db, counters.Statements()...)
		b.prepare(db.Pool(), counters.Prepare)
		inUse.purger = &purger{rule: "rate", purge: counters.Purge, log: b.Log}
		r.counts.next(db.Pool(), counters)
	} else {
		r.counts.next(nil, nil)
	}
	rate.Ledger = r.counts.ledger(r.sync)
	return inUse, r.lookups(b, db, inUse)
}

// lookups says where the limits are.
func (r *rateRule) lookups(b *builder, db *sqldb.DB, u *rateInUse) (err error) {
	if r.cache == nil {
		r.cache = cache.New(rateFresh, rateCacheSize)
		r.cache.Stale, r.cache.Timeout, r.cache.Patience, r.cache.Log = rateStale, b.lookupTimeout, b.lookupTimeout*4/5, b.Log
	}
	if u.Rate.Logins, err = r.maps(b, r.limitsMaps); err != nil {
		return fmt.Errorf("rate_limits_maps: %w", err)
	}
	if u.Rate.Totals, err = r.maps(b, r.totalsMaps); err != nil {
		return fmt.Errorf("rate_total_limits_maps: %w", err)
	}
	if db == nil || r.limitsMaps != "" && r.totalsMaps != "" {
		return nil
	}
	source := db.RateLimits()
	b.wants(db, source.Statements()...)
	u.table = &rules.RateTable{Source: source, Every: rateFresh, Log: b.Log}
	if r.limitsMaps == "" {
		u.Rate.Logins = u.table.Logins
	}
	if r.totalsMaps == "" {
		u.Rate.Totals = u.table.Totals
	}
	return nil
}

// maps returns the lookup in table files; nil without any.
func (r *rateRule) maps(b *builder, files string) (rules.RateLookup, error) {
	tables, err := b.openAll(files)
	if err != nil {
		return nil, err
	}
	var all []*cache.Map
	for _, t := range tables {
		all = append(all, r.cache.Map("rate "+t.file.Path+" "+t.file.Digest(), guarded{t.table, t.breaker}))
	}
	if all == nil {
		return nil, nil
	}
	return func(ctx context.Context, name string) (string, bool, error) {
		for _, m := range all {
			values, err := m.Lookup(ctx, name)
			if err == nil {
				return strings.Join(values, ", "), true, nil
			}
			if !errors.Is(err, lookup.ErrNotFound) {
				return "", false, err
			}
		}
		return "", false, nil
	}, nil
}

// rateInUse is the rule with what it has running.
type rateInUse struct {
	*rules.Rate
	counts  *sharedLedger
	table   *rules.RateTable // may be nil
	purger  *purger          // nil without a database
	started bool
}

// Start implements starter.
func (u *rateInUse) Start() {
	u.started = true
	u.counts.start()
	if u.table != nil {
		u.table.Start()
	}
	if u.purger != nil {
		u.purger.start()
	}
}

// Close implements closer.
func (u *rateInUse) Close() error {
	if !u.started {
		return nil
	}
	u.purger.stop()
	if u.table != nil {
		u.table.Close()
	}
	return u.counts.stop()
}
