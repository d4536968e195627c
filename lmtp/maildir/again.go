package maildir

import (
	"errors"
	"strings"
	"time"

	"dovepost/lmtp/journal"

	"golang.org/x/sys/unix"
)

// unsure is the age from which a draft that is gone proves nothing: Dovecot sweeps tmp/
// after 36 hours.
const unsure = 24 * time.Hour

// settle finds out whether a copy was stored before.
func (t *transaction) settle(v *delivery, c *filing) (stored bool, err error) {
	e := c.entry
	switch {
	case e.State == journal.Done:
		// What was not synced is lost by a power failure, whatever the journal says.
		stored = t.sync() || !e.Rebooted
	case e.State == journal.Begun && e.Draft != "":
		stored, err = t.examine(v.user, c)
	}
	if stored {
		t.tell(v, c)
	}
	return stored, err
}

// reappeared looks once more for a copy that settle has not found: a disk that was not mounted then may be by now,
// when the mailbox is open.
func (t *transaction) reappeared(v *delivery, c *filing) (stored bool, err error) {
	if c.entry.State != journal.Begun || c.entry.Draft == "" {
		return false, nil
	}
	if stored, err = v.user.found(c.entry.Final); !stored {
		return false, err
	}
	if stored, err = t.confirm(v.user, c); stored {
		t.tell(v, c)
	}
	return stored, err
}

func (t *transaction) tell(v *delivery, c *filing) {
	t.log().InfoContext(t.ctx, "sent again, and delivered before", "user", v.mb.User, "to", v.mb.Rcpt,
		"mailbox", c.Mailbox, "at", c.entry.When)
}

// examine looks at what the end of the process, or a failure, left. The rename takes the draft
// away: where it is gone the message is there, or was until its reader moved it.
func (t *transaction) examine(u *User, c *filing) (stored bool, err error) {
	sys, e := u.sys, c.entry
	var tmp, draft, final unix.Stat_t
	if there, err := exists(sys.StatAt(unix.AT_FDCWD, e.Draft[:strings.LastIndexByte(e.Draft, '/')+1]+".", &tmp)); !there {
		return false, err // no tmp/: the mailbox is gone, or a disk is, and the draft with it
	}
	waiting, err := exists(sys.StatAt(unix.AT_FDCWD, e.Draft, &draft))
	if err != nil {
		return false, err
	}
	if waiting {
		// Both are there after a rename that was a link, or if the name was somebody else's.
		stored, err = exists(sys.StatAt(unix.AT_FDCWD, e.Final, &final))
		if err != nil {
			return false, err
		}
		if !stored || draft.Dev != final.Dev || draft.Ino != final.Ino {
			return false, t.drop(u, c)
		}
		return t.confirm(u, c)
	}
	if stored, err = u.found(e.Final); err != nil {
		return false, err
	}
	if !stored && (e.Rebooted || time.Since(e.When) >= unsure) {
		return false, nil
	}
	return t.confirm(u, c)
}

// confirm makes durable what was delivered before, which it was perhaps not yet, and tells the journal.
func (t *transaction) confirm(u *User, c *filing) (bool, error) {
	if t.sync() {
		if err := u.syncBox(c.entry.Final); err != nil {
			return false, err
		}
	}
	t.Journal.Done(c.key)
	return true, nil
}

// drop removes the draft of a delivery that is begun anew.
func (t *transaction) drop(u *User, c *filing) error {
	// The journal first, or a second end of the process would look like a delivery. If it cannot tell, the
	// draft stays, and whoever serves the mailbox sweeps it.
	if t.Journal.Forget(c.key) != nil {
		return nil
	}
	_, err := exists(u.sys.Unlink(unix.AT_FDCWD, c.entry.Draft, 0))
	return err
}

// forget tells the journal that there will be no message. If it cannot, the draft has to stay.
func (t *transaction) forget(c *filing) {
	c.keep = c.held && t.Journal.Forget(c.key) != nil
}

// exists makes an answer of the error of a call that names a file.
func exists(err error) (bool, error) {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	return err == nil, err
}

// boxOf is the directory of the mailbox in which the message is at path, in new/ or cur/, and the
// name of the message without flags.
func boxOf(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	name, _, _ = strings.Cut(path[i+1:], ":")
	dir = path[:max(i, 0)]
	return dir[:max(strings.LastIndexByte(dir, '/'), 0)], name
}

// found reports whether a message that was delivered as path is there, or in cur/.
func (u *User) found(path string) (bool, error) {
	var st unix.Stat_t
	if there, err := exists(u.sys.StatAt(unix.AT_FDCWD, path, &st)); there || err != nil {
		return there, err
	}
	return u.kept(path)
}

// kept looks in cur/ for a message that was delivered as path.
func (u *User) kept(path string) (bool, error) {
	box, message := boxOf(path)
	cur, err := openDir(u.sys, box+"/cur")
	if err != nil {
		return exists(err)
	}
	defer cur.Close()
	for name, err := range cur.Names() {
		if err != nil {
			return false, err
		}
		if base, _, _ := strings.Cut(name, ":"); base == message {
			return true, nil
		}
	}
	return false, nil
}

// syncBox makes durable what was delivered as path, and that a reader moved it to cur/.
func (u *User) syncBox(path string) error {
	box, _ := boxOf(path)
	for _, sub := range []string{"/cur", "/new"} {
		dir, err := openDir(u.sys, box+sub)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue // its owner has removed it
		}
		if err != nil {
			return err
		}
		err = dir.Sync()
		_ = dir.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
