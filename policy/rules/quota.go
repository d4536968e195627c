package rules

import (
	"context"
	"errors"
	"iter"
	"strconv"
	"sync"
	"time"

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

	// Fresh is for how long the same is said again of a recipient and a size without looking; 0: never.
	Fresh time.Duration

	mu   sync.Mutex // guards said
	said generations[said]
}

// said is a verdict, and when it was made.
type said struct {
	verdict policy.Action
	at      time.Time
}

const maxSaid = 5000 // in each of two generations

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
	key := r.Recipient + " " + strconv.FormatInt(r.Size, 10)
	q.mu.Lock()
	s, ok := q.said.get(key)
	q.mu.Unlock()
	now := time.Now()
	if ok && now.Sub(s.at) < q.Fresh {
		return s.verdict, nil
	}
	verdict, err := q.look(ctx, r)
	if err == nil {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.said.put(key, said{verdict, now}, maxSaid)
	}
	return verdict, err
}

// look makes a verdict.
func (q *Quota) look(ctx context.Context, r *policy.Request) (policy.Action, error) {
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
