package quota

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"time"

	"dovepost/lmtp/maildir"
)

// View is a Root for those who look and touch nothing: another process delivers, and
// has the mailboxes to itself. It counts and decides as the Root does, and neither makes a
// directory nor writes maildirsize. It is a maildir.Quota of which only HasRoom is of use.
type View struct {
	root  *Root
	fresh time.Duration
	sums  sums

	mu   sync.Mutex
	seen map[string]seen // guarded by mu; by control directory and rules
}

// seen is what a user had at a time.
type seen struct {
	used   usage
	limits Limits
	at     time.Time
}

var _ maildir.Quota = (*View)(nil)

// NewView returns a view with the rules of r, which remembers for as long as fresh what it
// has read.
func NewView(r *Root, fresh time.Duration) *View {
	return &View{root: r, fresh: fresh, sums: sums{age: fresh}, seen: map[string]seen{}}
}

// HasRoom implements maildir.Quota, as the Root does that delivers: where this refuses, that would.
func (w *View) HasRoom(ctx context.Context, u *maildir.User, mailbox string, size int64) error {
	size = w.root.least(size)
	v := &reservation{root: w.root, user: u, bounded: true, mailboxes: []string{mailbox}, key: u.Location.Control, account: newAccount()}
	if err := v.tooLarge(size); err != nil || w.root.Backend == None {
		return err
	}
	var err error
	if v.rules, err = ParseRules(u.Mailbox.Quota); err != nil || v.rules.ignores(mailbox) {
		return err
	}
	v.account.mu.Lock()
	defer v.account.mu.Unlock()
	if v.account.used, v.limits, err = w.read(ctx, v, size); err != nil {
		return err
	}
	if !v.fits(size, usage{}) {
		return v.over()
	}
	return nil
}

var errView = errors.New("quota: nothing can be reserved in a view")

// Reserve implements maildir.Quota: nobody delivers through a View.
func (w *View) Reserve(context.Context, *maildir.User, []string, int64) (maildir.Reservation, error) {
	return nil, errView
}

// read returns what the user of v has, and the limits in force.
func (w *View) read(ctx context.Context, v *reservation, size int64) (usage, Limits, error) {
	key := v.key + "\x00" + strings.Join(v.user.Mailbox.Quota, "\x00")
	w.mu.Lock()
	s, ok := w.seen[key]
	w.mu.Unlock()
	if ok && time.Since(s.at) < w.fresh {
		return s.used, s.limits, nil
	}
	s = seen{at: time.Now()}
	var err error
	if s.used, s.limits, err = w.look(ctx, v, size); err != nil {
		return s.used, s.limits, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	makeRoom(w.seen, key)
	w.seen[key] = s
	return s.used, s.limits, nil
}

// look reads maildirsize, or counts all messages where a delivery would.
func (w *View) look(ctx context.Context, v *reservation, size int64) (usage, Limits, error) {
	v.limits = v.rules.limits
	if w.root.Backend == Maildir {
		dir, err := v.user.FindControl()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return usage{}, v.limits, err
		}
		if err == nil {
			defer dir.Close()
			v.dir = dir
			s, ok, err := v.loadSize(&v.limits)
			if v.account.used = s.used; err != nil || ok && (s.counted() || v.fits(size, usage{})) {
				return s.used, v.limits, err
			}
		}
	}
	used, err := w.sums.usage(ctx, v, size)
	return used, v.limits, err
}
