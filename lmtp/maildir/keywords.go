package maildir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	keywordsName = "dovecot-keywords"
	keywordsLock = "dovecot-keywords.lock" // what Dovecot writes before it renames it

	maxKeywords     = 26 // the letters a to z
	maxKeywordsFile = 64 << 10
)

// keywords is a dovecot-keywords file: the names behind the letters a, b ...
type keywords [maxKeywords]string

// parseKeywords reads a file: lines "<number> <name>". As Dovecot does it skips what is none, and a
// name that was there before.
func parseKeywords(data []byte) (k keywords) {
	for line := range bytes.Lines(data) {
		number, name, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
		i, err := strconv.ParseUint(number, 10, 8)
		if !ok || err != nil || i >= maxKeywords || name == "" || k.index(name) >= 0 {
			continue
		}
		k[i] = name
	}
	return k
}

// index is the number of name, in any case, or -1.
func (k *keywords) index(name string) int {
	return slices.IndexFunc(k[:], func(s string) bool { return s != "" && strings.EqualFold(s, name) })
}

// add gives name a number; -1 when none is left.
func (k *keywords) add(name string) int {
	if i := k.index(name); i >= 0 {
		return i
	}
	i := slices.Index(k[:], "")
	if i >= 0 {
		k[i] = name
	}
	return i
}

// append writes the file.
func (k *keywords) append(dst []byte) []byte {
	for i, name := range k {
		if name != "" {
			dst = append(strconv.AppendInt(dst, int64(i), 10), ' ')
			dst = append(append(dst, name...), '\n')
		}
	}
	return dst
}

// letters returns those of names in their order; whole says that each has one.
func (k *keywords) letters(names []string) (letters string, whole bool) {
	var set []byte
	for _, name := range names {
		if i := k.index(name); i >= 0 {
			set = append(set, byte('a'+i))
		}
	}
	slices.Sort(set)
	return string(set), len(set) == len(names)
}

// mark finds out where in its mailbox the copy goes and what its name says of flags.
func (u *User) mark(ctx context.Context, c *filing) error {
	c.dir = c.box.new
	letters, names := splitFlags(c.Flags)
	if len(names) > 0 {
		more, err := u.letters(ctx, c.box, names)
		if err != nil {
			return fmt.Errorf("keywords: %w", err)
		}
		letters += more
	}
	if letters == "" {
		return nil
	}
	if err := c.box.openCur(u.d.sync()); err != nil {
		return err
	}
	c.dir, c.info = c.box.cur, ":2,"+letters
	return nil
}

// letters returns the letters of keywords in the mailbox. Those that have none yet get one, as long
// as there are some: the name is in the file, for good, before a message uses its letter.
func (u *User) letters(ctx context.Context, b *box, names []string) (string, error) {
	dir, err := u.controlOf(b)
	if err != nil {
		return "", err
	}
	if dir != b.dir {
		defer dir.Close()
	}
	k, _, err := loadKeywords(dir)
	if err != nil {
		return "", err
	}
	if letters, whole := k.letters(names); whole {
		return letters, nil
	}
	lock, err := u.lockUidlist(ctx, dir, b.perm)
	if err != nil {
		return "", err
	}
	defer lock.release()
	k, mtime, err := loadKeywords(dir)
	if err != nil {
		return "", err
	}
	before := k
	for _, name := range names {
		if k.add(name) < 0 {
			u.d.log().WarnContext(ctx, "no letter is left for a keyword", "user", u.Mailbox.User, "mailbox", b.dir.path, "keyword", name)
		}
	}
	if k != before {
		err = u.storeKeywords(dir, b.perm, &k, mtime)
	}
	letters, _ := k.letters(names)
	return letters, err
}

// controlOf opens the directory where Dovecot keeps the files of a mailbox that are no messages: its
// own, unless CONTROL= names another tree.
func (u *User) controlOf(b *box) (*Dir, error) {
	if u.Location.Control == u.Location.Root {
		return b.dir, nil
	}
	elements := b.elements
	switch {
	case len(elements) > 0:
	case u.Location.Layout == MaildirPP:
		elements = []string{"." + inbox}
	default:
		elements = []string{inbox}
	}
	m := maker{u: u}
	dir, err := m.path(u.Location.Control)
	for _, name := range elements {
		if err != nil {
			break
		}
		var next *Dir
		next, err = m.dir(dir, name, b.perm)
		_ = dir.Close()
		dir = next
	}
	if err != nil {
		m.undo()
	}
	return dir, err
}

// loadKeywords reads the file in dir, and when it was written.
func loadKeywords(dir *Dir) (k keywords, mtime int64, err error) {
	f, err := dir.Open(keywordsName, unix.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return k, 0, nil
	}
	if err != nil {
		return k, 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return k, 0, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeywordsFile))
	return parseKeywords(data), st.Mtim.Sec, err
}

// storeKeywords replaces the file in dir, which was written at mtime. Dovecot reads it again when
// its time in seconds is another one.
func (u *User) storeKeywords(dir *Dir, perm Perm, k *keywords, mtime int64) error {
	if err := dir.Remove(keywordsLock); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := dir.Create(keywordsLock, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(k.append(nil))
	if err == nil && u.d.sync() {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if now := time.Now().Unix(); err == nil && now <= mtime {
		err = dir.SetTime(keywordsLock, mtime+1)
	}
	if err == nil {
		err = dir.Replace(keywordsLock, keywordsName)
	}
	if err != nil {
		return errors.Join(err, dir.Remove(keywordsLock))
	}
	if u.d.sync() {
		return dir.Sync()
	}
	return nil
}
