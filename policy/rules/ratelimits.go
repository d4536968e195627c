package rules

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"dovepost/policy/ledger"
)

// What the rule rate counts, as indexes of ledger.Counts.
const (
	rateMessages = iota
	rateRecipients
	rateBytes
)

var rateUnits = [...]string{"message", "recipient", "byte"}

// maxRateLimits bounds how many limits one entry has.
const maxRateLimits = 16

// RateLimits are limits as an administrator writes them:
//
//	100 messages/1h, 500 messages/1d, 1000 recipients/1d, 500M bytes/1d
//
// Each is the most of messages, recipients or bytes in a sliding window of seconds,
// minutes, hours, days or weeks (s, m, h, d, w), from 1s to 31d. The number may end with
// K, M or G, which are 1024 for bytes and 1000 otherwise; 0 is none at all. One of several
// limits for the same thing and window is an error.
//
// unlimited, alone, is no limit. inherit stands for what the next level says: what is
// beside it replaces its limits of the same thing and window, and the others stay.
type RateLimits struct {
	Inherit bool
	Limits  []ledger.Limit
}

// ErrRateLimits is wrapped by the errors of ParseRateLimits.
var ErrRateLimits = errors.New("want limits such as 100 messages/1h, 500M bytes/1d, or unlimited")

// ParseRateLimits reads limits.
func ParseRateLimits(text string) (RateLimits, error) {
	var l RateLimits
	terms := strings.Split(text, ",")
	if len(terms) > maxRateLimits+1 {
		return RateLimits{}, fmt.Errorf("%w: more than %d", ErrRateLimits, maxRateLimits)
	}
	for _, term := range terms {
		words := strings.Fields(strings.ToLower(strings.ReplaceAll(term, "/", " / ")))
		switch {
		case len(words) == 1 && words[0] == "unlimited" && len(terms) == 1:
			return l, nil
		case len(words) == 1 && words[0] == "inherit" && !l.Inherit:
			l.Inherit = true
			continue
		}
		limit, err := parseRateLimit(words)
		if err != nil {
			return RateLimits{}, fmt.Errorf("%w: %w in %.60q", ErrRateLimits, err, strings.TrimSpace(term))
		}
		if slices.ContainsFunc(l.Limits, func(other ledger.Limit) bool { return sameRate(other, limit) }) {
			return RateLimits{}, fmt.Errorf("%w: %.60q twice", ErrRateLimits, strings.TrimSpace(term))
		}
		l.Limits = append(l.Limits, limit)
	}
	if len(l.Limits) > maxRateLimits {
		return RateLimits{}, fmt.Errorf("%w: more than %d", ErrRateLimits, maxRateLimits)
	}
	return l, nil
}

// parseRateLimit reads the words of NUMBER UNIT/WINDOW.
func parseRateLimit(words []string) (limit ledger.Limit, err error) {
	slash := slices.Index(words, "/")
	if slash < 0 || slash != len(words)-2 {
		return limit, errors.New("no /window")
	}
	if limit.Window, err = parseRateWindow(words[slash+1]); err != nil {
		return limit, err
	}
	words = words[:slash]
	if len(words) == 3 { // 500 M bytes
		words = []string{words[0] + words[1], words[2]}
	}
	if len(words) != 2 {
		return limit, errors.New("no number and unit")
	}
	if limit.What = slices.Index(rateUnits[:], strings.TrimSuffix(words[1], "s")); limit.What < 0 {
		return limit, errors.New("neither messages, recipients nor bytes")
	}
	limit.Most, err = parseRateNumber(words[0], limit.What == rateBytes)
	return limit, err
}

func parseRateNumber(text string, octets bool) (int64, error) {
	digits := strings.TrimRight(text, "kmg")
	factor := int64(1)
	if suffix := text[len(digits):]; suffix != "" {
		if len(suffix) > 1 {
			return 0, errors.New("no number")
		}
		thousand := int64(1000)
		if octets {
			thousand = 1024
		}
		for range strings.Index("kmg", suffix) + 1 {
			factor *= thousand
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	switch {
	case err != nil:
		return 0, errors.New("no number")
	case int64(n) > math.MaxInt64/2/factor:
		return 0, errors.New("a number that is too large")
	}
	return int64(n) * factor, nil
}

// rateWindows are the units of windows, the largest first.
var rateWindows = []struct {
	letter string
	length time.Duration
}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}

func parseRateWindow(text string) (time.Duration, error) {
	for _, unit := range rateWindows {
		digits, found := strings.CutSuffix(text, unit.letter)
		if !found {
			continue
		}
		n := uint64(1) // "/h"
		if digits != "" {
			var err error
			if n, err = strconv.ParseUint(digits, 10, 31); err != nil {
				break
			}
		}
		if n > uint64(ledger.MaxWindow/unit.length) || time.Duration(n)*unit.length < ledger.MinWindow {
			return 0, errors.New("a window that is not between 1s and 31d")
		}
		return time.Duration(n) * unit.length, nil
	}
	return 0, errors.New("no window such as 90s, 15m, 1h, 1d, 1w")
}

func sameRate(a, b ledger.Limit) bool { return a.What == b.What && a.Window == b.Window }

// Over returns l where it inherits from next.
func (l RateLimits) Over(next RateLimits) RateLimits {
	if !l.Inherit {
		return l
	}
	all := RateLimits{Inherit: next.Inherit, Limits: slices.Clone(l.Limits)}
	for _, limit := range next.Limits {
		if !slices.ContainsFunc(l.Limits, func(own ledger.Limit) bool { return sameRate(own, limit) }) {
			all.Limits = append(all.Limits, limit)
		}
	}
	return all
}

// String writes l as ParseRateLimits reads it.
func (l RateLimits) String() string {
	var terms []string
	if l.Inherit {
		terms = append(terms, "inherit")
	}
	for _, limit := range l.Limits {
		terms = append(terms, fmt.Sprintf("%d %ss/%s", limit.Most, rateUnits[limit.What], windowText(limit.Window)))
	}
	if terms == nil {
		return "unlimited"
	}
	return strings.Join(terms, ", ")
}

func windowText(window time.Duration) string {
	for _, unit := range rateWindows {
		if window%unit.length == 0 {
			return strconv.FormatInt(int64(window/unit.length), 10) + unit.letter
		}
	}
	return window.String()
}
