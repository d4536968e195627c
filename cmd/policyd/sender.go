package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/pflag"

	"dovepost/auth/guard"
	"dovepost/cmd/internal/daemon"
	"dovepost/lookup"
	"dovepost/lookup/fold"
	"dovepost/lookup/ladder"
	"dovepost/policy"
	"dovepost/policy/rules"
	"dovepost/policy/sqldb"
)

// senderRule is the rule sender. How login names are written it has of auth_username_format.
type senderRule struct {
	aliases, null, grants bool
	local, exempt         string
}

func (*senderRule) name() string { return "sender" }

func (s *senderRule) flags(fs *pflag.FlagSet) {
	daemon.BoolVar(fs, &s.aliases, "sender_aliases", true, "who gets the mail of an address may send as it")
	daemon.BoolVar(fs, &s.null, "sender_null", true, "who has logged in may send as the null sender")
	daemon.BoolVar(fs, &s.grants, "sender_grants", false, "ask the table sender_grants on the server of mysql, too")
	fs.StringVar(&s.local, "sender_local", "DUNNO", "`action` for a client without a login that sends as an address of a domain of ours")
	fs.StringVar(&s.exempt, "sender_local_exempt", "127.0.0.0/8 [::1]/128", "`networks` whom sender_local is not for")
}

func (s *senderRule) build(_ context.Context, b *builder) (policy.Decider, error) {
	a, err := b.addresses()
	if err != nil {
		return nil, err
	}
	l := &logins{addresses: a}
	if l.names, err = b.mail.Names(); err != nil {
		return nil, err
	}
	if s.grants {
		if l.grants, err = b.database(sqldb.GrantStatement); err != nil {
			return nil, err
		}
	}
	rule := &rules.Sender{Logins: l, Aliases: s.aliases, Null: s.null}
	if rule.Local, err = policy.ParseAction(s.local); err != nil {
		return nil, errors.Join(errors.New("sender_local"), err)
	}
	rule.Exempt, err = rules.ParseNetworks(s.exempt)
	return rule, err
}

// logins is rules.Logins.
type logins struct {
	*addresses
	names  *guard.Names
	grants *sqldb.DB // nil: there are none
}

// Account implements rules.Logins.
func (l *logins) Account(login string) (string, bool) {
	name, err := l.names.Canonical(login)
	return name, err == nil && name != ""
}

// Owners implements rules.Logins.
func (l *logins) Owners(ctx context.Context, address string) (owners []string, err error) {
	if l.owners != nil {
		values, err := l.owners.Lookup(ctx, ladder.Quote(address))
		if err != nil && !errors.Is(err, lookup.ErrNotFound) {
			return nil, err
		}
		for _, value := range values {
			owners = append(owners, strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })...)
		}
	}
	if l.grants != nil {
		base, err := l.Base(ctx, address)
		if err != nil {
			return nil, err
		}
		granted, err := l.grants.Grants(ctx, address, base)
		if err != nil {
			return nil, err
		}
		owners = append(owners, granted...)
	}
	return owners, nil
}

// Reaches implements rules.Logins.
func (l *logins) Reaches(ctx context.Context, address, account string, aliases bool) (bool, error) {
	if yes, err := l.is(ctx, address, account); yes || err != nil || !aliases {
		return yes, err
	}
	for target, err := range l.Expand(ctx, address) {
		if err != nil {
			return false, err
		}
		if yes, err := l.is(ctx, target, account); yes || err != nil {
			return yes, err
		}
	}
	return false, nil
}

// is reports whether an address is that of the account. Where the names of accounts have no
// domain, that of the address must be one of ours.
func (l *logins) is(ctx context.Context, address, account string) (bool, error) {
	base, err := l.Base(ctx, address)
	if err != nil {
		return false, err
	}
	for _, addr := range []string{address, base} {
		if strings.EqualFold(addr, account) {
			return true, nil
		}
		if name, ok := l.Account(addr); ok && name == account {
			return l.Local(ctx, addr)
		}
	}
	return false, nil
}

// Local implements rules.Logins.
func (l *logins) Local(ctx context.Context, address string) (bool, error) {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return false, nil
	}
	domain := fold.String(address[at+1:])
	if l.local[domain] {
		return true, nil
	}
	for _, m := range []lookup.Map{l.mailboxDomains, l.aliasDomains} {
		if yes, _, err := has(ctx, m, domain); yes || err != nil {
			return yes, err
		}
	}
	return false, nil
}
