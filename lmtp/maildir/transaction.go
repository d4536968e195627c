package maildir

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"dovepost/lmtp"
	"dovepost/lmtp/journal"

	"golang.org/x/sys/unix"
)

// transaction is one message on its way to its mailboxes.
type transaction struct {
	*Deliverer
	ctx context.Context
	msg lmtp.Message
}

// delivery is what concerns one recipient.
type delivery struct {
	mb    *lmtp.Mailbox
	user  *User
	key   journal.Key
	entry journal.Entry
	// claimed: the key is ours until the end.
	claimed bool

	box    *box
	room   Reservation
	draft  *draft
	name   string // in new/
	keep   bool   // the draft, because the journal could not be told
	stored bool   // nothing is left to do: it is there
	err    error
}

// waits reports whether there is something left to do.
func (v *delivery) waits() bool { return !v.stored && v.err == nil }

// Deliver stores msg for each of to. See lmtp.Deliverer. Mailboxes of one owner on one
// filesystem share one file.
func (d *Deliverer) Deliver(ctx context.Context, env *lmtp.Envelope, to []*lmtp.Mailbox, msg lmtp.Message) []error {
	t := &transaction{d, ctx, msg}
	all := make([]*delivery, len(to))
	for i, mb := range to {
		all[i] = &delivery{mb: mb}
		all[i].user, all[i].err = d.user(mb)
	}
	t.claim(env, all)
	defer t.release(all)
	for round := range rounds(all) {
		t.run(round)
	}
	errs := make([]error, len(all))
	for i, v := range all {
		if v.err != nil {
			errs[i] = status(fmt.Errorf("mailbox of %s: %w", v.mb.User, v.err))
		}
	}
	return errs
}

// errUnderWay is for a message that is sent again while it is being delivered.
var errUnderWay = &lmtp.Status{Code: 451, Enhanced: "4.3.0", Text: "The same message is being delivered"}

// claim asks the journal about each delivery. A message whose sender has no name for it is
// not to be told from another one that says the same, and both are delivered.
func (t *transaction) claim(env *lmtp.Envelope, all []*delivery) {
	if t.Journal == nil || env.Queue == "" {
		return
	}
	digest := t.msg.Digest()
	for _, v := range all {
		if v.err != nil {
			continue
		}
		v.key = journal.KeyOf(env.Queue, v.mb.Rcpt, digest)
		if v.entry, v.claimed = t.Journal.Claim(v.key); !v.claimed {
			v.err = errUnderWay
		}
	}
}

func (t *transaction) release(all []*delivery) {
	for _, v := range all {
		if v.claimed {
			t.Journal.Release(v.key)
		}
	}
}

// rounds yields deliveries that are done together: they have one owner, and each mailbox
// tree occurs once, in the order of the trees.
func rounds(all []*delivery) func(yield func([]*delivery) bool) {
	return func(yield func([]*delivery) bool) {
		left := slices.DeleteFunc(slices.Clone(all), func(v *delivery) bool { return !v.waits() })
		for len(left) > 0 {
			first := left[0].mb
			trees := map[string]bool{}
			var round, rest []*delivery
			for _, v := range left {
				tree := v.user.Location.Control
				if v.mb.UID != first.UID || v.mb.GID != first.GID || trees[tree] {
					rest = append(rest, v)
					continue
				}
				trees[tree] = true
				round = append(round, v)
			}
			slices.SortStableFunc(round, func(a, b *delivery) int {
				return strings.Compare(a.user.Location.Control, b.user.Location.Control)
			})
			if !yield(round) {
				return
			}
			left = rest
		}
	}
}

// run does a round with the rights of its owner. A panic is the error of all in it who have
// nothing yet.
func (t *transaction) run(round []*delivery) {
	fail := func(err error) {
		for _, v := range round {
			if v.waits() {
				v.err = err
			}
		}
	}
	defer func() {
		if p := recover(); p != nil {
			fail(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	err := as(round[0].mb.UID, round[0].mb.GID, func() error {
		defer t.clear(round)
		for _, v := range round {
			v.err = t.prepare(v, round)
		}
		for _, v := range round {
			if v.waits() {
				v.err = v.room.Resize(v.draft.size, v.draft.vsize)
			}
		}
		t.publish(round)
		return nil
	})
	fail(err)
}

// prepare finds the mailbox, takes room, and writes the draft.
func (t *transaction) prepare(v *delivery, round []*delivery) (err error) {
	if v.stored, err = t.settle(v); err != nil || v.stored {
		return err
	}
	name, b, err := v.user.open(t.ctx)
	if err != nil {
		return err
	}
	v.box, v.room = b, boundless{}
	if t.Quota != nil {
		room, err := t.Quota.Reserve(t.ctx, v.user, name, t.msg.Size())
		if err != nil {
			return err
		}
		v.room = room
	}
	if err := t.ctx.Err(); err != nil {
		return err
	}
	for _, w := range round {
		if w.draft == nil || w.err != nil {
			continue
		}
		if v.draft, err = w.draft.link(b, t.hostname()); !errors.Is(err, errNoLink) {
			return err
		}
	}
	if v.draft, err = b.write(t.msg.Open(), t.hostname(), t.sync()); err != nil {
		return err
	}
	return t.ctx.Err()
}

// publish lets the drafts become messages, and the messages durable.
func (t *transaction) publish(round []*delivery) {
	t.intend(round)
	for _, v := range round {
		if !v.waits() {
			continue
		}
		v.err = v.draft.commit(v.name)
		// A second try needs another machine with our host name and pid.
		for n := 0; n < 2 && errors.Is(v.err, unix.EEXIST); n++ {
			if t.forget(v); v.keep {
				break // the journal would name somebody else's message
			}
			v.err = nil
			t.intend([]*delivery{v})
			v.err = v.draft.commit(v.name)
		}
		if v.err != nil {
			t.forget(v) // before clear takes the draft away
			v.name = ""
		}
	}
	t.syncAll(round)
	var done []journal.Key
	for _, v := range round {
		if !v.waits() {
			continue
		}
		v.stored = true
		if v.claimed {
			done = append(done, v.key)
		}
		if err := v.room.Commit(); err != nil {
			// The message is delivered; only its size is not counted yet.
			t.log().WarnContext(t.ctx, "quota not updated", "user", v.mb.User, "err", err)
		}
	}
	t.Journal.Done(done...)
}

// intend names the messages, and tells the journal where from and where to.
func (t *transaction) intend(round []*delivery) {
	var moves []journal.Move
	for _, v := range round {
		if !v.waits() {
			continue
		}
		v.name = v.draft.finalName(t.hostname())
		if v.claimed {
			moves = append(moves, journal.Move{Key: v.key, Draft: v.box.tmp.path + "/" + v.draft.name, Final: v.box.new.path + "/" + v.name})
		}
	}
	t.Journal.Intend(moves...)
}

// maxSyncs is how many directories one transaction syncs at a time. The journal of the
// filesystem makes one commit of those that come together.
const maxSyncs = 16

// syncAll makes the names in new/ durable. Where that fails the message is taken back.
func (t *transaction) syncAll(round []*delivery) {
	if !t.sync() {
		return
	}
	round = slices.DeleteFunc(slices.Clone(round), func(v *delivery) bool { return !v.waits() })
	if len(round) == 1 {
		round[0].err = round[0].box.new.Sync()
	} else {
		var wg sync.WaitGroup
		slots := make(chan struct{}, maxSyncs)
		for _, v := range round {
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				v.err = v.box.new.Sync()
			})
		}
		wg.Wait()
	}
	for _, v := range round {
		if v.err != nil {
			v.err = errors.Join(v.err, t.retract(v))
		}
	}
}

// retract makes a message that is not durable a draft again, so that an end of the process at any
// time leaves no doubt. Where the disk does not do that any more the message stays, and the
// journal, if there is one, names it: it is found when it is sent again.
func (t *transaction) retract(v *delivery) error {
	err := v.box.new.Back(v.name, v.box.tmp, v.draft.name)
	switch {
	case err == nil:
		t.forget(v)
		v.name = ""
	case !v.claimed:
		err = v.box.new.Remove(v.name)
	}
	return err
}

// clear takes away what is half done, and gives back what the round held.
func (t *transaction) clear(round []*delivery) {
	for _, v := range round {
		if v.draft != nil && !v.stored && v.name == "" && !v.keep {
			v.err = errors.Join(v.err, v.draft.discard())
		}
		if v.room != nil {
			v.room.Release()
		}
		if v.box != nil {
			v.box.Close()
		}
	}
}
