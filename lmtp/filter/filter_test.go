package filter

import (
	"context"
	"errors"
	"reflect"
	"testing"

	"dovepost/lmtp"
)

// says is a filter that always says the same.
type says struct {
	lmtp.Verdict
	err error
}

func (s says) Filter(context.Context, *lmtp.Envelope, *lmtp.Mailbox, lmtp.Message) (lmtp.Verdict, error) {
	return s.Verdict, s.err
}

func TestChain(t *testing.T) {
	into := func(box string, handled bool) says {
		return says{Verdict: lmtp.Verdict{File: []lmtp.Filing{{Mailbox: box}}, Handled: handled, Reason: box}}
	}
	refuse := says{Verdict: lmtp.Verdict{Refuse: lmtp.ErrUnknownUser}}
	broken := says{err: errors.New("broken")}
	keep := says{Verdict: lmtp.Verdict{Flags: []string{`\Seen`}}}
	redirect := says{Verdict: lmtp.Verdict{Redirect: []string{"a@b"}}}
	tests := []struct {
		name  string
		chain Chain
		want  lmtp.Verdict
		err   bool
	}{
		{"none", nil, lmtp.Verdict{}, false},
		{"one that keeps", Chain{says{}}, lmtp.Verdict{}, false},
		{"one that files", Chain{into("A", true), into("B", true)}, lmtp.Verdict{File: []lmtp.Filing{{Mailbox: "A"}}, Handled: true, Reason: "A"}, false},
		{"copies of several", Chain{into("A", false), keep, redirect, into("B", false)},
			lmtp.Verdict{File: []lmtp.Filing{{Mailbox: "A"}, {Mailbox: "B"}}, Redirect: []string{"a@b"}, Flags: []string{`\Seen`}, Reason: "A; B"}, false},
		{"a discard after a copy", Chain{into("A", false), says{Verdict: lmtp.Verdict{Handled: true}}, broken},
			lmtp.Verdict{File: []lmtp.Filing{{Mailbox: "A"}}, Handled: true, Reason: "A"}, false},
		{"a refusal", Chain{into("A", false), refuse, broken}, refuse.Verdict, false},
		{"an error", Chain{keep, broken, refuse}, lmtp.Verdict{}, true},
	}
	for _, tt := range tests {
		got, err := tt.chain.Filter(context.Background(), nil, nil, nil)
		if (err != nil) != tt.err || !tt.err && !same(got, tt.want) {
			t.Errorf("it handles %s: %+v, %v; want %+v", tt.name, got, err, tt.want)
		}
	}
}

// same takes nil and empty slices for the same.
func same(a, b lmtp.Verdict) bool {
	for _, v := range []*lmtp.Verdict{&a, &b} {
		v.File, v.Redirect, v.Flags = append([]lmtp.Filing{}, v.File...), append([]string{}, v.Redirect...), append([]string{}, v.Flags...)
	}
	return reflect.DeepEqual(a, b)
}
