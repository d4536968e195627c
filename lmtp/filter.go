package lmtp

import (
	"context"
)

// Filing is one copy of a message: the mailbox it goes to, and how it is marked there.
type Filing struct {
	// Mailbox is its name as clients see it, in UTF-8, with the separator and the prefix of the
	// namespace. Empty is where a message goes that no filter has touched.
	Mailbox string
	// Flags are IMAP's: `\Seen`, `\Answered`, `\Flagged`, `\Deleted`, `\Draft`, and keywords such
	// as `$Junk`.
	Flags []string
	// Create makes a mailbox that does not exist. Without it the copy goes to INBOX,
	// unmarked, and so it does if no mailbox can have that name.
	Create bool
	// Subscribe subscribes the user to a mailbox that was made.
	Subscribe bool
}

// Verdict is what becomes of a message for one recipient. The zero Verdict keeps it.
//
// All of it happens or nothing: an error of one part, even in the second mailbox, leaves no copy
// in the first, and the client tries again. Only what has left the house by Redirect is not
// called back. Two copies in one mailbox are one copy, with the flags of both.
type Verdict struct {
	Refuse   *Status  // the client gets this answer, and nothing else happens
	File     []Filing // copies
	Redirect []string // addresses that get the message, from its sender
	// Handled says that there is no other copy, and that no other filter is asked. With
	// neither File nor Redirect the message is discarded: answered 250, and gone.
	Handled bool
	Flags   []string // of the copy that is kept when the verdict is not Handled
	Reason  string   // for the log
}

// Filter decides what becomes of a message before it is delivered. It is how Sieve or the
// like is added.
type Filter interface {
	// Filter returns the verdict about msg for mb. Nothing has happened yet to the message, and
	// what the filter itself does may be done again, since the client may send the message
	// again. An error is temporary, whatever it is: a message is refused by a Verdict alone.
	Filter(ctx context.Context, env *Envelope, mb *Mailbox, msg Message) (Verdict, error)
}

// Sender passes messages on.
type Sender interface {
	// Send submits msg for the address to. sender may be empty. It returns nil when somebody
	// else has taken the message over for good; any error means that the client of this
	// delivery has to try again.
	Send(ctx context.Context, sender, to string, msg Message) error
}
