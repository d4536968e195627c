package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"

	"dovepost/cmd/internal/daemon"
	"dovepost/policy"
	"dovepost/policy/rules"
	"dovepost/policy/sqldb"
)

// greylistRule is the rule greylist.
type greylistRule struct {
	delay, window, lifetime time.Duration
	autoAllow               int
	ipv4Bits, ipv6Bits      int
	optIn                   bool
	nullSender              bool
	header                  bool
	allow, mynetworks       string
}

func (*greylistRule) name() string { return "greylist" }

func (g *greylistRule) flags(fs *pflag.FlagSet) {
	daemon.DurationVar(fs, &g.delay, "greylist_delay", rules.DefaultGreylistDelay, "how long mail of strangers is put off")
	daemon.DurationVar(fs, &g.window, "greylist_retry_window", rules.DefaultGreylistWindow, "how long a stranger may take to try again")
	daemon.DurationVar(fs, &g.lifetime, "greylist_lifetime", rules.DefaultGreylistLifetime, "how long who has passed is known after his last mail")
	fs.IntVar(&g.autoAllow, "greylist_auto_allow", rules.DefaultGreylistAutoAllow, "after so many passes the client's network passes; 0: never")
	fs.IntVar(&g.ipv4Bits, "greylist_ipv4_prefix", rules.DefaultGreylistIPv4Bits, "`bits` of an IPv4 network whose clients are one")
	fs.IntVar(&g.ipv6Bits, "greylist_ipv6_prefix", rules.DefaultGreylistIPv6Bits, "the same for IPv6")
	daemon.BoolVar(fs, &g.optIn, "greylist_opt_in", false, "greylist only the recipients that have a row saying so")
	daemon.BoolVar(fs, &g.nullSender, "greylist_null_sender", true, "greylist bounces, at DATA or at the end of the message, if policyd is asked there")
	daemon.BoolVar(fs, &g.header, "greylist_header", false, "tell in X-Greylist how long mail was put off")
	fs.StringVar(&g.allow, "greylist_allow", "", "`FILE` of clients that are never put off: addresses, networks, host names, .domains")
	fs.StringVar(&g.mynetworks, "mynetworks", "127.0.0.0/8 [::1]/128", "`networks` that are never put off, as in main.cf")
}

func (g *greylistRule) check() error {
	switch {
	case g.delay < time.Second:
		return fmt.Errorf("greylist_delay: %v is less than a second", g.delay)
	case g.window <= g.delay:
		return fmt.Errorf("greylist_retry_window: %v is not longer than greylist_delay, %v: nobody would ever pass", g.window, g.delay)
	case g.lifetime < time.Minute:
		return fmt.Errorf("greylist_lifetime: %v is less than a minute", g.lifetime)
	case g.autoAllow < 0:
		return fmt.Errorf("greylist_auto_allow: %d is negative", g.autoAllow)
	case g.ipv4Bits < 8 || g.ipv4Bits > 32:
		return fmt.Errorf("greylist_ipv4_prefix: %d is not between 8 and 32", g.ipv4Bits)
	case g.ipv6Bits < 16 || g.ipv6Bits > 128:
		return fmt.Errorf("greylist_ipv6_prefix: %d is not between 16 and 128", g.ipv6Bits)
	}
	return nil
}

func (g *greylistRule) build(_ context.Context, b *builder) (policy.Decider, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	own, err := rules.ParseNetworks(g.mynetworks)
	if err != nil {
		return nil, fmt.Errorf("mynetworks: %w", err)
	}
	var allow *rules.Clients // nil: nobody
	if g.allow != "" {
		if allow, err = readFile(g.allow, rules.ReadClients); err != nil {
			return nil, err
		}
	}
	db, err := b.database(sqldb.GreylistStatements...)
	if err != nil {
		return nil, err
	}
	store := sqldb.NewGreylist(db)
	list := &rules.Greylist{
		Store: store, Delay: g.delay, Window: g.window, Lifetime: g.lifetime, AutoAllow: g.autoAllow,
		IPv4Bits: g.ipv4Bits, IPv6Bits: g.ipv6Bits, OptIn: g.optIn, NullSender: g.nullSender,
		Delimiter: b.delimiter, Allow: []*rules.Clients{own, allow},
	}
	if g.header {
		host, err := os.Hostname()
		if err != nil {
			return nil, err
		}
		list.Header = host
	}
	purge := func(ctx context.Context) (bool, error) { return store.Purge(ctx, purgeRows) }
	return &greylist{list, &purger{rule: g.name(), purge: purge, log: b.Log}}, nil
}

// greylist is the rule in use, which deletes what it has forgotten.
type greylist struct {
	*rules.Greylist
	purger *purger
}

// Start implements starter.
func (g *greylist) Start() { g.purger.start() }

// Close implements closer.
func (g *greylist) Close() error {
	g.purger.stop()
	return nil
}
