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
	"slices"
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
	Filter          lmtp.Filter      // asked for each recipient before anything is stored; nil: all is kept
	Sender          lmtp.Sender      // for what Filter redirects; nil: such mail waits
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
	// Reserve takes room for copies of a message of at least size octets, one in each of mailboxes,
	// whose names are what EachMailbox calls them. Errors: lmtp.ErrOverQuota or another *lmtp.Status; anything else is temporary.
	Reserve(ctx context.Context, u *User, mailboxes []string, size int64) (Reservation, error)
	// HasRoom says whether a message of about size octets, 0 if nobody knows, could be reserved room
	// for. Errors as those of Reserve, a *lmtp.Status of class 5 only if it could not.
	HasRoom(ctx context.Context, u *User, mailbox string, size int64) error
}

// Reservation is room for the copies of one message that one user gets.
type Reservation interface {
	// Resize is told what each copy really takes, in octets as stored and
	// with CRLF line ends. Errors as those of Reserve.
	Resize(size, vsize int64) error
	// Show is called when the copies are about to become visible. A message for several users is
	// shown to one after the other, in the order of their control directories, and only once
	// to each of those before it is committed or released.
	Show()
	// Commit counts the copies, which are in their mailboxes for good.
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
	control  *Dir // nil, or open already, as long as the delivery lasts
}

var (
	_ lmtp.Deliverer   = (*Deliverer)(nil)
	_ lmtp.RoomChecker = (*Deliverer)(nil)
)

// HasRoom asks Quota about the mailbox that a message goes to when no filter says
// another. See lmtp.RoomChecker.
func (d *Deliverer) HasRoom(ctx context.Context, mb *lmtp.Mailbox, size int64) error {
	if d.Quota == nil {
		return nil
	}
	u, err := d.user(mb)
	if err == nil {
		err = as(mb.UID, mb.GID, func() error { return d.Quota.HasRoom(ctx, u, u.target(), size) })
	}
	if err != nil {
		return status(fmt.Errorf("mailbox of %s: %w", mb.User, err))
	}
	return nil
}

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

// target names the mailbox that a message goes to when no filter says another: INBOX, or with
// SaveToDetail that of the address extension, in full, as clients and quota rules have it.
func (u *User) target() string {
	detail := u.Mailbox.Detail
	if detail == "" || !u.d.SaveToDetail {
		return inbox
	}
	return u.fullName(detail)
}

// fullName adds the prefix of the namespace to a mailbox name that came without.
func (u *User) fullName(name string) string {
	full := u.d.Prefix + strings.TrimPrefix(name, u.d.Prefix)
	if isInbox(name) || isInbox(full) {
		return inbox
	}
	return full
}

// open opens the mailbox name, or INBOX if there is none of that name, and returns the name of
// that which it is.
func (u *User) open(ctx context.Context, name string, create, subscribe bool) (string, *box, error) {
	if name != inbox {
		b, err := u.openFolder(ctx, name, create, subscribe)
		if err == nil || !errors.Is(err, errNoFolder) {
			return name, b, err
		}
		u.d.log().InfoContext(ctx, "saved to INBOX instead of another mailbox",
			"user", u.Mailbox.User, "mailbox", name, "err", err)
	}
	b, err := u.openBox(u.Location.Inbox, nil, true)
	if err == nil && u.Location.Inbox == u.Location.Control {
		u.control = &Dir{sys: b.dir.sys, fd: b.dir.fd, path: b.dir.path, shared: true}
	}
	return inbox, b, err
}

// errNoFolder marks names that no mailbox has or can have: the message goes to INBOX.
var errNoFolder = errors.New("no such mailbox")

// openFolder opens the mailbox name, UTF-8 with the prefix and separator of the namespace.
func (u *User) openFolder(ctx context.Context, name string, create, subscribe bool) (*box, error) {
	name = strings.TrimPrefix(name, u.d.Prefix)
	elements, err := u.Location.elements(name, u.separator())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoFolder, err)
	}
	b, err := u.openBox(u.Location.Root, elements, create)
	if errors.Is(err, fs.ErrNotExist) && !create {
		return nil, fmt.Errorf("%w: %w", errNoFolder, err)
	}
	if err == nil && b.created && subscribe {
		if err := u.subscribe(slices.Clone(elements)); err != nil {
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
func (boundless) Show()                     {}
func (boundless) Commit() error             { return nil }
func (boundless) Release()                  {}
