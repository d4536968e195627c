package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	uidlistName = "dovecot-uidlist"
	uidlistLock = "dovecot-uidlist.lock"

	// lockStale is the age from which nobody is behind a dovecot-uidlist.lock, lockWait for
	// how long a delivery waits for who is.
	lockStale = 2 * time.Minute
	lockWait  = 15 * time.Second
	lockPause = 20 * time.Millisecond
)

// uidlist is a lock that keeps Dovecot, and other deliveries, from the keywords of a mailbox. It is a
// file with "pid:host" in it.
type uidlist struct {
	dir *Dir
	ino uint64
}

var errLocked = errors.New(uidlistLock + " is held by somebody else")

// holders are the directories in which this process has the lock, or is about to make it.
var holders sync.Map

// lockUidlist makes dovecot-uidlist.lock as Dovecot does.
func (u *User) lockUidlist(ctx context.Context, dir *Dir, perm Perm) (*uidlist, error) {
	deadline := time.Now().Add(lockWait)
	for {
		if _, ours := holders.LoadOrStore(dir.path, true); !ours {
			l, err := u.tryUidlist(ctx, dir, perm)
			if err == nil {
				return l, nil
			}
			holders.Delete(dir.path)
			if !errors.Is(err, fs.ErrExist) {
				return nil, err
			}
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return nil, errLocked
		}
		time.Sleep(lockPause)
	}
}

// tryUidlist makes the lock, in the place of one that nobody holds any more; fs.ErrExist if
// somebody does.
func (u *User) tryUidlist(ctx context.Context, dir *Dir, perm Perm) (*uidlist, error) {
	l, err := createUidlist(dir, perm)
	if !errors.Is(err, fs.ErrExist) {
		return l, err
	}
	removed, e := removeStale(dir)
	if e != nil {
		return nil, e
	}
	if !removed {
		return nil, err
	}
	u.d.log().WarnContext(ctx, "stale lock removed", "user", u.Mailbox.User, "file", dir.path+"/"+uidlistLock)
	return createUidlist(dir, perm)
}

func createUidlist(dir *Dir, perm Perm) (*uidlist, error) {
	f, err := dir.Create(uidlistLock, perm)
	if err != nil {
		return nil, err
	}
	l := &uidlist{dir: dir}
	host, _ := os.Hostname()
	st, err := f.Stat()
	if err == nil {
		l.ino = st.Ino
		_, err = fmt.Fprintf(f, "%d:%s", os.Getpid(), host)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, errors.Join(err, dir.Remove(uidlistLock))
	}
	return l, nil
}

// removeStale removes a lock that nobody holds any more: its process has ended, as Dovecot finds
// out, too, or neither it nor the list has changed for lockStale. The caller is in holders.
func removeStale(dir *Dir) (removed bool, err error) {
	f, err := dir.Open(uidlistLock, unix.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil // gone by itself
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return false, err
	}
	text, err := io.ReadAll(io.LimitReader(f, 512))
	if err != nil {
		return false, err
	}
	if !ended(string(text)) {
		last := st.Mtim.Sec
		list, err := dir.StatName(uidlistName)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		if err == nil {
			last = max(last, list.Mtim.Sec)
		}
		if time.Since(time.Unix(last, 0)) <= lockStale {
			return false, nil
		}
	}
	now, err := dir.StatName(uidlistLock)
	if err == nil && now.Ino == st.Ino {
		err = dir.Remove(uidlistLock)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return true, nil
}

// ended reports whether the process that has made a lock with this text is no more. A process
// of our number that is not in holders is the one before us.
func ended(text string) bool {
	number, host, _ := strings.Cut(text, ":")
	pid, err := strconv.Atoi(number)
	own, _ := os.Hostname()
	if err != nil || pid <= 0 || host != own || own == "" {
		return false
	}
	return pid == os.Getpid() || errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}

// release removes the lock, unless somebody took it for stale.
func (l *uidlist) release() {
	defer holders.Delete(l.dir.path)
	if st, err := l.dir.StatName(uidlistLock); err == nil && st.Ino != l.ino {
		return
	}
	_ = l.dir.Remove(uidlistLock)
}
