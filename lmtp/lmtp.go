// Package lmtp is the vocabulary of local delivery: who gets a message, and what
// became of it.
//
// A delivery that returned nil is on disk. One that returned an error left
// nothing behind, and unless the error is a Status of class 5 it is temporary.
//
// This package knows no wire and no file. The protocol is in lmtp/session, the
// mailboxes in lmtp/maildir, the accounting in lmtp/quota.
package lmtp

import (
	"context"
	"fmt"
	"io"
)

// Envelope is what one LMTP transaction says about a message.
type Envelope struct {
	Sender     string   // MAIL FROM without the angle brackets; empty is the null sender
	Recipients []string // the accepted RCPT addresses in order, duplicates included
	Hello      string   // the client's LHLO name
	RemoteAddr string   // the client's IP address; empty on a unix socket
	TLS        string   // "TLSv1.3 with cipher ..." for the Received header; empty without TLS
	Session    string   // id of the transaction, for the log and for the Received header
	Size       int64    // octets that Deliver reads from msg, the headers of the session included
}

// Mailbox is one recipient that exists.
type Mailbox struct {
	Rcpt   string // the RCPT address as given, with extension
	User   string // the user's name in the userdb
	Detail string // address extension without the delimiter; empty if none
	Home   string // absolute path
	Mail   string // mail location, "maildir:~/Maildir" and its variants
	UID    int    // owner of new files; -1: the process's own
	GID    int
	Quota  []string // quota_rule, quota_rule2 ... as the userdb gives them: "*:storage=1G"
}

// Resolver finds the mailbox of a recipient.
type Resolver interface {
	// Resolve returns the mailbox of the address rcpt. Errors: ErrUnknownUser on
	// proof; any other error is temporary.
	Resolve(ctx context.Context, rcpt string) (*Mailbox, error)
}

// Deliverer stores messages.
type Deliverer interface {
	// Deliver stores msg, LF line ends, for mb. When it returns nil the message
	// survives a power loss. Errors: a *Status, or anything else, which is temporary.
	Deliver(ctx context.Context, env *Envelope, mb *Mailbox, msg io.Reader) error
}

// Status is the outcome of a step as LMTP words it: RFC 5321 4.2, RFC 3463.
type Status struct {
	Code     int    // 250, 451, 550 ...
	Enhanced string // "5.1.1"
	Text     string // one line, no CR or LF
}

// Error words the status as a reply line without the address.
func (s *Status) Error() string { return fmt.Sprintf("%d %s %s", s.Code, s.Enhanced, s.Text) }

// Temporary reports whether the client shall try again.
func (s *Status) Temporary() bool { return s.Code < 500 }

// The refusals that every part must word alike. Texts as Dovecot's LMTP words them.
var (
	ErrUnknownUser = &Status{550, "5.1.1", "User doesn't exist"}
	ErrOverQuota   = &Status{552, "5.2.2", "Quota exceeded (mailbox for user is full)"}
	ErrTempFail    = &Status{451, "4.3.0", "Temporary internal error"}
)
