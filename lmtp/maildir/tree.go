package maildir

import (
	"errors"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"
)

// Control opens the directory for files about all of a user's mail, such as
// maildirsize, and makes it if need be.
func (u *User) Control() (*Dir, error) {
	if u.control != nil {
		return u.control, nil
	}
	d, err := openDir(u.sys, u.Location.Control)
	if !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	m := maker{u: u}
	if d, err = m.path(u.Location.Control); err != nil {
		m.undo()
	}
	return d, err
}

// FindControl is Control for who must change nothing: fs.ErrNotExist says that there is none.
func (u *User) FindControl() (*Dir, error) { return openDir(u.sys, u.Location.Control) }

// Perm is what files about all of a user's mail get: that of the root of the tree.
func (u *User) Perm() (Perm, error) {
	root, err := openDir(u.sys, u.Location.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return Perm{}, nil
	}
	if err != nil {
		return Perm{}, err
	}
	defer root.Close()
	st, err := root.Stat()
	return permOf(&st, u.gid), err
}

// maxDepth bounds the levels of mailboxes that are looked at.
const maxDepth = 64

// EachMailbox calls f with every mailbox of the user: its name as clients see it, and
// its directory, which is closed afterwards. INBOX comes first, and once: INBOX=~/Maildir/.INBOX
// has it among the others. What vanishes meanwhile is left out. The first error ends it.
func (u *User) EachMailbox(f func(name string, dir *Dir) error) error {
	box, err := openDir(u.sys, u.Location.Inbox)
	if err == nil {
		err = f(inbox, box)
		if strings.HasPrefix(u.Location.Inbox, u.Location.Root+"/") && err == nil {
			f, err = except(box, f)
		}
		_ = box.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	root, err := openDir(u.sys, u.Location.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	return u.eachBelow(root, u.d.Prefix, 0, f)
}

// except returns an f that is not called for the directory box.
func except(box *Dir, f func(name string, dir *Dir) error) (func(name string, dir *Dir) error, error) {
	st, err := box.Stat()
	return func(name string, dir *Dir) error {
		if other, err := dir.Stat(); err != nil || other.Dev == st.Dev && other.Ino == st.Ino {
			return err
		}
		return f(name, dir)
	}, err
}

// eachBelow calls f for the mailboxes whose directories stand in dir.
func (u *User) eachBelow(dir *Dir, parent string, depth int, f func(string, *Dir) error) error {
	for entry, err := range dir.Names() {
		if err != nil {
			return err
		}
		name, ok := u.Location.mailboxName(entry, u.separator())
		if !ok {
			continue
		}
		sub, err := dir.OpenDir(entry)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue // gone, or no mailbox of ours
		}
		if err == nil {
			name = parent + name
			if err = f(name, sub); err == nil && u.Location.Layout == FSLayout && depth < maxDepth {
				err = u.eachBelow(sub, name+string(u.separator()), depth+1, f)
			}
			_ = sub.Close()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// mailboxName is what elements did, backwards, for one directory; ok is false if no
// mailbox has that directory. A name that is no modified UTF-7 is left as it is.
func (l *Location) mailboxName(entry string, sep byte) (name string, ok bool) {
	if entry == "." || entry == ".." {
		return "", false
	}
	if l.Layout == FSLayout {
		return l.decode(entry), l.checkPart(entry) == nil
	}
	if entry[0] != '.' || len(entry) < 2 || entry[1] == '.' {
		return "", false
	}
	parts := strings.Split(entry[1:], ".")
	for i, part := range parts {
		parts[i] = l.decode(part)
	}
	return strings.Join(parts, string(sep)), true
}

func (l *Location) decode(part string) string {
	if !l.UTF8 {
		if name, ok := decodeMUTF7(part); ok {
			return name
		}
	}
	return part
}
