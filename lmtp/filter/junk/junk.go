// Package junk files mail that a spam filter has marked into a mailbox of its own.
//
// It believes any header that says so: who forges one sends his mail to the junk.
package junk

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"dovepost/lmtp"
)

// Filter is a lmtp.Filter that files a message with one of the marks. The zero Filter knows no mark.
type Filter struct {
	Marks []Mark
	Into  lmtp.Filing
}

var _ lmtp.Filter = (*Filter)(nil)

// Mark is a field of a header and the word its value begins with: "X-Spam-Flag: YES",
// "X-Spam-Status: Yes" for "Yes, score=9.1 ...", "X-Spam: Yes". Case does not matter.
type Mark struct{ Name, Value string }

// ParseMarks reads marks that are separated by commas. Each is a name, a colon and a value; without
// a value, whatever stands there is the mark.
func ParseMarks(s string) (marks []Mark, err error) {
	for one := range strings.SplitSeq(s, ",") {
		name, value, ok := strings.Cut(one, ":")
		m := Mark{strings.TrimSpace(name), strings.TrimSpace(value)}
		if !ok || m.Name == "" || strings.ContainsFunc(m.Name, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			return nil, fmt.Errorf("%q: %w", one, errors.New("not a header field and its value"))
		}
		marks = append(marks, m)
	}
	return marks, nil
}

// In reports whether the field is the mark.
func (m Mark) In(name, value string) bool {
	if !strings.EqualFold(name, m.Name) || len(value) < len(m.Value) || !strings.EqualFold(value[:len(m.Value)], m.Value) {
		return false
	}
	// The whole word: "Yes, score=9" and not "Yesterday".
	rest := value[len(m.Value):]
	return rest == "" || m.Value == "" || !isWord(rest[0]) || !isWord(m.Value[len(m.Value)-1])
}

func isWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= 0x80
}

// Filter implements lmtp.Filter.
func (f *Filter) Filter(_ context.Context, _ *lmtp.Envelope, _ *lmtp.Mailbox, msg lmtp.Message) (lmtp.Verdict, error) {
	for name, value := range lmtp.Header(msg) {
		for _, m := range f.Marks {
			if m.In(name, value) {
				return lmtp.Verdict{File: []lmtp.Filing{f.Into}, Handled: true, Reason: m.Name + ": " + m.Value}, nil
			}
		}
	}
	return lmtp.Verdict{}, nil
}
