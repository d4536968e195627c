package quota

import (
	"errors"
	"fmt"
	"strings"

	"dovepost/lmtp"
)

// Warning is a quota_warning setting: what is to be done when a limit is crossed.
type Warning struct {
	limit, percent Limits
	below          bool
	// Command is the rest of the setting, for whoever executes it.
	Command string
}

// Crossed is what happened.
type Crossed struct {
	Warning *Warning
	Mailbox lmtp.Mailbox // of the user, a copy
	Used    int64        // octets, by now
	Limit   int64        // on all mail in octets; 0: none
}

// ParseWarning reads a quota_warning as Dovecot 2.3 does: "storage=95%% quota-warning 95 %u".
// Limits are those of quota_rule, absolute or in percent of the limit on all mail. One that begins
// with "-" is about falling below: no delivery does.
func ParseWarning(s string) (*Warning, error) {
	limits, command, _ := strings.Cut(s, " ")
	w := &Warning{Command: strings.TrimSpace(command)}
	if w.Command == "" {
		return nil, fmt.Errorf("quota_warning = %s: %w", s, errors.New("no command"))
	}
	if rest, ok := strings.CutPrefix(limits, "-"); ok {
		limits, w.below = rest, true
	} else {
		limits = strings.TrimPrefix(limits, "+")
	}
	if err := parseLimits(limits, &w.limit, &w.percent, false); err != nil {
		return nil, fmt.Errorf("quota_warning = %s: %w", s, err)
	}
	return w, nil
}

// crossed reports whether what a user has grew over the limit, or what it is of all. To
// reach it is to cross it.
func (w *Warning) crossed(before, now usage, all Limits) bool {
	if w.below {
		return false
	}
	over := func(before, now, limit, all, percent int64) bool {
		if percent != 0 {
			limit = share(all, percent)
		}
		return before < limit && now >= limit
	}
	return over(before.bytes, now.bytes, w.limit.Bytes, all.Bytes, w.percent.Bytes) ||
		over(before.messages, now.messages, w.limit.Messages, all.Messages, w.percent.Messages)
}

// warn tells the first warning that was crossed.
func (v *reservation) warn(before, now usage) {
	if !v.bounded || v.root.Warn == nil {
		return
	}
	for _, w := range v.root.Warnings {
		if w.crossed(before, now, v.limits) {
			v.root.Warn(Crossed{Warning: w, Mailbox: *v.user.Mailbox, Used: now.bytes, Limit: v.limits.Bytes})
			return
		}
	}
}
