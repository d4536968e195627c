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
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Envelope is what one LMTP transaction says about a message.
type Envelope struct {
	Sender     string   // MAIL FROM without the angle brackets; empty is the null sender
	Recipients []string // the accepted RCPT addresses in order, duplicates included
	Hello      string   // the client's LHLO name
	RemoteAddr string   // the client's IP address; empty on a unix socket
	TLS        string   // "TLSv1.3 with cipher ..." for the Received header; empty without TLS
	Session    string   // id of the transaction, for the log and for the Received header
	Queue      string   // the client's own name of the message: XFORWARD IDENT, or the id in the top Received; or empty
	Dated      bool     // the message has a Received field, so that another message with the name is not the same octet for octet
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

// Message is a message that was taken whole. Its octets have LF line ends and begin with
// the headers of the session: Return-Path, Delivered-To, Received.
type Message interface {
	// Open returns a reader of the whole message, from its beginning. It may be called
	// as often as needed, also by several goroutines at a time.
	Open() io.Reader
	// Size is how many octets Open's reader has.
	Size() int64
	// Digest is a hash (XXH64) of what the client sent: the same message sent again has the
	// same digest, though the session's headers differ. Whoever makes two messages of one digest
	// gains nothing by it: it tells apart what a client sends under the same name.
	Digest() uint64
}

// Text is a Message in memory, all of it the client's, or a program's own.
type Text string

func (t Text) Open() io.Reader { return strings.NewReader(string(t)) }
func (t Text) Size() int64     { return int64(len(t)) }
func (t Text) Digest() uint64  { return xxhash.Sum64String(string(t)) }

// MaxParallel is how many files a Deliverer writes or syncs at a time for one message. Each may hold a
// thread of the system.
const MaxParallel = 16

// Deliverer stores messages.
type Deliverer interface {
	// Deliver stores msg for each of to, and returns the outcome for each, in the same
	// order. Where it is nil the message survives a power loss. Errors: a *Status, or
	// anything else, which is temporary. What becomes of one recipient has no bearing on the others.
	Deliver(ctx context.Context, env *Envelope, to []*Mailbox, msg Message) []error
}

// RoomChecker says before a message comes whether there is room for it.
type RoomChecker interface {
	// HasRoom returns nil when a message of size octets, as the client announced it, would
	// be stored for mb as far as its quota goes; size 0 is not announced. It promises nothing: the delivery
	// looks again. Errors: a *Status such as ErrOverQuota on proof; anything else is temporary.
	HasRoom(ctx context.Context, mb *Mailbox, size int64) error
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
