package quota

import (
	"fmt"
	"strconv"
	"strings"
)

// Modern are the limits of a user as Dovecot 2.4 names them; what is empty was not given.
type Modern struct {
	StorageSize, StoragePercentage, StorageExtra string // quota_storage_size ...
	MessageCount, MessagePercentage              string // quota_message_count ...
	Ignore                                       bool   // quota_ignore
}

// Rule writes the limits as a quota_rule; empty if there are none. A size is in octets, or has a
// unit; "unlimited" is none.
func (m Modern) Rule() (string, error) {
	if m.Ignore {
		return "*:bytes=0", nil
	}
	size, err := m.size(m.StorageSize)
	if err != nil {
		return "", err
	}
	extra, err := m.size(m.StorageExtra)
	if err != nil {
		return "", err
	}
	count := int64(0)
	if m.MessageCount != "" && m.MessageCount != "unlimited" {
		if count, err = strconv.ParseInt(m.MessageCount, 10, 64); err != nil || count < 0 {
			return "", fmt.Errorf("quota_message_count %q: not a number", m.MessageCount)
		}
	}
	for _, p := range []struct {
		text  string
		limit *int64
	}{{m.StoragePercentage, &size}, {m.MessagePercentage, &count}} {
		if p.text == "" {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(p.text, "%"), 10, 31)
		if err != nil {
			return "", fmt.Errorf("quota percentage %q: not a number", p.text)
		}
		*p.limit = share(*p.limit, int64(n))
	}
	if size > 0 { // more of nothing is no limit
		size = relative(size, extra, 0)
	}
	if m == (Modern{}) {
		return "", nil
	}
	rule := "*:bytes=" + strconv.FormatInt(size, 10)
	if count > 0 {
		rule += ":messages=" + strconv.FormatInt(count, 10)
	}
	return rule, nil
}

func (Modern) size(s string) (int64, error) {
	if s == "" || s == "unlimited" {
		return 0, nil
	}
	var l Limits
	if err := parseLimits("bytes="+s, &l, nil, false); err != nil {
		return 0, fmt.Errorf("quota size %q: %w", s, err)
	}
	return l.Bytes, nil
}
