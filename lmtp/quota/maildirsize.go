package quota

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
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
// messages and writes the file anew where that has to be done: it is missing or
// damaged, has grown long, tells other limits than the rules, or says "over quota" with
// more than one line or for long. account.mu is held.
func (v *reservation) readSize() (usage, Limits, error) {
	dir, err := v.user.Control()
	if err != nil {
		return usage{}, Limits{}, err
	}
	defer dir.Close()
	limits := v.rules.limits
	s, ok, err := v.loadSize(dir, &limits)
	if err != nil || ok {
		return s.used, limits, err
	}
	v.account.quiesce()
	defer v.account.resume()
	// Another delivery may have done the work while this one waited.
	if s, ok, err = v.loadSize(dir, &limits); err != nil || ok {
		return s.used, limits, err
	}
	s = sizeFile{limits: limits}
	if s.used, err = v.recount(dir, s); err != nil {
		return usage{}, limits, err
	}
	return s.used, limits, nil
}

// loadSize reads the file; ok is false if it must be written anew. Without a rule for all
// mail the limits are those of the file.
func (v *reservation) loadSize(dir *maildir.Dir, limits *Limits) (s sizeFile, ok bool, err error) {
	f, err := dir.Open(sizeName, unix.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return s, false, nil
	}
	if err != nil {
		return s, false, err
	}
	defer f.Close()
	var buf [maxSizeFile]byte
	n, err := io.ReadFull(f, buf[:])
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return s, false, err
	}
	s, err = parseSizeFile(buf[:n])
	if !v.rules.forced && s.limits != (Limits{}) {
		*limits = s.limits // also of a file that is damaged further down
	}
	if err != nil || s.limits != *limits {
		return s, false, nil
	}
	if !s.used.over(*limits) {
		return s, true, nil
	}
	if s.lines > 1 {
		return s, false, nil
	}
	st, err := f.Stat()
	if err != nil {
		return s, false, err
	}
	return s, time.Since(time.Unix(st.Mtim.Unix())) <= stale, nil
}

var tempNumber atomic.Uint64

// recount counts all messages and replaces the file, while no message of this process
// becomes visible. If another program adds or removes some, the result may be off by
// those, and the file is removed instead: the next who reads counts again.
func (v *reservation) recount(dir *maildir.Dir, s sizeFile) (usage, error) {
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
		if err := dir.Remove(sizeName); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return s.used, err
		}
		return s.used, nil
	}
	perm, err := v.user.Perm()
	if err != nil {
		return s.used, err
	}
	temp := fmt.Sprintf("%s.%d.%d.%d", sizeName, os.Getpid(), time.Now().UnixNano(), tempNumber.Add(1))
	f, err := dir.Create(temp, perm)
	if err != nil {
		return s.used, err
	}
	_, err = f.Write(s.append(nil))
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = dir.Replace(temp, sizeName)
	}
	if err != nil {
		return s.used, errors.Join(err, dir.Remove(temp))
	}
	return s.used, nil
}

// appendSize counts one message of size octets in the file. If the file has gone, who comes
// next counts all messages; if it cannot be told whether it holds the line, so that
// they do, it is removed. account.mu is held.
func (v *reservation) appendSize(size int64) error {
	dir, err := v.user.Control()
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := dir.Open(sizeName, unix.O_WRONLY|unix.O_APPEND)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	line := strconv.AppendInt(nil, size, 10)
	_, err = f.Write(append(line, " 1\n"...))
	var st, now unix.Stat_t
	if err == nil {
		st, err = f.Stat()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		if now, err = dir.StatName(sizeName); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	if err == nil && (now.Ino != st.Ino || now.Dev != st.Dev) {
		err = errors.New("quota: maildirsize was replaced meanwhile")
	}
	if err == nil {
		return nil
	}
	if e := dir.Remove(sizeName); e != nil && !errors.Is(e, fs.ErrNotExist) {
		return errors.Join(err, e)
	}
	return err
}
