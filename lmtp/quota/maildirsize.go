package quota

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"dovepost/lmtp/maildir"

	"golang.org/x/sys/unix"
)

const (
	sizeName = "maildirsize"

	// stale is the age from which a file that says "over quota" is not believed:
	// the user may have deleted messages behind its back.
	stale = 15 * time.Minute
)

// readSize returns the usage that maildirsize tells, and the limits in force. It counts all
// messages and writes the file anew where that has to be done: it is missing, damaged or
// no regular file, has grown long, tells other limits than the rules, or says "over quota" with
// more than one line or for long. account.mu is held.
func (v *reservation) readSize() (usage, Limits, error) {
	var err error
	if v.dir, err = v.user.Control(); err != nil {
		return usage{}, Limits{}, err
	}
	limits := v.rules.limits
	s, ok, err := v.loadSize(&limits)
	if err != nil || ok {
		return s.used, limits, err
	}
	return v.countAgain(limits, func(sizeFile) bool { return true })
}

// verifySize counts all messages before somebody is refused one, unless that was done just now: who
// has deleted mail without maildirsize being told, or had it damaged, is not over quota.
func (v *reservation) verifySize() (usage, error) {
	used, _, err := v.countAgain(v.limits, sizeFile.counted)
	return used, err
}

// countAgain counts all messages and writes the file anew, unless what another delivery
// has written while this one waited will do.
func (v *reservation) countAgain(limits Limits, willDo func(sizeFile) bool) (usage, Limits, error) {
	v.account.quiesce()
	defer v.account.resume()
	s, ok, err := v.loadSize(&limits)
	if err != nil || ok && willDo(s) {
		return s.used, limits, err
	}
	s = sizeFile{limits: limits}
	if s.used, err = v.recount(s); err != nil {
		return usage{}, limits, err
	}
	return s.used, limits, nil
}

// sizeBuffers are for whole files.
var sizeBuffers = sync.Pool{New: func() any { return new([maxSizeFile]byte) }}

// loadSize reads the file; ok is false if it must be written anew. Without a rule for all
// mail the limits are those of the file.
func (v *reservation) loadSize(limits *Limits) (s sizeFile, ok bool, err error) {
	s, err = v.readKnown()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, maildir.ErrNotRegular) {
		return s, false, nil
	}
	if err != nil && !errors.Is(err, errSizeFile) {
		return s, false, err
	}
	if !v.rules.forced && s.limits != (Limits{}) {
		*limits = s.limits // also of a file that is damaged further down
	}
	if err != nil || s.limits != *limits {
		return s, false, nil
	}
	return s, !s.used.over(*limits) || s.counted(), nil
}

// readKnown returns what the file holds, which it reads if it is not known.
func (v *reservation) readKnown() (s sizeFile, err error) {
	if st, err := v.dir.StatName(sizeName); err == nil {
		if s, ok := v.root.sizes.get(v.key, &st); ok {
			return s, nil
		}
	}
	f, err := v.dir.Open(sizeName, unix.O_RDONLY)
	if err != nil {
		return s, err
	}
	defer f.Close()
	buf := sizeBuffers.Get().(*[maxSizeFile]byte)
	defer sizeBuffers.Put(buf)
	was := f.Opened()
	n, err := io.ReadFull(f, buf[:min(was.Size, maxSizeFile)])
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return s, err
	}
	if s, err = parseSizeFile(buf[:n]); err != nil {
		return s, err
	}
	if int64(n) == was.Size {
		v.root.sizes.put(v.key, was, s)
	}
	s.age = age(was)
	return s, nil
}

// age is how long ago a file was written.
func age(st *unix.Stat_t) time.Duration { return time.Since(time.Unix(st.Mtim.Unix())) }

var tempNumber atomic.Uint64

// recount counts all messages and replaces the file, while no message of this process
// becomes visible. If another program adds or removes some, the result may be off by
// those, and the file is removed instead: the next who reads counts again.
func (v *reservation) recount(s sizeFile) (usage, error) {
	var scan scanner
	var err error
	if s.used, err = scan.count(v); err != nil {
		return s.used, err
	}
	changed, err := scan.changed(v)
	if err != nil {
		return s.used, err
	}
	if changed {
		if err := v.dir.Remove(sizeName); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return s.used, err
		}
		return s.used, nil
	}
	perm, err := v.user.Perm()
	if err != nil {
		return s.used, err
	}
	temp := fmt.Sprintf("%s.%d.%d.%d", sizeName, os.Getpid(), time.Now().UnixNano(), tempNumber.Add(1))
	f, err := v.dir.Create(temp, perm)
	if err != nil {
		return s.used, err
	}
	_, err = f.Write(s.append(nil))
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = v.dir.Replace(temp, sizeName)
	}
	if err != nil {
		return s.used, errors.Join(err, v.dir.Remove(temp))
	}
	return s.used, nil
}

// appendSize counts what was delivered in the file. If the file has gone, who comes
// next counts all messages; so that they do as well if it cannot be told whether the file
// counts this one, it is removed. account.mu is held.
func (v *reservation) appendSize(more usage) error {
	err := v.appendLine(more)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if e := v.dir.Remove(sizeName); e != nil && !errors.Is(e, fs.ErrNotExist) {
		return errors.Join(err, e)
	}
	if errors.Is(err, errReplaced) {
		return nil // Dovecot was counting as well: nothing went wrong
	}
	return err
}

var errReplaced = errors.New("maildirsize was replaced meanwhile")

// appendLine appends to the file, and fails unless it is still the file at the end.
func (v *reservation) appendLine(more usage) error {
	f, err := v.dir.Open(sizeName, unix.O_WRONLY|unix.O_APPEND)
	if err != nil {
		return err
	}
	line := more.append(nil)
	_, err = f.Write(line)
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	now, err := v.dir.StatName(sizeName)
	if err != nil {
		return err
	}
	if !f.Is(&now) {
		return errReplaced
	}
	was := f.Opened()
	if s, ok := v.root.sizes.get(v.key, was); ok && now.Size == was.Size+int64(len(line)) {
		s.used.add(more, 1)
		s.lines++
		v.root.sizes.put(v.key, &now, s)
	}
	return nil
}

// knownSizes remembers what maildirsize files hold that were read or appended to. As long as one has the
// inode, the length and the time that it had, it need not be read: who else changes it appends to it, or
// renames another file to its place. The zero value is ready.
type knownSizes struct {
	mu sync.Mutex
	m  map[string]knownSize // guarded by mu, by control directory; at most maxSums
}

type knownSize struct {
	dev, ino uint64
	length   int64
	mtime    unix.Timespec
	file     sizeFile
}

// get returns what the file that st describes holds.
func (k *knownSizes) get(key string, st *unix.Stat_t) (sizeFile, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	known, ok := k.m[key]
	if !ok || known.ino != st.Ino || known.dev != st.Dev || known.length != st.Size || known.mtime != st.Mtim || st.Size >= maxSizeFile {
		return sizeFile{}, false
	}
	known.file.age = age(st)
	return known.file, true
}

func (k *knownSizes) put(key string, st *unix.Stat_t, s sizeFile) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.m == nil {
		k.m = make(map[string]knownSize)
	}
	makeRoom(k.m, key)
	k.m[key] = knownSize{st.Dev, st.Ino, st.Size, st.Mtim, s}
}
