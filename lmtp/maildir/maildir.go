// Package maildir stores messages in Maildirs that a Dovecot serves at the same time.
//
// A message is written to tmp/, synced, renamed into new/, and the directory is
// synced: when Deliver says nil, the message is there after a power loss; when it
// says an error, it is nowhere. (https://cr.yp.to/proto/maildir.html, with the names
// ",S=<size>,W=<virtual size>" and the folders of Maildir++.)
//
// Dovecot's own files (dovecot-uidlist, indexes) are never touched: Dovecot gives a new
// file its UID when it sees it, and wakes IDLE within half a second.
//
// What comes from the net never chooses a directory above the mailbox tree: names of
// folders are checked element by element, and below the root of the tree no symbolic link
// is followed. The path of home and mail location may lead through links; it is the
// administrator's. All of it happens with the rights of the mailbox's owner.
package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"

	"dovepost/lmtp"
	"dovepost/lmtp/journal"
)

// Fsync says when what is written is made durable: mail_fsync.
type Fsync int

const (
	FsyncOptimized Fsync = iota // before a message is acknowledged
	FsyncAlways                 // the same here: a delivery writes nothing else that could be lost
	FsyncNever                  // a power loss loses acknowledged messages
)

// ParseFsync reads a value of mail_fsync: always, optimized or never.
func ParseFsync(s string) (Fsync, error) {
	switch s {
	case "optimized":
		return FsyncOptimized, nil
	case "always":
		return FsyncAlways, nil
	case "never":
		return FsyncNever, nil
	}
	return 0, fmt.Errorf("mail_fsync = %s: not always, optimized or never", s)
}

// Deliverer stores messages in Maildirs. It is a lmtp.Deliverer; the zero value
// delivers to INBOX, without quota, where Mailbox.Mail says.
//
// Errors of Deliver wrap a *lmtp.Status with what the client is told; the rest of
// their text is for the log. All are temporary but lmtp.ErrOverQuota, which comes
// from Quota.
type Deliverer struct {
	Fsync           Fsync
	DefaultLocation string           // mail_location, with variables, for mailboxes that have none of their own
	SaveToDetail    bool             // lmtp_save_to_detail_mailbox: user+folder@ goes to the mailbox folder
	Autocreate      bool             // lda_mailbox_autocreate: make that mailbox if there is none
	Autosubscribe   bool             // lda_mailbox_autosubscribe: and subscribe to it
	Hostname        string           // in file names; the machine's name if empty. Must differ between machines that share a Maildir
	Separator       byte             // of levels in mailbox names, as clients see them; 0 is Dovecot's default: '.', for LAYOUT=fs '/'
	Prefix          string           // of the namespace that holds INBOX, such as "INBOX."
	Quota           Quota            // nil: no limits, nothing is counted
	Journal         *journal.Journal // nil: a message that is sent again is stored again
	FS              FS               // nil: System
	Log             *slog.Logger

	making making
	host   struct {
		sync.Once
		name string
	}
}

// Quota decides whether a message has room, and counts it.
type Quota interface {
	// Reserve takes room for a message of at least size octets for a mailbox of u, whose
	// name is what EachMailbox calls it. Errors: lmtp.ErrOverQuota or another *lmtp.Status; anything else is temporary.
	Reserve(ctx context.Context, u *User, mailbox string, size int64) (Reservation, error)
}

// Reservation is room for one message.
type Reservation interface {
	// Resize is told what the message really takes, in octets as stored and
	// with CRLF line ends. Errors as those of Reserve. A message for several users is
	// resized for one after the other, in the order of their control directories, and only once
	// for each of those before it is committed or released.
	Resize(size, vsize int64) error
	// Commit counts the message, which is in its mailbox for good.
	Commit() error
	// Release gives back what was not committed. It is always called, last.
	Release()
}

// User is the owner of a mailbox while a message is delivered: what a Quota may look at.
// It is valid only inside that delivery, which runs with the user's rights.
type User struct {
	Mailbox  *lmtp.Mailbox
	Location *Location
	d        *Deliverer
	sys      FS
	gid      int
}

var _ lmtp.Deliverer = (*Deliverer)(nil)

// user finds out where the mail of mb is.
func (d *Deliverer) user(mb *lmtp.Mailbox) (*User, error) {
	var loc *Location
	var err error
	switch {
	case mb.Mail != "":
		loc, err = location(mb.Mail, mb, false)
	case d.DefaultLocation != "":
		loc, err = location(d.DefaultLocation, mb, true)
	default:
		err = errors.New("no mail location")
	}
	if err != nil {
		return nil, err
	}
	u := &User{Mailbox: mb, Location: loc, d: d, sys: d.FS, gid: mb.GID}
	if u.sys == nil {
		u.sys = System
	}
	if u.gid < 0 {
		u.gid = os.Getegid()
	}
	return u, nil
}

// open opens the mailbox that the message goes to and returns its name.
func (u *User) open(ctx context.Context) (name string, b *box, err error) {
	if detail := u.Mailbox.Detail; detail != "" && u.d.SaveToDetail {
		// The name in full, as clients and quota rules have it.
		name = u.d.Prefix + strings.TrimPrefix(detail, u.d.Prefix)
		if isInbox(detail) || isInbox(name) {
			name = inbox
		}
		b, err := u.openFolder(ctx, name)
		if err == nil || !errors.Is(err, errNoFolder) {
			return name, b, err
		}
		u.d.log().InfoContext(ctx, "saved to INBOX instead of the detail mailbox",
			"user", u.Mailbox.User, "mailbox", detail, "err", err)
	}
	b, err = u.openFolder(ctx, inbox)
	return inbox, b, err
}

// errNoFolder marks names that no mailbox has or can have: the message goes to INBOX.
var errNoFolder = errors.New("no such mailbox")

// openFolder opens the mailbox name, UTF-8 with the prefix and separator of the namespace.
func (u *User) openFolder(ctx context.Context, name string) (*box, error) {
	if name == inbox {
		return u.openBox(u.Location.Inbox, nil, true)
	}
	name = strings.TrimPrefix(name, u.d.Prefix)
	elements, err := u.Location.elements(name, u.separator())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoFolder, err)
	}
	b, err := u.openBox(u.Location.Root, elements, u.d.Autocreate)
	if errors.Is(err, fs.ErrNotExist) && !u.d.Autocreate {
		return nil, fmt.Errorf("%w: %w", errNoFolder, err)
	}
	if err == nil && b.created && u.d.Autosubscribe {
		if err := u.subscribe(elements); err != nil {
			u.d.log().WarnContext(ctx, "not subscribed", "user", u.Mailbox.User, "mailbox", name, "err", err)
		}
	}
	return b, err
}

func (u *User) separator() byte {
	switch {
	case u.d.Separator != 0:
		return u.d.Separator
	case u.Location.Layout == FSLayout:
		return '/'
	}
	return '.'
}

func (d *Deliverer) hostname() string {
	d.host.Do(func() { d.host.name = hostname(d.Hostname) })
	return d.host.name
}

func (d *Deliverer) sync() bool { return d.Fsync != FsyncNever }

func (d *Deliverer) log() *slog.Logger {
	if d.Log == nil {
		return slog.Default()
	}
	return d.Log
}

// boundless is the reservation of those who have no limits.
type boundless struct{}

func (boundless) Resize(int64, int64) error { return nil }
func (boundless) Commit() error             { return nil }
func (boundless) Release()                  {}
