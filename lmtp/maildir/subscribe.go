package maildir

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	subscriptions    = "subscriptions"
	subscriptionsV2  = "V\t2\n\n" // the first lines of version 2; version 1 has none
	maxSubscriptions = 1 << 20    // octets read at most
)

// tabEscape writes a level of a mailbox name as the subscriptions file has it.
var tabEscape = strings.NewReplacer("\x01", "\x011", "\t", "\x01t", "\n", "\x01n", "\r", "\x01r")

// subscribe adds the mailbox with these directories to the user's subscriptions, Dovecot's way: the
// new file is written with .lock behind its name, which keeps others out, and takes the place of the old.
func (u *User) subscribe(elements []string) error {
	dir, err := u.Control()
	if err != nil {
		return err
	}
	defer dir.Close()
	perm, err := u.Perm()
	if err != nil {
		return err
	}
	file := u.Location.Subscriptions
	lock, err := lockSubscriptions(dir, file+".lock", perm)
	if err != nil {
		return err
	}
	changed, err := rewriteSubscriptions(dir, lock, elements, u.Location)
	if err == nil && changed && u.d.sync() {
		err = lock.Sync()
	}
	if e := lock.Close(); err == nil {
		err = e
	}
	if err == nil && changed {
		if err = dir.Replace(file+".lock", file); err == nil {
			return nil
		}
	}
	return errors.Join(err, dir.Remove(file+".lock"))
}

// lockSubscriptions waits up to two seconds for others who hold the file; half a minute
// without a change makes their lock stale.
func lockSubscriptions(dir *Dir, name string, perm Perm) (*File, error) {
	const pause, tries, stale = 50 * time.Millisecond, 40, 30 * time.Second
	for try := 0; ; try++ {
		f, err := dir.Create(name, perm)
		if err == nil || !errors.Is(err, fs.ErrExist) || try == tries {
			return f, err
		}
		st, err := dir.StatName(name)
		if err == nil && time.Since(time.Unix(st.Mtim.Unix())) > stale {
			_ = dir.Remove(name)
			continue
		}
		time.Sleep(pause)
	}
}

// rewriteSubscriptions copies the file to w with one more line, in the version that it has.
func rewriteSubscriptions(dir *Dir, w io.Writer, elements []string, l *Location) (changed bool, err error) {
	if l.Layout == MaildirPP {
		elements = strings.Split(elements[0][1:], ".")
	}
	var old []byte
	f, err := dir.Open(l.Subscriptions, unix.O_RDONLY)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		old = []byte(subscriptionsV2)
	case err != nil:
		return false, err
	default:
		old, err = io.ReadAll(io.LimitReader(f, maxSubscriptions+1))
		if e := f.Close(); err == nil {
			err = e
		}
		if err == nil && len(old) > maxSubscriptions {
			err = errors.New(l.Subscriptions + ": file too large")
		}
		if err != nil {
			return false, err
		}
	}
	var line string
	if lines, v2 := bytes.CutPrefix(old, []byte(subscriptionsV2)); v2 {
		for i, e := range elements {
			elements[i] = tabEscape.Replace(e)
		}
		line, old = strings.Join(elements, "\t"), lines
		if _, err := io.WriteString(w, subscriptionsV2); err != nil {
			return false, err
		}
	} else if line = strings.Join(elements, "."); l.Layout == FSLayout {
		line = strings.Join(elements, "/")
	}
	for l := range bytes.Lines(old) {
		if string(bytes.TrimSuffix(l, []byte("\n"))) == line {
			return false, nil
		}
	}
	if len(old) > 0 && old[len(old)-1] != '\n' {
		old = append(old, '\n')
	}
	_, err = w.Write(append(append(old, line...), '\n'))
	return err == nil, err
}
