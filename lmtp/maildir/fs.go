package maildir

import (
	"errors"

	"golang.org/x/sys/unix"
)

// FS is the filesystem as a delivery sees it: the system calls, relative to open
// directories. Every call that can fail goes through it, so that a test can let
// each of them fail, or stop the world at any of them.
//
// Errors are bare syscall.Errno values.
type FS interface {
	Open(dir int, name string, flags int, mode uint32) (fd int, err error) // openat(2); O_CLOEXEC is added
	Read(fd int, p []byte) (n int, err error)                              // read(2)
	Write(fd int, p []byte) (n int, err error)                             // write(2): may be short
	Sync(fd int) error                                                     // fsync(2)
	Close(fd int) error                                                    // close(2)
	Stat(fd int, st *unix.Stat_t) error                                    // fstat(2)
	StatAt(dir int, name string, st *unix.Stat_t) error                    // fstatat(2), symbolic links not followed
	Chown(fd, uid, gid int) error                                          // fchown(2)
	Chmod(fd int, mode uint32) error                                       // fchmod(2)
	Mkdir(dir int, name string, mode uint32) error                         // mkdirat(2)
	Rename(dir int, name string, todir int, toname string, flags uint) error
	Link(dir int, name string, todir int, toname string) error
	Unlink(dir int, name string, flags int) error    // unlinkat(2)
	ReadDir(fd int, buf []byte) (names int, e error) // getdents64(2)
	SetTime(dir int, name string, mtime int64) error // utimensat(2), symbolic links not followed; in seconds
}

// System is the real one.
var System FS = kernel{}

type kernel struct{}

// again repeats a call that a signal interrupted: the Go runtime signals its own
// threads, and a filesystem in user space or on the net may let that through.
func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (kernel) Open(dir int, name string, flags int, mode uint32) (fd int, err error) {
	err = again(func() (err error) {
		fd, err = unix.Openat(dir, name, flags|unix.O_CLOEXEC, mode)
		return err
	})
	return fd, err
}

func (kernel) Read(fd int, p []byte) (n int, err error) {
	err = again(func() (err error) { n, err = unix.Read(fd, p); return err })
	return n, err
}

func (kernel) Write(fd int, p []byte) (n int, err error) {
	err = again(func() (err error) { n, err = unix.Write(fd, p); return err })
	return n, err
}

func (kernel) Sync(fd int) error { return again(func() error { return unix.Fsync(fd) }) }

// Close is not repeated: Linux has released the descriptor whatever it answers.
func (kernel) Close(fd int) error { return unix.Close(fd) }

func (kernel) Stat(fd int, st *unix.Stat_t) error { return unix.Fstat(fd, st) }

func (kernel) StatAt(dir int, name string, st *unix.Stat_t) error {
	return unix.Fstatat(dir, name, st, unix.AT_SYMLINK_NOFOLLOW)
}

func (kernel) Chown(fd, uid, gid int) error { return unix.Fchown(fd, uid, gid) }

func (kernel) Chmod(fd int, mode uint32) error { return unix.Fchmod(fd, mode) }

func (kernel) Mkdir(dir int, name string, mode uint32) error { return unix.Mkdirat(dir, name, mode) }

func (kernel) Rename(dir int, name string, todir int, toname string, flags uint) error {
	return unix.Renameat2(dir, name, todir, toname, flags)
}

func (kernel) Link(dir int, name string, todir int, toname string) error {
	return unix.Linkat(dir, name, todir, toname, 0)
}

func (kernel) Unlink(dir int, name string, flags int) error { return unix.Unlinkat(dir, name, flags) }

func (kernel) ReadDir(fd int, buf []byte) (int, error) { return unix.Getdents(fd, buf) }

func (kernel) SetTime(dir int, name string, mtime int64) error {
	t := unix.Timespec{Sec: mtime}
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
}
