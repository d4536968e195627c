package maildir

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// as runs f with the filesystem rights of uid and gid; -1 stands for the process's own.
//
// Nothing is ever done as root and then given away: files are born with their
// owner, and a link that a user planted leads nowhere but where that user may go.
// If the ids are not the process's own, f runs on a thread of its own whose
// filesystem uid and gid are the user's, which has no supplementary groups, and
// whose only effective capabilities are the two that bring it back.
func as(uid, gid int, f func() error) error {
	if uid < 0 {
		uid = os.Geteuid()
	}
	if gid < 0 {
		gid = os.Getegid()
	}
	if uid == 0 || gid == 0 {
		return fmt.Errorf("mail access not permitted with uid %d, gid %d", uid, gid)
	}
	if uid == os.Geteuid() && gid == os.Getegid() {
		return f()
	}
	var err error
	var panicked any
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		back, e := become(uid, gid)
		defer func() {
			if v := recover(); v != nil { // goes on in the goroutine of the caller, which has another stack
				panicked = fmt.Errorf("%v\n%s", v, debug.Stack())
			}
			if back() {
				runtime.UnlockOSThread()
			} // else the thread ends with this goroutine: nobody else may run on it
		}()
		if err = e; err == nil {
			err = f()
		}
	}()
	<-done
	if panicked != nil {
		panic(panicked)
	}
	return err
}

// MayOwn reports why mail cannot be stored for uid and gid: the process may not become them, or
// they are root's.
func MayOwn(uid, gid int) error { return as(uid, gid, func() error { return nil }) }

// process is what the threads of this process are when they are nobody else.
var process = sync.OnceValues(func() (p struct {
	groups []uint32
	caps   [2]unix.CapUserData
}, err error) {
	groups, err := unix.Getgroups()
	if err != nil {
		return p, err
	}
	for _, g := range groups {
		p.groups = append(p.groups, uint32(g))
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	return p, unix.Capget(&hdr, &p.caps[0])
})

var errRights = errors.New("delivery for other users needs CAP_SETUID and CAP_SETGID")

// become turns the calling thread, which must be locked, into uid and gid. back
// undoes it, also what an error left half done, and reports whether the thread is
// as it was.
func become(uid, gid int) (back func() bool, err error) {
	p, err := process()
	if err != nil {
		return func() bool { return true }, err
	}
	const need = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
	if p.caps[0].Effective&need != need {
		return func() bool { return true }, fmt.Errorf("uid %d, gid %d: %w", uid, gid, errRights)
	}
	back = func() bool {
		// Raise first: the other calls need it.
		err := errors.Join(setCaps(p.caps), setFSIDs(os.Geteuid(), os.Getegid()), setCaps(p.caps), setGroups(p.groups))
		return err == nil
	}
	few := p.caps
	few[0].Effective, few[1].Effective = need, 0
	if err := errors.Join(setGroups(nil), setFSIDs(uid, gid), setCaps(few)); err != nil {
		return back, fmt.Errorf("become uid %d, gid %d: %w", uid, gid, err)
	}
	return back, nil
}

// The calls below are raw: they are for one thread, while package syscall changes all.

func setGroups(groups []uint32) error {
	var p unsafe.Pointer
	if len(groups) > 0 {
		p = unsafe.Pointer(&groups[0])
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(p), 0); errno != 0 {
		return os.NewSyscallError("setgroups", errno)
	}
	return nil
}

// setFSIDs changes what the kernel checks file access against. Its calls tell no
// error: they answer what was before, and an id that does not exist only asks.
func setFSIDs(uid, gid int) error {
	_, _ = unix.SetfsgidRetGid(gid)
	_, _ = unix.SetfsuidRetUid(uid)
	u, _ := unix.SetfsuidRetUid(-1)
	g, _ := unix.SetfsgidRetGid(-1)
	if u != uid || g != gid {
		return os.NewSyscallError("setfsuid", unix.EPERM)
	}
	return nil
}

func setCaps(caps [2]unix.CapUserData) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	return os.NewSyscallError("capset", unix.Capset(&hdr, &caps[0]))
}
