package maildir

import (
	"errors"
	"io"
	"io/fs"
	"iter"

	"golang.org/x/sys/unix"
)

// Dir is an open directory of a user's mail.
//
// Names given to its methods are single elements, and a symbolic link of that
// name is never followed: whatever a user plants in a mailbox, a delivery stays
// in it. All errors are *fs.PathError.
type Dir struct {
	sys    FS
	fd     int
	path   string // for error texts only
	shared bool   // somebody else closes it
}

// File is an open file of a user's mail.
type File struct {
	sys  FS
	fd   int
	dir  string
	name string
	was  unix.Stat_t // when Open opened it
}

func pathError(op, dir, name string, err error) error {
	if name != "" {
		dir += "/" + name
	}
	return &fs.PathError{Op: op, Path: dir, Err: err}
}

// openDir opens an absolute path, which is the administrator's: links are followed.
func openDir(sys FS, path string) (*Dir, error) {
	fd, err := sys.Open(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, pathError("open", path, "", err)
	}
	return &Dir{sys: sys, fd: fd, path: path}, nil
}

// Path is where the directory was found, for messages.
func (d *Dir) Path() string { return d.path }

// OpenDir opens the directory name in d.
func (d *Dir) OpenDir(name string) (*Dir, error) {
	fd, err := d.sys.Open(d.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, pathError("open", d.path, name, err)
	}
	return &Dir{sys: d.sys, fd: fd, path: d.path + "/" + name}, nil
}

// ErrNotRegular is the error of Open for what is no regular file.
var ErrNotRegular = errors.New("not a regular file")

// Open opens the regular file name in d with the flags of open(2). It does not wait for
// the other end of a FIFO that a user has put there: that could be for ever.
func (d *Dir) Open(name string, flags int) (*File, error) {
	fd, err := d.sys.Open(d.fd, name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) { // a link, a socket
		err = ErrNotRegular
	}
	if err != nil {
		return nil, pathError("open", d.path, name, err)
	}
	f := &File{sys: d.sys, fd: fd, dir: d.path, name: name}
	f.was, err = f.Stat()
	if err == nil && f.was.Mode&unix.S_IFMT != unix.S_IFREG {
		err = pathError("open", d.path, name, ErrNotRegular)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Create makes the file name, which must not exist, and opens it for writing. It
// takes exactly the permissions p, whatever the umask is. On error no file is left.
func (d *Dir) Create(name string, p Perm) (*File, error) {
	fd, err := d.sys.Open(d.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, pathError("create", d.path, name, err)
	}
	f := &File{sys: d.sys, fd: fd, dir: d.path, name: name}
	if err := p.apply(d.sys, fd, p.file()); err != nil {
		_ = f.Close()
		_ = d.Remove(name)
		return nil, pathError("chmod", d.path, name, err)
	}
	return f, nil
}

// Mkdir makes the directory name with the permissions p; created is false if
// there is one already.
func (d *Dir) Mkdir(name string, p Perm) (created bool, err error) {
	mode := p.dir()
	if p.grp {
		mode = 0o700 // until the group is the right one
	}
	err = d.sys.Mkdir(d.fd, name, mode)
	switch {
	case errors.Is(err, unix.EEXIST):
		return false, nil
	case err != nil:
		return false, pathError("mkdir", d.path, name, err)
	case p.dir() == 0o700:
		return true, nil
	}
	sub, err := d.OpenDir(name)
	if err != nil {
		return true, err
	}
	defer sub.Close()
	st, err := sub.Stat()
	if err == nil && (p.grp || st.Mode&0o777 != p.dir()) {
		// A chmod(2) without the setgid bit would take away what the directory has inherited.
		inherited := st.Mode & unix.S_ISGID
		err = p.apply(d.sys, sub.fd, p.dir()|inherited)
		if inherited != 0 && errors.Is(err, unix.EPERM) {
			err = nil // systemd's RestrictSUIDSGID: it stays the owner's
		}
		if err != nil {
			err = pathError("chmod", d.path, name, err)
		}
	}
	return true, err
}

// Remove unlinks the file name.
func (d *Dir) Remove(name string) error {
	if err := d.sys.Unlink(d.fd, name, 0); err != nil {
		return pathError("unlink", d.path, name, err)
	}
	return nil
}

// Rename moves the file name to the directory to, where toname must not exist.
func (d *Dir) Rename(name string, to *Dir, toname string) error {
	err := d.sys.Rename(d.fd, name, to.fd, toname, unix.RENAME_NOREPLACE)
	// Not every filesystem knows the flag; link(2) protects as well, at the price
	// of one more change to a directory.
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		if err = d.sys.Link(d.fd, name, to.fd, toname); err == nil {
			// It is delivered. A leftover in tmp/ is swept by whoever serves the mailbox.
			_ = d.sys.Unlink(d.fd, name, 0)
		}
	}
	if err != nil {
		return pathError("rename", to.path, toname, err)
	}
	return nil
}

// Back moves the file name to the directory to, where toname was it before.
func (d *Dir) Back(name string, to *Dir, toname string) error {
	if err := d.sys.Rename(d.fd, name, to.fd, toname, 0); err != nil {
		return pathError("rename", to.path, toname, err)
	}
	return nil
}

// Link gives the file name the second name toname in the directory to.
func (d *Dir) Link(name string, to *Dir, toname string) error {
	if err := d.sys.Link(d.fd, name, to.fd, toname); err != nil {
		return pathError("link", to.path, toname, err)
	}
	return nil
}

// Replace moves the file name to toname in d, in the place of what was there.
func (d *Dir) Replace(name, toname string) error {
	if err := d.sys.Rename(d.fd, name, d.fd, toname, 0); err != nil {
		return pathError("rename", d.path, toname, err)
	}
	return nil
}

// SetTime says when the file name was changed, in seconds.
func (d *Dir) SetTime(name string, mtime int64) error {
	if err := d.sys.SetTime(d.fd, name, mtime); err != nil {
		return pathError("utimens", d.path, name, err)
	}
	return nil
}

// Sync makes the names in d durable. Filesystems that cannot do this for a directory,
// such as CIFS, say EINVAL; there is no more to do there, for Dovecot neither.
func (d *Dir) Sync() error {
	if err := d.sys.Sync(d.fd); err != nil && !errors.Is(err, unix.EINVAL) {
		return pathError("fsync", d.path, "", err)
	}
	return nil
}

// Stat describes d itself.
func (d *Dir) Stat() (st unix.Stat_t, err error) {
	if err := d.sys.Stat(d.fd, &st); err != nil {
		return st, pathError("stat", d.path, "", err)
	}
	return st, nil
}

// StatName describes the entry name of d; a link is not followed.
func (d *Dir) StatName(name string) (st unix.Stat_t, err error) {
	if err := d.sys.StatAt(d.fd, name, &st); err != nil {
		return st, pathError("stat", d.path, name, err)
	}
	return st, nil
}

// Names yields the names in d in no order, without "." and "..". An error is the last it yields.
func (d *Dir) Names() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		buf := make([]byte, 32<<10)
		names := make([]string, 0, 256)
		for {
			n, err := d.sys.ReadDir(d.fd, buf)
			if err != nil {
				yield("", pathError("readdir", d.path, "", err))
				return
			}
			if n <= 0 {
				return
			}
			_, _, names = unix.ParseDirent(buf[:n], -1, names[:0])
			for _, name := range names {
				if !yield(name, nil) {
					return
				}
			}
		}
	}
}

// Close releases d.
func (d *Dir) Close() error {
	if d.shared {
		return nil
	}
	return d.sys.Close(d.fd)
}

// Write writes all of p.
func (f *File) Write(p []byte) (written int, err error) {
	for written < len(p) {
		n, err := f.sys.Write(f.fd, p[written:])
		if err == nil && n <= 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			return written, pathError("write", f.dir, f.name, err)
		}
		written += n
	}
	return written, nil
}

// Read reads up to len(p) octets; io.EOF at the end.
func (f *File) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := f.sys.Read(f.fd, p)
	if err != nil {
		return 0, pathError("read", f.dir, f.name, err)
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Sync makes the contents durable. An error is final: the kernel may forget the
// pages it could not write, so that a second Sync would lie.
func (f *File) Sync() error {
	if err := f.sys.Sync(f.fd); err != nil {
		return pathError("fsync", f.dir, f.name, err)
	}
	return nil
}

// Stat describes the open file.
func (f *File) Stat() (st unix.Stat_t, err error) {
	if err := f.sys.Stat(f.fd, &st); err != nil {
		return st, pathError("stat", f.dir, f.name, err)
	}
	return st, nil
}

// Opened describes the file as it was when Open opened it.
func (f *File) Opened() *unix.Stat_t { return &f.was }

// Is reports whether st describes the file that Open opened.
func (f *File) Is(st *unix.Stat_t) bool { return f.was.Ino == st.Ino && f.was.Dev == st.Dev }

// Close releases f. Its error is that of a write which came to light late.
func (f *File) Close() error {
	if err := f.sys.Close(f.fd); err != nil {
		return pathError("close", f.dir, f.name, err)
	}
	return nil
}

// Perm is what new files and directories of a mailbox get: the mode of the
// directory they stand in, as Dovecot derives it. The zero Perm is 0600 and 0700.
type Perm struct {
	mode uint32 // permission bits of the mailbox directory
	gid  int    // group to give away to, if chgrp
	grp  bool   // files take the directory's group
}

// permOf reads the permissions that a mailbox directory hands down. A group is
// handed down only where it matters: the directory does not do it by itself
// (setgid), and group and others may do different things.
func permOf(st *unix.Stat_t, processGID int) Perm {
	p := Perm{mode: st.Mode & 0o777, gid: int(st.Gid)}
	p.grp = st.Mode&unix.S_ISGID == 0 && p.mode>>3&7 != p.mode&7 && p.gid != processGID
	return p
}

func (p Perm) file() uint32 { return p.mode&0o666 | 0o600 }
func (p Perm) dir() uint32  { return p.mode | 0o700 }

// apply gives the open file its group and then its mode. Where the group cannot
// be given, its bits are not given either: they would open the file to another one.
func (p Perm) apply(sys FS, fd int, mode uint32) error {
	if p.grp {
		switch err := sys.Chown(fd, -1, p.gid); {
		case errors.Is(err, unix.EPERM):
			mode &^= 0o070
		case err != nil:
			return err
		}
	}
	if mode&^0o700 == 0 {
		return nil // created so
	}
	return sys.Chmod(fd, mode)
}
