package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"dovepost/lookup"
	"dovepost/lookup/mysql"
	"dovepost/policy/ledger"
	"dovepost/policy/rules"
)

// held lists the accounts that are held, or all that have a state.
func (p *policyTables) held(all bool) error {
	state, titles := rules.ShieldHeld, []string{"LOGIN", "SINCE", "RULE", "REASON"}
	if all {
		state, titles = "", append(titles, "STATE")
	}
	accounts, err := p.db.Shield().Accounts(p.ctx, state)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, a := range accounts {
		row := []string{printable(a.Login), ago(a.Age), "shield", printable(a.Reason)}
		if all {
			row = append(row, a.State)
		}
		rows = append(rows, row)
	}
	return p.table(titles, rows)
}

func (p *policyTables) release(login string) error {
	released, err := p.db.Shield().Change(p.ctx, rules.AccountKey(strings.ToLower(login)), rules.ShieldHeld, rules.ShieldReleased)
	if err == nil && !released {
		err = fmt.Errorf("%s: no account of that name is held: %w", login, errNotThere)
	}
	return err
}

// network returns the network that a client belongs to, as policyd counts it.
func (p *policyTables) network(text string) (string, error) {
	if network, err := netip.ParsePrefix(text); err == nil {
		return network.Masked().String(), nil
	}
	address, err := netip.ParseAddr(text)
	if err != nil {
		return "", usage("%q is neither an address nor a network", text)
	}
	address = address.Unmap().WithZone("")
	name, bits := "greylist_ipv6_prefix", rules.DefaultGreylistIPv6Bits
	if address.Is4() {
		name, bits = "greylist_ipv4_prefix", rules.DefaultGreylistIPv4Bits
	}
	if value := p.settings[name]; value != "" {
		if bits, err = strconv.Atoi(value); err != nil {
			return "", exitError{exitConfig, fmt.Errorf("%s: %w", name, err)}
		}
	}
	network, err := address.Prefix(bits)
	if err != nil {
		return "", exitError{exitConfig, fmt.Errorf("%s: %w", name, err)}
	}
	return network.String(), nil
}

func (p *policyTables) showNetwork(text string) error {
	network, err := p.network(text)
	if err != nil {
		return err
	}
	entries, err := p.greylist().Entries(p.ctx, network)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return fmt.Errorf("%s: the greylist does not know it: %w", network, errNotThere)
	}
	var rows [][]string
	for _, e := range entries {
		state := "waits"
		switch {
		case e.Recipient == "":
			state = fmt.Sprintf("%d passes", e.Passes)
			rows = append(rows, []string{e.Network, "*", "*", "-", state, ago(-e.Left)})
			continue
		case e.Passes > 0:
			state = "passes"
		}
		rows = append(rows, []string{e.Network, sender(e.Sender), printable(e.Recipient), ago(e.Age), state, ago(-e.Left)})
	}
	return p.table([]string{"NETWORK", "SENDER", "RECIPIENT", "FIRST SEEN", "STATE", "UNTIL"}, rows)
}

func sender(address string) string {
	if address == "" {
		return "<>"
	}
	return printable(address)
}

func (p *policyTables) removeNetwork(text string) error {
	network, err := p.network(text)
	if err != nil {
		return err
	}
	n, err := p.greylist().Remove(p.ctx, network)
	if err == nil && n == 0 {
		err = fmt.Errorf("%s: the greylist does not know it: %w", network, errNotThere)
	}
	return err
}

// showRate shows the limits of names, and how much of them is used.
func (p *policyTables) showRate(names []string) error {
	rate, err := p.rate()
	if err != nil {
		return err
	}
	counters := p.db.RateCounters()
	var rows [][]string
	for _, name := range names {
		name = strings.ToLower(name)
		whose, of := "login", 0
		login := name
		if strings.HasPrefix(name, "@") {
			whose, of, login = "domain", 1, "postmaster"+name
		}
		asks, err := rate.Asks(p.ctx, login)
		if err != nil {
			return err
		}
		if of >= len(asks) || len(asks[of].Limits) == 0 {
			rows = append(rows, []string{printable(name), whose, "unlimited", "-"})
			continue
		}
		for _, limit := range asks[of].Limits {
			key := ledger.Key{Name: asks[of].Name, Step: int64(ledger.StepOf(limit.Window) / time.Second)}
			counted, now, err := counters.Read(p.ctx, 0, []ledger.Want{{Key: key}})
			if err != nil {
				return err
			}
			used := ledger.SumOf(counted, now, limit.Window)[limit.What]
			rows = append(rows, []string{printable(name), whose, rules.RateLimits{Limits: []ledger.Limit{limit}}.String(), strconv.FormatInt(used, 10)})
		}
	}
	return p.table([]string{"NAME", "OF", "LIMIT", "USED"}, rows)
}

// rate returns the limits that the settings, and the tables that they name, have.
func (p *policyTables) rate() (*rules.Rate, error) {
	rate := &rules.Rate{Log: p.log}
	var err error
	if rate.Default, err = rules.ParseRateLimits(cmp.Or(p.settings["rate_limits"], "unlimited")); err == nil {
		rate.DefaultTotal, err = rules.ParseRateLimits(cmp.Or(p.settings["rate_total_limits"], "unlimited"))
	}
	if err == nil {
		rate.Logins, err = p.limits("rate_limits_maps", func(row rules.RateRow) string { return row.Limits })
	}
	if err == nil {
		rate.Totals, err = p.limits("rate_total_limits_maps", func(row rules.RateRow) string { return row.Total })
	}
	if err != nil {
		return nil, exitError{exitConfig, err}
	}
	return rate, nil
}

// limits returns the lookup of limits in the files of a setting, or else in the table rate_limits.
func (p *policyTables) limits(setting string, of func(rules.RateRow) string) (rules.RateLookup, error) {
	files := strings.FieldsFunc(p.settings[setting], func(r rune) bool { return strings.ContainsRune(", \t", r) })
	if len(files) == 0 {
		return func(ctx context.Context, name string) (string, bool, error) {
			rows, err := p.db.RateLimits().Rows(ctx)
			i := slices.IndexFunc(rows, func(row rules.RateRow) bool { return strings.ToLower(row.Name) == name })
			if err != nil || i < 0 {
				return "", false, err
			}
			return of(rows[i]), true, nil
		}, nil
	}
	var tables mysql.Set
	for _, path := range files {
		f, err := mysql.ReadFile(strings.TrimPrefix(strings.TrimPrefix(path, "proxy:"), "mysql:"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", setting, err)
		}
		table, err := mysql.NewTable(f, p.open(f))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", setting, err)
		}
		tables = append(tables, table)
	}
	return func(ctx context.Context, name string) (string, bool, error) {
		ctx, cancel := context.WithTimeout(ctx, p.timeout)
		defer cancel()
		values, err := tables.Lookup(ctx, name)
		if errors.Is(err, lookup.ErrNotFound) {
			return "", false, nil
		}
		return strings.Join(values, ", "), err == nil, err
	}, nil
}

func (p *policyTables) resetRate(name string) error {
	name = strings.ToLower(name)
	key := rules.AccountKey(name)
	if strings.HasPrefix(name, "@") {
		key = rules.DomainKey(name)
	}
	return p.db.RateCounters().Reset(p.ctx, key)
}

// ago is a time in the past, or, for less than nothing, in the future, to the second.
func ago(age time.Duration) string {
	return time.Now().Add(-age).Format(time.DateTime)
}

// printable has no tabs and nothing that a terminal would act upon.
func printable(s string) string {
	if s == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
