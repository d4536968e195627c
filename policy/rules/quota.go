package rules

import (
	"context"
	"errors"
	"iter"

	"dovepost/policy"
)

// Quota refuses a recipient whose mail has no room: one whose every final recipient is a
// mailbox that is kept here and full. Who has one with room, or one whose mail goes elsewhere, or
// of whom nobody knows, gets his mail: it is better taken once too often and bounced by the
// delivery than refused to somebody who would have had it.
//
// It looks at RCPT, and at END-OF-MESSAGE where the message is for one recipient alone: then its
// size is known also if the client has not announced it.
type Quota struct {
	Recipients Recipients
	Mailboxes  Mailboxes
}

// Recipients knows whom an address stands for.
type Recipients interface {
	// Expand yields the final recipients of an address, as the aliases have it. Its first
	// error is the last that it yields.
	Expand(ctx context.Context, address string) iter.Seq2[string, error]
}

// Mailboxes knows how full mailboxes are.
type Mailboxes interface {
	// Room returns what a client is told where a message of so many octets, 0 if nobody knows, has
	// certainly no room in the mailbox of an address: 452 4.2.2 or 552 5.2.2. The zero
	// Action: it has. Errors: ErrElsewhere; any other, when it cannot be told.
	Room(ctx context.Context, address string, size int64) (policy.Action, error)
}

// ErrElsewhere is for an address whose mailbox is not kept here: it is relayed, or delivered by
// others, or unknown.
var ErrElsewhere = errors.New("no mailbox of ours")

// Decide implements policy.Decider.
func (q *Quota) Decide(ctx context.Context, r *policy.Request) (policy.Action, error) {
	alone := r.State == "END-OF-MESSAGE" && r.RecipientCount == 1
	if r.Recipient == "" || r.State != "RCPT" && !alone {
		return policy.Dunno, nil
	}
	var verdict policy.Action
	for target, err := range q.Recipients.Expand(ctx, r.Recipient) {
		if err != nil {
			return policy.Dunno, err
		}
		full, err := q.Mailboxes.Room(ctx, target, r.Size)
		if errors.Is(err, ErrElsewhere) {
			return policy.Dunno, nil
		}
		if err != nil || full.IsDunno() {
			return policy.Dunno, err
		}
		if verdict.IsDunno() || full.Word < verdict.Word { // 452 before 552: one of them may have room later
			verdict = full
		}
	}
	return verdict, nil
}
