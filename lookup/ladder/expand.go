package ladder

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"dovepost/lookup"
	"dovepost/lookup/fold"
)

// Expander finds out whom a recipient stands for in the end, as cleanup(8) does before
// a message is queued: by the canonical maps, and by virtual_alias_maps, whose answers
// are looked up again until they are nobody's alias. lookupd never does that, since Postfix
// does; it is for those who must know the end before.
type Expander struct {
	Canonical []lookup.Map // recipient_canonical_maps and canonical_maps
	Aliases   lookup.Map   // virtual_alias_maps
	Origin    string       // myorigin, for addresses without a domain

	// Postfix's virtual_alias_recursion_limit, virtual_alias_expansion_limit and
	// virtual_alias_address_length_limit; 0 is its default of 1000 each.
	MaxNesting, MaxAddresses, MaxLength int
}

// ErrExpansion is wrapped by the errors about aliases that Postfix cannot expand either:
// such mail is put off.
var ErrExpansion = errors.New("aliases that have no end")

// maxCanonical is how often a canonical map is asked about its own answer.
const maxCanonical = 10

const defaultExpansion = 1000

// alias is an address on the way, and which it comes from.
type alias struct {
	addr string
	from *alias
}

// comesFrom reports whether addr is one of those that a was made of.
func (a *alias) comesFrom(key string) bool {
	for b := a.from; b != nil; b = b.from {
		if fold.String(b.addr) == key {
			return true
		}
	}
	return false
}

// Expand yields the final recipients of address, each once, as they are found: who needs to
// know of one only may stop there. All addresses are in the internal form, without quotes. The
// first error is the last that it yields: ErrExpansion, or of a map.
func (e *Expander) Expand(ctx context.Context, address string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		first, err := e.canonical(ctx, e.complete(address))
		if err != nil {
			yield("", err)
			return
		}
		x := &expansion{Expander: e, all: []*alias{{addr: first}}, self: map[string]bool{}}
		seen := map[string]bool{}
		for i := 0; i < len(x.all); i++ {
			addr, err := x.settle(ctx, i)
			if err != nil {
				yield("", err)
				return
			}
			key := fold.String(addr)
			if seen[key] {
				continue
			}
			seen[key] = true
			if !yield(addr, nil) {
				return
			}
		}
	}
}

// expansion is one walk through virtual_alias_maps: cleanup_map1n_internal.
type expansion struct {
	*Expander
	all  []*alias
	self map[string]bool // folded: has expanded into itself, and is not expanded again
}

// settle asks for the alias in place i until it is none. Of several answers the first
// takes the place, and the others go to the end.
func (x *expansion) settle(ctx context.Context, i int) (string, error) {
	for nesting := 0; ; nesting++ {
		a := x.all[i]
		key := fold.String(a.addr)
		switch {
		case len(x.all) > limit(x.MaxAddresses):
			return "", fmt.Errorf("%w: %q has more than %d addresses", ErrExpansion, x.all[0].addr, limit(x.MaxAddresses))
		case x.self[key]:
			return a.addr, nil
		case nesting >= limit(x.MaxNesting):
			return "", fmt.Errorf("%w: %q is nested deeper than %d", ErrExpansion, a.addr, limit(x.MaxNesting))
		}
		answers, err := x.ask(ctx, x.Aliases, a.addr)
		if errors.Is(err, lookup.ErrNotFound) {
			return a.addr, nil
		}
		if err != nil {
			return "", err
		}
		if a.comesFrom(key) { // it would come again and again
			return "", fmt.Errorf("%w: %q leads to itself", ErrExpansion, a.addr)
		}
		for n, addr := range answers {
			if len(addr) > limit(x.MaxLength) {
				return "", fmt.Errorf("%w: an address of %q is longer than %d", ErrExpansion, a.addr, limit(x.MaxLength))
			}
			if n == 0 {
				x.all[i] = &alias{addr, a}
			} else {
				x.all = append(x.all, &alias{addr, a})
			}
			if fold.String(addr) == key {
				x.self[key] = true
			}
		}
	}
}

func limit(setting int) int {
	if setting > 0 {
		return setting
	}
	return defaultExpansion
}

// canonical is cleanup_map11_internal for one map after the other.
func (e *Expander) canonical(ctx context.Context, addr string) (string, error) {
	for _, m := range e.Canonical {
		for range maxCanonical {
			answers, err := e.ask(ctx, m, addr)
			if errors.Is(err, lookup.ErrNotFound) {
				break
			}
			if err != nil {
				return "", err
			}
			before := addr
			if addr = answers[0]; fold.String(before) == fold.String(addr) {
				break
			}
		}
	}
	return addr, nil
}

// ask returns the addresses that m has for addr, at least one.
func (e *Expander) ask(ctx context.Context, m lookup.Map, addr string) ([]string, error) {
	if m == nil {
		return nil, lookup.ErrNotFound
	}
	values, err := m.Lookup(ctx, quote(addr))
	if err != nil {
		return nil, err
	}
	answers := parseAddresses(strings.Join(values, ","))
	for i := range answers {
		answers[i] = e.complete(answers[i])
	}
	if len(answers) == 0 || answers[0] == "" {
		return nil, fmt.Errorf("%w: %q stands for no address", ErrExpansion, addr)
	}
	return answers, nil
}

// complete gives an address the form user@domain.
func (e *Expander) complete(addr string) string {
	addr = rewrite(addr)
	if addr == "" || e.Origin == "" || strings.Contains(addr, "@") {
		return addr
	}
	return addr + "@" + e.Origin
}

// Quote returns the external form of an address in the internal one: that in which a
// Ladder is asked.
func Quote(addr string) string { return quote(addr) }

// Addresses returns the addresses in the values of a table, in the internal form.
func Addresses(values []string) []string {
	all := parseAddresses(strings.Join(values, ","))
	for i := range all {
		all[i] = rewrite(all[i])
	}
	return all
}

// Split takes the extension off the local part of an address in the internal form, in
// the same cases as Postfix: user@domain, and +ext, empty if there is none.
func Split(addr, delimiters string) (base, ext string) {
	user, domain := addr, ""
	if at := strings.LastIndexByte(addr, '@'); at >= 0 {
		user, domain = addr[:at], addr[at:]
	}
	if i := splitLocal(user, delimiters); i > 0 {
		return user[:i] + domain, user[i:]
	}
	return addr, ""
}
