package ladder

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"dovepost/lookup"
)

// table is an alias map in memory.
type aliasTable map[string]string

var errAway = errors.New("away")

func (m aliasTable) Lookup(_ context.Context, key string) ([]string, error) {
	switch value, ok := m[key]; {
	case value == "AWAY":
		return nil, errAway
	case ok:
		return []string{value}, nil
	}
	return nil, lookup.ErrNotFound
}

func expand(e *Expander, addr string) (string, error) {
	var all []string
	for addr, err := range e.Expand(context.Background(), addr) {
		if err != nil {
			return strings.Join(all, " "), err
		}
		all = append(all, addr)
	}
	return strings.Join(all, " "), nil
}

func TestExpandHandles(t *testing.T) {
	aliases := aliasTable{
		"one@d": "u@d", "two@d": "u@d, v@d", "deep@d": "two@d", "wide@d": "deep@d, one@d, W@d",
		"self@d": "self@d, copy@e", "selfish@d": "x@d, Selfish@d",
		"@catch": "all@d", "@ad": "@d", "a@loop": "b@loop", "b@loop": "c@loop, a@loop", "c@loop": "u@d",
		"pair1@d": "pair2@d", "pair2@d": "pair1@d", "away@d": "AWAY", "half@d": "u@d, away@d",
		"ext@d": "target@d", "bare@d": "root", "nothing@d": "<>", `"q r"@d`: "u@d", "long@d": strings.Repeat("x", 2000) + "@d",
		"tolist@d": `"q r"@d`,
	}
	e := &Expander{Aliases: New(Alias, []lookup.Map{aliases}, Options{RecipientDelimiter: "+", Propagate: true}), Origin: "origin",
		Canonical: []lookup.Map{aliasTable{"old@d": "older@d", "older@d": "one@d", "round@d": "round@d", "up@d": "down@d", "down@d": "up@d"}}}
	for _, tt := range []struct {
		name, addr, want string
		err              error
	}{
		{"nobody's alias", "u@d", "u@d", nil},
		{"capitals", "ONE@D", "u@d", nil},
		{"one", "one@d", "u@d", nil},
		{"two", "two@d", "u@d v@d", nil},
		{"levels", "wide@d", "u@d W@d v@d", nil},
		{"one with itself in it", "self@d", "self@d copy@e", nil},
		{"one with itself at the end", "selfish@d", "x@d Selfish@d", nil},
		{"an extension", "ext+a@d", "target+a@d", nil},
		{"a catch-all", "any@catch", "all@d", nil},
		{"a domain for a domain", "two@ad", "u@d v@d", nil},
		{"an extension through a domain", "ext+a@ad", "target+a@d", nil},
		{"a loop of two", "pair1@d", "", ErrExpansion},
		{"a loop beside others", "a@loop", "u@d", ErrExpansion},
		{"a map that is away", "away@d", "", errAway},
		{"one that is away beside another", "half@d", "u@d", errAway},
		{"no domain", "bare@d", "root@origin", nil},
		{"a recipient without a domain", "me", "me@origin", nil},
		{"no address", "nothing@d", "", ErrExpansion},
		{"quotes", "q r@d", "u@d", nil},
		{"quotes in a value", "tolist@d", "u@d", nil},
		{"a long address", "long@d", "", ErrExpansion},
		{"a canonical address", "old@d", "u@d", nil},
		{"a canonical address of itself", "round@d", "round@d", nil},
		{"canonical addresses in a circle", "up@d", "up@d", nil},
	} {
		got, err := expand(e, tt.addr)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("it handles %s: %s gives %q, %v; want %q, %v", tt.name, tt.addr, got, err, tt.want, tt.err)
		}
	}
}

func TestExpandHasLimits(t *testing.T) {
	chain, tree := aliasTable{}, aliasTable{}
	for i := range 20 {
		chain[fmt.Sprintf("c%d@d", i)] = fmt.Sprintf("c%d@d", i+1)
		tree[fmt.Sprintf("t%d@d", i)] = fmt.Sprintf("t%d@d, l%d@d", i+1, i)
	}
	e := &Expander{Aliases: chain, MaxNesting: 21, MaxAddresses: 30}
	if got, err := expand(e, "c0@d"); got != "c20@d" || err != nil {
		t.Errorf("a long chain: %q, %v", got, err)
	}
	e.MaxNesting = 20
	if _, err := expand(e, "c0@d"); !errors.Is(err, ErrExpansion) {
		t.Errorf("a chain beyond the limit: %v", err)
	}
	e = &Expander{Aliases: tree, MaxAddresses: 10}
	if _, err := expand(e, "t0@d"); !errors.Is(err, ErrExpansion) {
		t.Errorf("too many addresses: %v", err)
	}
	// Who stops early asks no more.
	e = &Expander{Aliases: aliasTable{"a@d": "b@d, away@d", "away@d": "AWAY"}}
	for addr, err := range e.Expand(t.Context(), "a@d") {
		if addr != "b@d" || err != nil {
			t.Errorf("%q, %v", addr, err)
		}
		break
	}
}

// FuzzExpand: whatever the aliases are, an expansion ends, and no final recipient is an alias
// of others but not of itself.
func FuzzExpand(f *testing.F) {
	f.Add("a@d", "a@d b@d,c@d\nb@d a@d\n")
	f.Add("a@d", "a@d a@d,b@d\nb@d c@d\n")
	f.Add("x@y", "@y @z\n@z @y\n")
	f.Fuzz(func(t *testing.T, addr, text string) {
		m := aliasTable{}
		for line := range strings.Lines(text) {
			if key, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && key != "" && value != "" && value != "AWAY" {
				m[key] = value
			}
		}
		asked := 0
		counting := lookup.Func(func(ctx context.Context, key string) ([]string, error) {
			if asked++; asked > 100_000 {
				t.Fatal("no end")
			}
			return m.Lookup(ctx, key)
		})
		e := &Expander{Aliases: New(Alias, []lookup.Map{counting}, Options{RecipientDelimiter: "+", Propagate: true}), MaxNesting: 50, MaxAddresses: 50}
		for addr, err := range e.Expand(t.Context(), addr) {
			if err == nil && addr == "" {
				continue // it came in so
			}
			if err != nil && addr != "" {
				t.Errorf("%q with %v", addr, err)
			}
		}
	})
}
