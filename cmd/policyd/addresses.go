package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"dovepost/lookup"
	"dovepost/lookup/fold"
	"dovepost/lookup/ladder"
	"dovepost/lookup/mysql"
	"dovepost/lookup/postconf"
)

// addresses is what Postfix knows of addresses: the tables of main.cf with --postfix, else the
// built-in ones of --mysql. Maps that Postfix does not have are nil.
type addresses struct {
	*ladder.Expander
	delimiter string

	local          map[string]bool // folded: mydestination, delivered by local(8)
	aliasDomains   lookup.Map
	mailboxDomains lookup.Map
	mailboxes      lookup.Map
	transports     lookup.Map
	transport      string       // virtual_transport
	owners         lookup.Map   // smtpd_sender_login_maps
	literal        []lookup.Map // mailboxes, aliases and owners, by the whole address alone
}

// addresses returns what Postfix knows, made once for all rules.
func (b *builder) addresses() (*addresses, error) {
	if b.known != nil {
		return b.known, nil
	}
	var err error
	switch {
	case b.postfix != "":
		b.known, err = b.postfixAddresses()
	case b.mysql != "":
		b.known, err = b.seedAddresses()
	default:
		err = errors.New("there is neither postfix = DIR nor mysql = FILE to look addresses up")
	}
	return b.known, err
}

// seedAddresses has the tables that lookupd serves with --mysql alone.
func (b *builder) seedAddresses() (*addresses, error) {
	f, err := b.file(b.mysql)
	if err != nil {
		return nil, err
	}
	files := mysql.Seed(f)
	a := &addresses{Expander: &ladder.Expander{}, delimiter: b.delimiter, transport: "virtual"}
	for name, to := range map[string]*lookup.Map{
		"virtual_mailbox_domains": &a.mailboxDomains, "virtual_mailbox_maps": &a.mailboxes,
		"virtual_alias_maps": &a.Aliases, "smtpd_sender_login_maps": &a.owners,
	} {
		p := b.parameter(name, "virtual", nil)
		list := []*mysql.File{files[name]}
		if p.kind == ladder.Alias {
			list = append(list, files["virtual_mailbox_maps"]) // a mailbox comes before a catch-all
		}
		if *to, err = b.ask(p, list...); err != nil {
			return nil, err
		}
	}
	literal, err := b.ask(parameter{name: "addresses", kind: ladder.Exact}, files["virtual_mailbox_maps"], files["virtual_alias_maps"])
	a.literal = []lookup.Map{literal}
	return a, err
}

// parameter says how Postfix looks into the tables of a parameter.
func (b *builder) parameter(name, propagate string, local []string) parameter {
	kinds := map[string]ladder.Kind{
		"virtual_alias_maps": ladder.Alias, "canonical_maps": ladder.Alias, "recipient_canonical_maps": ladder.Alias,
		"virtual_alias_domains": ladder.Domain, "virtual_mailbox_domains": ladder.Domain, "transport_maps": ladder.Transport,
	}
	class := "virtual"
	if strings.HasSuffix(name, "canonical_maps") {
		class = "canonical"
	}
	return parameter{name: name, kind: cmp.Or(kinds[name], ladder.Address), options: ladder.Options{
		RecipientDelimiter: b.delimiter, LocalDomains: local, Parents: ladder.DotParents,
		Propagate: strings.Contains(propagate, class),
	}}
}

// postfixAddresses reads main.cf.
func (b *builder) postfixAddresses() (*addresses, error) {
	c, err := postconf.Read(b.postfix)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for _, name := range []string{"propagate_unmatched_extensions", "parent_domain_matches_subdomains", "myorigin", "virtual_transport",
		"virtual_alias_recursion_limit", "virtual_alias_expansion_limit", "virtual_alias_address_length_limit",
		"canonical_classes", "recipient_canonical_classes"} {
		if values[name], err = c.Value(name); err != nil {
			return nil, fmt.Errorf("%s: %w", b.postfix, err)
		}
	}
	a := &addresses{delimiter: b.delimiter, transport: values["virtual_transport"], local: map[string]bool{}}
	a.Expander = &ladder.Expander{Origin: values["myorigin"]}
	for name, to := range map[string]*int{"virtual_alias_recursion_limit": &a.MaxNesting,
		"virtual_alias_expansion_limit": &a.MaxAddresses, "virtual_alias_address_length_limit": &a.MaxLength} {
		if values[name] == "" {
			continue
		}
		if *to, err = strconv.Atoi(values[name]); err != nil || *to < 1 {
			return nil, fmt.Errorf("%s: %s = %s: not a number", b.postfix, name, values[name])
		}
	}
	domains, err := c.LocalDomains()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.postfix, err)
	}
	own, err := c.Words("mydestination")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.postfix, err)
	}
	for _, domain := range own {
		a.local[fold.String(domain)] = true
	}
	if err := b.postfixTables(c, a, values, domains); err != nil {
		return nil, fmt.Errorf("%s: %w", b.postfix, err)
	}
	return a, nil
}

// postfixTables makes the maps of main.cf.
func (b *builder) postfixTables(c *postconf.Config, a *addresses, values map[string]string, domains []string) error {
	canonical := make([]lookup.Map, 2)
	for name, to := range map[string]*lookup.Map{
		"recipient_canonical_maps": &canonical[0], "canonical_maps": &canonical[1], "virtual_alias_maps": &a.Aliases,
		"virtual_alias_domains": &a.aliasDomains, "virtual_mailbox_domains": &a.mailboxDomains, "virtual_mailbox_maps": &a.mailboxes,
		"transport_maps": &a.transports, "smtpd_sender_login_maps": &a.owners,
	} {
		if !forRecipients(values[strings.TrimSuffix(name, "maps")+"classes"]) {
			continue
		}
		tables, err := c.Tables(name)
		if err != nil {
			return err
		}
		p := b.parameter(name, values["propagate_unmatched_extensions"], domains)
		if name == "transport_maps" && strings.Contains(values["parent_domain_matches_subdomains"], name) {
			p.options.Parents = ladder.BareParents
		}
		if *to, err = b.table(p, tables); err != nil {
			return err
		}
		if *to == nil || p.kind != ladder.Address && name != "virtual_alias_maps" {
			continue
		}
		literal, err := b.table(parameter{name: name, kind: ladder.Exact}, tables)
		if err != nil {
			return err
		}
		a.literal = append(a.literal, literal)
	}
	for _, m := range canonical {
		if m != nil {
			a.Canonical = append(a.Canonical, m)
		}
	}
	return nil
}

// forRecipients reports whether a canonical map with these classes is asked about recipients. Empty: it
// has the default, or the map is none of these.
func forRecipients(classes string) bool {
	return classes == "" || strings.Contains(classes, "envelope_recipient")
}

// Base returns an address without its extension, unless the whole address is in a table: then it is
// an address of its own. Errors: of a map.
func (a *addresses) Base(ctx context.Context, address string) (string, error) {
	base, ext := ladder.Split(address, a.delimiter)
	if ext == "" {
		return address, nil
	}
	for _, m := range a.literal {
		for _, key := range slices.Compact([]string{ladder.Quote(address), address}) {
			if yes, _, err := has(ctx, m, key); yes || err != nil {
				return address, err
			}
		}
	}
	return base, nil
}

// kept reports whether Postfix hands the mail of a final recipient to virtual_transport, for a
// mailbox that it knows. Errors: of a map.
func (a *addresses) kept(ctx context.Context, address string) (bool, error) {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return false, nil
	}
	domain := fold.String(address[at+1:])
	if a.local[domain] || a.mailboxDomains == nil {
		return false, nil
	}
	if yes, _, err := has(ctx, a.aliasDomains, domain); yes || err != nil {
		return false, err
	}
	if yes, _, err := has(ctx, a.mailboxDomains, domain); !yes || err != nil {
		return false, err
	}
	if a.mailboxes != nil {
		if yes, _, err := has(ctx, a.mailboxes, ladder.Quote(address)); !yes || err != nil {
			return false, err
		}
	}
	yes, transport, err := has(ctx, a.transports, ladder.Quote(address))
	return err == nil && (!yes || a.ours(transport)), err
}

// has asks a map, which may be nil.
func has(ctx context.Context, m lookup.Map, key string) (yes bool, value string, err error) {
	if m == nil {
		return false, "", nil
	}
	values, err := m.Lookup(ctx, key)
	if errors.Is(err, lookup.ErrNotFound) {
		return false, "", nil
	}
	return err == nil, strings.Join(values, ","), err
}

// ours reports whether a transport of transport_maps leads to the mailboxes here: it is
// virtual_transport, or the same service, or virtual(8), without another next hop.
func (a *addresses) ours(transport string) bool {
	name, nexthop, _ := strings.Cut(transport, ":")
	service, _, _ := strings.Cut(a.transport, ":")
	return transport == a.transport || nexthop == "" && (name == "" || name == service || name == "virtual")
}
