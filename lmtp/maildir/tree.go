package maildir

import (
	"errors"
	"io/fs"
)

// Control opens the directory for files about all of a user's mail, such as
// maildirsize, and makes it if need be.
func (u *User) Control() (*Dir, error) {
	d, err := openDir(u.sys, u.Location.Control)
	if !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	u.d.making.begin()
	defer u.d.making.end()
	m := maker{u: u}
	if d, err = m.path(u.Location.Control); err != nil {
		m.undo()
	}
	return d, err
}

// Perm is what files about all of a user's mail get: that of the root of the tree.
func (u *User) Perm() (Perm, error) {
	root, err := openDir(u.sys, u.Location.Root)
	if err != nil {
		return Perm{}, err
	}
	defer root.Close()
	st, err := root.Stat()
	return permOf(&st, u.gid), err
}
