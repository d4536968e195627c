package rules

import (
	"context"
	"errors"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dovepost/policy"
)

var errBroken = errors.New("broken")

// postOffice is aliases and mailboxes.
type postOffice struct {
	aliases map[string]string // address: final recipients; "!" is an error
	boxes   map[string]string // address: what Room says; none: elsewhere
	asked   []string
}

func (p *postOffice) Expand(_ context.Context, address string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		to, ok := p.aliases[address]
		if !ok {
			to = address
		}
		for _, target := range strings.Fields(to) {
			if target == "!" {
				yield("", errBroken)
				return
			}
			if !yield(target, nil) {
				return
			}
		}
	}
}

func (p *postOffice) Room(_ context.Context, address string, size int64) (policy.Action, error) {
	p.asked = append(p.asked, address)
	said, ok := p.boxes[address]
	switch {
	case !ok:
		return policy.Dunno, ErrElsewhere
	case said == "!":
		return policy.Dunno, errBroken
	case said == "small":
		if size <= 1000 {
			return policy.Dunno, nil
		}
		said = "552 5.2.2 full"
	}
	return policy.ParseAction(said)
}

func TestQuotaHandles(t *testing.T) {
	office := &postOffice{
		aliases: map[string]string{"both@d": "full@d free@d", "allfull@d": "full@d later@d", "large@d": "full@d big@d", "out@d": "full@d you@elsewhere",
			"loop@d": "!", "half@d": "full@d !", "free@d": "free@d", "first@d": "free@d !", "broken2@d": "full@d broken@d"},
		boxes: map[string]string{"full@d": "552 5.2.2 full", "later@d": "452 4.2.2 full", "big@d": "552 5.2.3 too large", "free@d": "DUNNO", "small@d": "small", "broken@d": "!"},
	}
	for _, tt := range []struct {
		name, recipient, want string
		size                  int64
		err                   error
	}{
		{"a full mailbox", "full@d", "552 5.2.2 full", 0, nil},
		{"one that is full for now", "later@d", "452 4.2.2 full", 0, nil},
		{"one with room", "free@d", "DUNNO", 0, nil},
		{"one with room for a small message", "small@d", "DUNNO", 1000, nil},
		{"one without room for a large message", "small@d", "552 5.2.2 full", 1001, nil},
		{"one full and one with room", "both@d", "DUNNO", 0, nil},
		{"two full, one of them for now", "allfull@d", "452 4.2.2 full", 0, nil},
		{"two full", "large@d", "552 5.2.2 full", 0, nil},
		{"one full and one elsewhere", "out@d", "DUNNO", 0, nil},
		{"nobody of ours", "you@elsewhere", "DUNNO", 0, nil},
		{"aliases without an end", "loop@d", "DUNNO", 0, errBroken},
		{"an error behind one that is full", "half@d", "DUNNO", 0, errBroken},
		{"an error behind one with room, which is not met", "first@d", "DUNNO", 0, nil},
		{"a mailbox that cannot be read", "broken@d", "DUNNO", 0, errBroken},
		{"one full and one that cannot be read", "broken2@d", "DUNNO", 0, errBroken},
		{"no recipient", "", "DUNNO", 0, nil},
	} {
		q := &Quota{Recipients: office, Mailboxes: office}
		got, err := q.Decide(t.Context(), &policy.Request{State: "RCPT", Recipient: tt.recipient, Size: tt.size})
		if got.String() != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("it handles %s: %v, %v; want %s, %v", tt.name, got, err, tt.want, tt.err)
		}
	}
}

func TestQuotaIsAskedWhenItHelps(t *testing.T) {
	office := &postOffice{boxes: map[string]string{"full@d": "552 5.2.2 full"}}
	q := &Quota{Recipients: office, Mailboxes: office}
	for _, tt := range []struct {
		state string
		count int
		want  string
	}{
		{"CONNECT", 0, "DUNNO"}, {"MAIL", 0, "DUNNO"}, {"RCPT", 0, "552 5.2.2 full"}, {"DATA", 1, "DUNNO"}, {"VRFY", 0, "DUNNO"},
		{"END-OF-MESSAGE", 1, "552 5.2.2 full"}, {"END-OF-MESSAGE", 2, "DUNNO"},
	} {
		got, err := q.Decide(t.Context(), &policy.Request{State: tt.state, RecipientCount: tt.count, Recipient: "full@d"})
		if err != nil || got.String() != tt.want {
			t.Errorf("%s with %d recipients: %v, %v; want %s", tt.state, tt.count, got, err, tt.want)
		}
	}
}

func TestQuotaSaysTheSameForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		office := &postOffice{boxes: map[string]string{"full@d": "552 5.2.2 full", "small@d": "small", "broken@d": "!"}}
		q := &Quota{Recipients: office, Mailboxes: office, Fresh: time.Second}
		for _, tt := range []struct {
			after     time.Duration
			recipient string
			size      int64
			want      string
			looks     bool
		}{
			{0, "full@d", 0, "552 5.2.2 full", true},
			{999 * time.Millisecond, "full@d", 0, "552 5.2.2 full", false},
			{time.Millisecond, "full@d", 0, "552 5.2.2 full", true},
			{0, "small@d", 1, "DUNNO", true},
			{0, "small@d", 1001, "552 5.2.2 full", true}, // another size is another question
			{0, "small@d", 1, "DUNNO", false},
			{0, "broken@d", 0, "DUNNO", true},
			{0, "broken@d", 0, "DUNNO", true}, // an error is said once
		} {
			time.Sleep(tt.after)
			office.asked = nil
			got, _ := q.Decide(t.Context(), &policy.Request{State: "RCPT", Recipient: tt.recipient, Size: tt.size})
			if looked := len(office.asked) > 0; got.String() != tt.want || looked != tt.looks {
				t.Errorf("%+v: %v, looked %v", tt, got, looked)
			}
		}
	})
}
