package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"dovepost/policy"
)

// A rule is one that policyd knows, switched on by its name in `rules`. It lives as
// long as the daemon; what build returns lives until the next SIGHUP.
type rule interface {
	name() string
	// flags adds the rule's settings, whose names begin with its own: rate_limits. NAME_on_error
	// is there already.
	flags(fs *pflag.FlagSet)
	// build makes the Decider of the settings and of what their files say now. It waits for
	// no server, changes nothing, and starts nothing: the reload may fail yet. What is to begin
	// when the Decider has come into use, such as a purge, begins in its Start, if it has that
	// method; what is to end with it, in its Close.
	build(ctx context.Context, b *builder) (policy.Decider, error)
}

// starter is a Decider that has something to begin.
type starter interface{ Start() }

// closer is a Decider that has something to end. It is closed once and only when its last
// request has been answered; one that never came into use is closed, too.
type closer interface{ Close() error }

// allRules are the rules that there are.
func allRules() []rule {
	return []rule{&accessRule{}, &rateRule{}, &shieldRule{}, &greylistRule{}, &senderRule{}, quotaRule{}}
}

// ruleSettings are the settings of which rules are on.
type ruleSettings struct {
	all     []rule
	order   string
	onError map[string]*string // by name
}

func (s *ruleSettings) flags(fs *pflag.FlagSet) {
	s.all, s.onError = allRules(), map[string]*string{}
	names := make([]string, len(s.all))
	for i, r := range s.all {
		names[i] = r.name()
	}
	fs.StringVar(&s.order, "rules", "", "the rules that are on, in this order, of "+strings.Join(names, ", ")+"; empty: access, if there is a list")
	for _, r := range s.all {
		s.onError[r.name()] = fs.String(r.name()+"_on_error", "DUNNO", "`action` when the rule "+r.name()+" fails")
		r.flags(fs)
	}
}

// on returns the rules that are on, in their order.
func (s *ruleSettings) on() (list []rule, err error) {
	if s.order == "" {
		for _, r := range s.all {
			if a, ok := r.(*accessRule); ok && a.wanted() {
				list = append(list, r)
			}
		}
		return list, nil
	}
	names := words(s.order)
	for i, word := range names {
		n := slices.IndexFunc(s.all, func(r rule) bool { return r.name() == word })
		switch {
		case n < 0:
			return nil, fmt.Errorf("rules: there is no rule %q", word)
		case slices.Contains(names[:i], word):
			return nil, fmt.Errorf("rules: %s twice", word)
		}
		list = append(list, s.all[n])
	}
	return list, nil
}

// words splits the value of a setting that is a list.
func words(list string) []string {
	return strings.FieldsFunc(list, func(c rune) bool { return strings.ContainsRune(", \t", c) })
}

// failing returns what is done when the rule fails.
func (s *ruleSettings) failing(r rule) (policy.Action, error) {
	action, err := policy.ParseAction(*s.onError[r.name()])
	if err != nil {
		err = fmt.Errorf("%s_on_error: %w", r.name(), err)
	}
	return action, err
}

// counted is a Decider whose decisions are counted, by action. The rule's OnError is in the
// count as "error", whatever it is.
type counted struct {
	policy.Decider
	count func(action string)
}

func (c counted) Decide(ctx context.Context, r *policy.Request) (policy.Action, error) {
	action, err := c.Decider.Decide(ctx, r)
	if err != nil {
		c.count("error")
	} else {
		c.count(action.Kind())
	}
	return action, err
}

// discard closes what the deciders of a chain have to end.
func discard(chain policy.Chain) error {
	var all error
	for _, r := range chain {
		if c, ok := r.Decider.(counted).Decider.(closer); ok {
			all = errors.Join(all, c.Close())
		}
	}
	return all
}
