package maildir

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"
)

// box is an open mailbox: the directories a delivery works in.
type box struct {
	dir, tmp, new *Dir
	cur           *Dir     // nil until it is asked for
	elements      []string // from the root of the tree to it; none: INBOX
	perm          Perm     // for what is created in it
	created       bool     // its directory was not there before
}

func (b *box) Close() (err error) {
	for _, d := range [...]*Dir{b.dir, b.tmp, b.new, b.cur} {
		if d != nil {
			err = cmp.Or(err, d.Close())
		}
	}
	return err
}

// openBox opens the directories of the mailbox at elements below base. With create
// it makes what is missing, and durable before it returns; without, fs.ErrNotExist says
// that there is no such mailbox. An existing mailbox that lacks tmp or new is mended.
func (u *User) openBox(base string, elements []string, create bool) (*box, error) {
	b, err := u.openExisting(base, elements)
	if errors.Is(err, fs.ErrNotExist) {
		return u.createBox(base, elements, create)
	}
	if err == nil {
		// Somebody may be making this very mailbox, and the names in it would not
		// be durable yet.
		u.d.making.wait(boxPath(base, elements))
	}
	return b, err
}

// boxPath is what making calls the mailbox.
func boxPath(base string, elements []string) string {
	if len(elements) == 0 {
		return base + "/"
	}
	return base + "/" + strings.Join(elements, "/") + "/"
}

func (u *User) openExisting(base string, elements []string) (*box, error) {
	dir, err := openDir(u.sys, base)
	if err != nil {
		return nil, err
	}
	if dir, err = descend(dir, elements); err != nil {
		return nil, err
	}
	b := &box{dir: dir, elements: elements}
	if err := b.open(u.gid); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// open fills in the rest of b, whose dir is open.
func (b *box) open(gid int) error {
	st, err := b.dir.Stat()
	if err != nil {
		return err
	}
	b.perm = permOf(&st, gid)
	if b.tmp, err = b.dir.OpenDir("tmp"); err != nil {
		return err
	}
	b.new, err = b.dir.OpenDir("new")
	return err
}

// openCur opens cur, and makes it if somebody has taken it away.
func (b *box) openCur(sync bool) (err error) {
	if b.cur, err = b.dir.OpenDir("cur"); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err = b.dir.Mkdir("cur", b.perm); err == nil && sync {
		err = b.dir.Sync()
	}
	if err == nil {
		b.cur, err = b.dir.OpenDir("cur")
	}
	return err
}

// descend opens elements one below the other, and closes all but the last.
func descend(dir *Dir, elements []string) (*Dir, error) {
	for _, name := range elements {
		next, err := dir.OpenDir(name)
		_ = dir.Close()
		if err != nil {
			return nil, noFolder(err)
		}
		dir = next
	}
	return dir, nil
}

// noFolder marks the error of opening a directory of a mailbox tree that is none: a link,
// or a file. Where the tree is the home, senders could name one: alice+bashrc@.
func noFolder(err error) error {
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("%w: %w", errNoFolder, err)
	}
	return err
}

// createBox makes the mailbox: parents first, tmp and new last, each name made durable
// in its directory. On error it removes the directories that it made.
func (u *User) createBox(base string, elements []string, create bool) (b *box, err error) {
	name := boxPath(base, elements)
	u.d.making.begin(name)
	defer u.d.making.end(name)
	m := maker{u: u}
	defer func() {
		if err != nil {
			m.undo()
		}
	}()
	var root *Dir
	if create {
		root, err = m.path(base)
	} else {
		root, err = openDir(u.sys, base)
	}
	if err != nil {
		return nil, err
	}
	st, err := root.Stat()
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	perm := permOf(&st, u.gid)
	dir := root
	for _, name := range elements {
		var next *Dir
		if create {
			next, err = m.dir(dir, name, perm)
		} else {
			next, err = dir.OpenDir(name)
		}
		_ = dir.Close()
		if err != nil {
			return nil, noFolder(err)
		}
		dir = next
	}
	if !create && len(elements) > 0 && u.Location.Layout == FSLayout {
		// There a directory without cur is but the parent of mailboxes.
		if _, err := dir.StatName("cur"); err != nil {
			return nil, errors.Join(err, dir.Close())
		}
	}
	b = &box{dir: dir, elements: elements, created: len(m.made) > 0}
	if err := m.fill(dir, perm, len(elements) > 0 && u.Location.Layout == MaildirPP); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	if err := b.open(u.gid); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// maker creates directories and remembers them.
type maker struct {
	u    *User
	made []string
}

// path opens the directory at an absolute path, making it and its parents if need be.
// As everything else it is done with the rights of the user: who may not write to the
// place where the homes are gets no home.
func (m *maker) path(path string) (*Dir, error) {
	d, err := openDir(m.u.sys, path)
	if !errors.Is(err, fs.ErrNotExist) {
		m.u.d.making.wait(path)
		return d, err
	}
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return nil, err
	}
	parent, err := m.path(path[:max(i, 1)])
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	if _, err := m.mkdir(parent, path[i+1:], Perm{}); err != nil {
		return nil, err
	}
	return openDir(m.u.sys, path) // it may have become a link to one by now: as the administrator likes
}

// dir opens the directory name in parent, making it if need be.
func (m *maker) dir(parent *Dir, name string, perm Perm) (*Dir, error) {
	d, err := parent.OpenDir(name)
	if !errors.Is(err, fs.ErrNotExist) {
		m.u.d.making.wait(parent.path + "/" + name)
		return d, err
	}
	if _, err := m.mkdir(parent, name, perm); err != nil {
		return nil, err
	}
	return parent.OpenDir(name)
}

// mkdir makes name in parent and syncs parent, also if somebody else was faster.
func (m *maker) mkdir(parent *Dir, name string, perm Perm) (created bool, err error) {
	path := strings.TrimSuffix(parent.path, "/") + "/" + name
	m.u.d.making.begin(path)
	defer m.u.d.making.end(path)
	created, err = parent.Mkdir(name, perm)
	if created {
		m.made = append(m.made, path)
	}
	if err == nil && m.u.d.sync() {
		err = parent.Sync()
	}
	return created, err
}

// fill makes what belongs into a mailbox. maildirfolder tells programs that know
// only INBOX that this directory is a part of it.
func (m *maker) fill(dir *Dir, perm Perm, folder bool) error {
	for _, name := range []string{"cur", "tmp", "new"} {
		if _, err := dir.Mkdir(name, perm); err != nil {
			return err
		}
	}
	if folder {
		f, err := dir.Create("maildirfolder", perm)
		if err == nil {
			err = f.Close()
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if m.u.d.sync() {
		return dir.Sync()
	}
	return nil
}

// undo removes what was made, the last first. A directory that is in use by now stays.
func (m *maker) undo() {
	for i := len(m.made) - 1; i >= 0; i-- {
		_ = m.u.sys.Unlink(unix.AT_FDCWD, m.made[i]+"/maildirfolder", 0)
		for _, sub := range []string{"/new", "/tmp", "/cur", ""} {
			_ = m.u.sys.Unlink(unix.AT_FDCWD, m.made[i]+sub, unix.AT_REMOVEDIR)
		}
	}
}
