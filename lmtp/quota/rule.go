package quota

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Limits bound a user's mail; 0 is no limit.
type Limits struct {
	Bytes    int64
	Messages int64
}

// Rules are the quota_rule settings of one user.
type Rules struct {
	limits Limits // for all mail together
	forced bool   // by a rule "*"; without one, the header of maildirsize may say otherwise
	boxes  []boxRule
}

// boxRule changes the limits for what is put into some mailboxes.
type boxRule struct {
	mask    string
	ignore  bool
	add     Limits
	percent Limits // instead of add, if not 0
}

// ParseRules reads quota_rule, quota_rule2 ... as Dovecot 2.3 does: "*:storage=1G",
// "*:bytes=1048576:messages=1000", "Trash:storage=+100M", "Spam:ignore". Storage
// without a unit is in KiB; units are b, k, M, G, T, and % in rules for a mailbox.
// A later rule for the same mailboxes wins. "dirsize:..." is what old guides print
// for "*:...". A rule for a mailbox is an addition, with or without "+".
func ParseRules(rules []string) (*Rules, error) {
	r := new(Rules)
	for _, rule := range rules {
		if err := r.parse(rule); err != nil {
			return nil, fmt.Errorf("quota_rule %q: %w", rule, err)
		}
	}
	return r, nil
}

func (r *Rules) parse(rule string) error {
	mask, def, ok := strings.Cut(rule, ":")
	if !ok {
		return errors.New("no mailbox")
	}
	if def == "" {
		return nil // as Dovecot: CONCAT('*:', limit) without a limit
	}
	switch mask {
	case "*", "dirsize":
		r.forced = true
		fallthrough
	case "?":
		if def == "ignore" {
			return nil // as Dovecot: this says something only about a mailbox
		}
		if maildir, ok := strings.CutPrefix(def, "backend="); ok {
			return r.limits.parseHeader(maildir)
		}
		return parseLimits(def, &r.limits, nil, false)
	}
	b := r.box(mask)
	if def == "ignore" {
		b.ignore = true
		return nil
	}
	return parseLimits(def, &b.add, &b.percent, true)
}

// box returns the rule for mask, a new one if need be.
func (r *Rules) box(mask string) *boxRule {
	if strings.EqualFold(mask, "INBOX") {
		mask = "INBOX"
	}
	for i := range r.boxes {
		if r.boxes[i].mask == mask {
			return &r.boxes[i]
		}
	}
	r.boxes = append(r.boxes, boxRule{mask: mask})
	return &r.boxes[len(r.boxes)-1]
}

// parseLimits reads "storage=1G:messages=100" into l, and percentages into percent, which is nil
// in the rule that the others are relative to. Only what is relative has a sign.
func parseLimits(def string, l, percent *Limits, relative bool) error {
	for limit := range strings.SplitSeq(def, ":") {
		key, value, _ := strings.Cut(limit, "=")
		unit, target := int64(1), &l.Bytes
		switch key {
		case "storage":
			unit = 1 << 10
		case "bytes":
		case "messages":
			target = &l.Messages
		default:
			return fmt.Errorf("unknown limit %q", key)
		}
		if !relative && strings.HasPrefix(value, "+") {
			return errors.New("a limit cannot have a +")
		}
		value = strings.TrimPrefix(value, "+")
		end := strings.IndexFunc(value, func(r rune) bool { return r != '-' && (r < '0' || r > '9') })
		if end < 0 {
			end = len(value)
		}
		n, err := strconv.ParseInt(value[:end], 10, 64)
		if err != nil {
			return fmt.Errorf("bad %s limit", key)
		}
		suffix := value[end:]
		if (suffix == "%" || suffix == "%%") && percent != nil { // %% where Dovecot expands variables
			if n <= -100 || n > math.MaxInt32 || n < 0 && !relative {
				return fmt.Errorf("bad percentage %d", n)
			}
			if *target = 0; key == "messages" {
				percent.Messages = n
			} else {
				percent.Bytes = n
			}
			continue
		}
		if unit, err = unitOf(suffix, unit); err != nil {
			return err
		}
		if n > math.MaxInt64/unit || n < math.MinInt64/unit || !relative && n < 0 {
			return fmt.Errorf("%s limit out of range", key)
		}
		*target = n * unit
	}
	return nil
}

// unitOf reads the unit after a number. Dovecot looks at its first letter only: 1MB is 1M.
func unitOf(s string, none int64) (int64, error) {
	if s == "" {
		return none, nil
	}
	switch s[0] | 0x20 {
	case 'b':
		return 1, nil
	case 'k':
		return 1 << 10, nil
	case 'm':
		return 1 << 20, nil
	case 'g':
		return 1 << 30, nil
	case 't':
		return 1 << 40, nil
	}
	return 0, fmt.Errorf("unknown unit %q", s)
}

// forBox returns the limits on what is put into mailbox, if all limits those on all mail
// together. Mail in an ignored mailbox is neither bounded nor counted.
func (r *Rules) forBox(mailbox string, all Limits) (l Limits, ignored bool) {
	if all == (Limits{}) {
		return all, false // who has no quota has none for a mailbox
	}
	b := r.find(mailbox)
	switch {
	case b == nil:
		return all, false
	case b.ignore:
		return Limits{}, true
	}
	return Limits{
		Bytes:    relative(all.Bytes, b.add.Bytes, b.percent.Bytes),
		Messages: relative(all.Messages, b.add.Messages, b.percent.Messages),
	}, false
}

// find returns the first rule about mailbox.
func (r *Rules) find(mailbox string) *boxRule {
	for i := range r.boxes {
		if match(r.boxes[i].mask, mailbox) {
			return &r.boxes[i]
		}
	}
	return nil
}

// ignores reports whether mail in mailbox is not counted.
func (r *Rules) ignores(mailbox string) bool {
	b := r.find(mailbox)
	return b != nil && b.ignore
}

// relative adds to a limit. The sum of 0 or less is no limit, as in Dovecot.
func relative(limit, add, percent int64) int64 {
	if percent != 0 {
		add = share(limit, percent)
	}
	if add > 0 && limit > math.MaxInt64-add {
		return math.MaxInt64
	}
	return max(0, limit+add)
}

// share is percent of n, both possibly large.
func share(n, percent int64) int64 {
	if whole := n / 100; whole != 0 && (percent > math.MaxInt64/2/whole || percent < math.MinInt64/2/whole) {
		return math.MaxInt64
	}
	return n/100*percent + n%100*percent/100
}

// match reports whether name fits mask, in which * stands for any octets and ? for one.
func match(mask, name string) bool {
	star, back := -1, 0 // after the last *, and where its octets end so far
	m := 0
	for n := 0; n < len(name); {
		switch {
		case m < len(mask) && mask[m] == '*':
			m++
			star, back = m, n
		case m < len(mask) && (mask[m] == '?' || mask[m] == name[n]):
			m++
			n++
		case star >= 0:
			back++
			m, n = star, back
		default:
			return false
		}
	}
	return strings.Trim(mask[m:], "*") == ""
}
