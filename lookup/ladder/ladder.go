// Package ladder searches tables as Postfix does: from the whole key down to its parts.
//
// Postfix walks user+ext@domain, user@domain, @domain and the like only for
// tables that it opens itself, such as mysql_table(5). A socketmap or a tcp table
// gets the whole key once and unfolded, so the walk is the server's business, and
// each Postfix parameter has its own: mail_addr_find, mail_addr_map (virtual(5),
// canonical(5)), transport(5), access(5), and the match lists of domains.
//
// The outer loop is the form of the key and the inner one the tables, in their
// order: a whole address in the last table beats an @domain in the first. The
// first answer or the first error ends the search.
//
// Recursion stays with Postfix: an alias is expanded once for each request. An Expander is for
// those who must know the end of it before Postfix does.
package ladder

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"dovepost/lookup"
	"dovepost/lookup/fold"
)

// Kind says which keys are tried, and in which order.
type Kind string

const (
	// Address is for tables about one address that answer with something else:
	// virtual_mailbox_maps, smtpd_sender_login_maps, relay_recipient_maps, *_bcc_maps,
	// sender_dependent_*_maps, relocated_maps. Keys: user+ext@domain, user@domain,
	// [user+ext, user in local domains,] @domain; each quoted as in a message and,
	// where that differs, unquoted.
	Address Kind = "address"
	// Alias is for tables that answer with addresses: virtual_alias_maps,
	// canonical_maps, generic maps. Keys as Address, but quoted ones only. The part
	// +ext that did not match is passed on to each address of the answer, and
	// @other becomes user@other.
	Alias Kind = "alias"
	// Domain is for lists of domains: virtual_mailbox_domains, virtual_alias_domains,
	// mydestination. Keys: the domain.
	Domain Kind = "domain"
	// DomainParents is for relay_domains and check_helo_access. Keys: the domain and
	// each parent of it; an IP address has no parents.
	DomainParents Kind = "domain-parents"
	// Transport is for transport_maps. Keys: user+ext@domain, user@domain, domain,
	// .parent, and so on. Postfix asks for "*" itself.
	Transport Kind = "transport"
	// AccessAddress is for check_sender_access and check_recipient_access. Keys:
	// user+ext@domain, user@domain, domain, parents, user+ext@, user@; or "<>".
	AccessAddress Kind = "access-address"
	// AccessClient is for check_client_access. Keys: a host name and its parents, or
	// an IP address and its networks: 192.0.2.1, 192.0.2, 192.0, 192.
	AccessClient Kind = "access-client"
	// Exact asks for the key and nothing else: check_sasl_access, smtp_tls_policy_maps,
	// or any parameter whose keys Postfix walks itself.
	Exact Kind = "exact"
)

var kinds = []Kind{Address, Alias, Domain, DomainParents, Transport, AccessAddress, AccessClient, Exact}

// ParseKind returns the kind of that name.
func ParseKind(name string) (Kind, error) {
	if k := Kind(name); slices.Contains(kinds, k) {
		return k, nil
	}
	return "", fmt.Errorf("unknown kind %q; want one of %s", name, strings.Trim(fmt.Sprint(kinds), "[]"))
}

// Options are the settings of Postfix that have a say in the keys.
type Options struct {
	// RecipientDelimiter is the set of characters that begin an address extension.
	// Empty: addresses have none. Postfix's recipient_delimiter.
	RecipientDelimiter string
	// Propagate passes unmatched extensions on, in Alias. Postfix's
	// propagate_unmatched_extensions holds the class of the parameter.
	Propagate bool
	// LocalDomains are the domains whose addresses are also looked up as bare user
	// names, as Postfix does with those in myorigin and mydestination.
	LocalDomains []string
	// Parents says how a parent domain is written.
	Parents ParentStyle
}

// ParentStyle is how a parent domain stands in a table.
type ParentStyle int

const (
	// DefaultParents is what Postfix does by default: BareParents for relay_domains
	// and access maps, DotParents for transport_maps.
	DefaultParents ParentStyle = iota
	// BareParents matches subdomains with example.com: the parameter is listed in
	// parent_domain_matches_subdomains.
	BareParents
	// DotParents matches them with .example.com.
	DotParents
)

// Ladder is a map of tables that each know literal keys only.
type Ladder struct {
	kind      Kind
	tables    []lookup.Map
	all       firster // the tables, if they can be asked for several keys at once
	delimiter string
	propagate bool
	local     map[string]bool // folded
	dots      bool
}

// firster is tables that can be asked for several keys at once. First returns what
// comes of asking all tables for keys[0], then for keys[1] and so on until there are
// values or an error, and the place of the key that led to it.
type firster interface {
	First(ctx context.Context, keys []string) (index int, values []string, err error)
}

// New returns the map that one Postfix parameter of the given kind sees in tables. One
// that has the method First, such as a mysql.Set, is asked for all forms of a key
// at once.
func New(kind Kind, tables []lookup.Map, o Options) *Ladder {
	l := &Ladder{
		kind:      kind,
		tables:    tables,
		delimiter: o.RecipientDelimiter,
		propagate: o.Propagate,
		local:     map[string]bool{},
		dots:      o.Parents == DotParents || o.Parents == DefaultParents && kind == Transport,
	}
	if len(tables) == 1 {
		l.all, _ = tables[0].(firster)
	}
	for _, domain := range o.LocalDomains {
		l.local[fold.String(domain)] = true
	}
	return l
}

// Lookup answers a key that Postfix sent, whole and unfolded. A key that is empty,
// not UTF-8 or has a NUL cannot be in a table: it is not found, as in Postfix.
//
// Errors: lookup.ErrNotFound when no table has any form of the key, or the first
// error of a table; and an alias whose value holds no address, which is
// temporary in Postfix, too.
func (l *Ladder) Lookup(ctx context.Context, key string) ([]string, error) {
	if key == "" || !utf8.ValidString(key) || strings.IndexByte(key, 0) >= 0 {
		return nil, lookup.ErrNotFound
	}
	if l.all != nil {
		return l.askAll(ctx, key)
	}
	for f := range l.forms(key) {
		values, err := l.ask(ctx, fold.String(f.key))
		if err != lookup.ErrNotFound {
			return l.answer(f, values, err)
		}
	}
	return nil, lookup.ErrNotFound
}

// answer is what a form of the key came to.
func (l *Ladder) answer(f form, values []string, err error) ([]string, error) {
	switch {
	case err != nil:
		return nil, err
	case l.kind == Alias:
		return f.addresses(values, l.propagate)
	}
	return values, nil
}

// askAll asks for all forms of the key.
func (l *Ladder) askAll(ctx context.Context, key string) ([]string, error) {
	forms := make([]form, 0, 4)
	keys := make([]string, 0, 4)
	for f := range l.forms(key) {
		forms = append(forms, f)
		keys = append(keys, fold.String(f.key))
	}
	i, values, err := l.all.First(ctx, keys)
	switch {
	case errors.Is(err, lookup.ErrNotFound):
		return nil, lookup.ErrNotFound
	case err != nil:
		return nil, err
	}
	return l.answer(forms[i], values, nil)
}

// ask asks the tables for one form of the key.
func (l *Ladder) ask(ctx context.Context, key string) ([]string, error) {
	for _, t := range l.tables {
		values, err := t.Lookup(ctx, key)
		if !errors.Is(err, lookup.ErrNotFound) {
			return values, err
		}
	}
	return nil, lookup.ErrNotFound
}
