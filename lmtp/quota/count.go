package quota

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"dovepost/lmtp/maildir"

	"golang.org/x/sys/unix"
)

// scanner adds up messages from the names of their files.
type scanner struct {
	virtual bool                // octets with CRLF line ends instead of octets on disk
	known   map[string]dirUsage // what an earlier scan has found, by name of the mailbox and "/new" or "/cur"
	found   map[string]dirUsage
}

// dirUsage is the sum of a directory at a time.
type dirUsage struct {
	usage
	ino     uint64
	mtime   unix.Timespec
	settled bool // nothing can change it and leave mtime as it is
}

// count adds up all mailboxes that the rules do not ignore.
func (s *scanner) count(v *reservation) (total usage, err error) {
	s.found = make(map[string]dirUsage)
	err = s.each(v, func(key string, dir *maildir.Dir, st unix.Stat_t) error {
		d, ok := s.known[key]
		if !ok || !d.settled || d.ino != st.Ino || d.mtime != st.Mtim {
			d = dirUsage{ino: st.Ino, mtime: st.Mtim}
			// Clocks of filesystems tick slowly.
			d.settled = time.Since(time.Unix(st.Mtim.Unix())) > 2*time.Second
			var err error
			if d.usage, err = s.sum(dir); err != nil {
				return err
			}
		}
		s.found[key] = d
		total.bytes += d.bytes
		total.messages += d.messages
		return nil
	})
	return total, err
}

// changed reports whether a directory has changed since count looked at it.
func (s *scanner) changed(v *reservation) (changed bool, err error) {
	n := 0
	err = s.each(v, func(key string, dir *maildir.Dir, st unix.Stat_t) error {
		n++
		d, ok := s.found[key]
		if !ok || d.ino != st.Ino || d.mtime != st.Mtim {
			changed = true
		}
		return nil
	})
	return changed || n != len(s.found), err
}

// each calls f with the directories new and cur of the mailboxes that count.
func (s *scanner) each(v *reservation, f func(key string, dir *maildir.Dir, st unix.Stat_t) error) error {
	return v.user.EachMailbox(func(name string, box *maildir.Dir) error {
		if v.rules.ignores(name) {
			return nil
		}
		// new first: a message that moves meanwhile is rather counted twice than not at all.
		for _, sub := range []string{"new", "cur"} {
			dir, err := box.OpenDir(sub)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
				continue
			}
			if err != nil {
				return err
			}
			st, err := dir.Stat()
			if err == nil {
				err = f(name+"/"+sub, dir, st)
			}
			_ = dir.Close()
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// sum adds up one directory. A name that does not tell the size costs a stat(2); one
// that does not tell the virtual size counts with the size on disk.
func (s *scanner) sum(dir *maildir.Dir) (total usage, err error) {
	for name, err := range dir.Names() {
		if err != nil {
			return total, err
		}
		if name == "." || name == ".." {
			continue
		}
		size, vsize := maildir.Sizes(name)
		if s.virtual && vsize >= 0 {
			size = vsize
		}
		if size < 0 {
			st, err := dir.StatName(name)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return total, err
			}
			size = st.Size
		}
		total.bytes += size
		total.messages++
	}
	return total, nil
}

const (
	// maxSums is how many users' sums are remembered.
	maxSums = 4096
	// sumAge is for how long a sum is believed that is far from the limit.
	sumAge = time.Minute
)

// sums remembers what the backend Count, or a View, has added up.
type sums struct {
	age time.Duration // for how long a sum is believed that is far from the limit; 0 is sumAge
	mu  sync.Mutex
	m   map[string]*sum // guarded by mu, by control directory
}

// makeRoom has room in m for key, among maxSums users. Any other goes: it is only work to do again.
func makeRoom[V any](m map[string]V, key string) {
	if _, ok := m[key]; ok {
		return
	}
	for other := range m {
		if len(m) < maxSums {
			break
		}
		delete(m, other)
	}
}

type sum struct {
	usage
	at   time.Time
	dirs map[string]dirUsage
}

// usage returns what the user of v has. A sum of a moment ago will do, as long as the user
// with more octets more stays below four fifths of the limits. account.mu is held.
func (c *sums) usage(ctx context.Context, v *reservation, more int64) (usage, error) {
	if v.limits == (Limits{}) && len(v.root.Warnings) == 0 {
		return usage{}, nil // nobody asks
	}
	c.mu.Lock()
	old := c.m[v.key]
	var known map[string]dirUsage
	if old != nil {
		known = old.dirs
		near := false
		for _, mailbox := range v.mailboxes {
			limits, _ := v.rules.forBox(mailbox, v.limits)
			near = near || limits.Bytes != 0 && old.bytes+more > limits.Bytes/5*4 ||
				limits.Messages != 0 && old.messages > limits.Messages/5*4
		}
		if !near && time.Since(old.at) < cmp.Or(c.age, sumAge) {
			defer c.mu.Unlock()
			return old.usage, nil
		}
	}
	c.mu.Unlock()

	if err := ctx.Err(); err != nil {
		return usage{}, err
	}
	// No message of this process becomes visible meanwhile, so that none is counted
	// here and once more when it is committed.
	v.account.quiesce()
	defer v.account.resume()
	scan := scanner{virtual: v.root.Backend == Count, known: known}
	at := time.Now()
	total, err := scan.count(v)
	if err != nil {
		return usage{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = make(map[string]*sum)
	}
	makeRoom(c.m, v.key)
	c.m[v.key] = &sum{usage: total, at: at, dirs: scan.found}
	return total, nil
}

// add counts what was delivered.
func (c *sums) add(key string, more usage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.m[key]; s != nil {
		s.usage.add(more, 1)
	}
}
