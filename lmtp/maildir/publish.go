package maildir

import (
	"errors"
	"slices"
	"sync"

	"dovepost/lmtp"
	"dovepost/lmtp/journal"

	"golang.org/x/sys/unix"
)

// finish makes the drafts durable, each file once. Where that fails all fail who share it.
func (t *transaction) finish(round []*delivery) {
	for _, v := range round {
		for _, c := range v.filings {
			if c.draft == nil {
				continue
			}
			if err := c.draft.finish(t.sync()); err != nil {
				for _, w := range round {
					if w.waits() && slices.ContainsFunc(w.left(), func(o *filing) bool { return o.draft.shares(c.draft) }) {
						w.err = err
					}
				}
			}
		}
	}
}

// publish lets the drafts become messages, and the messages durable.
func (t *transaction) publish(round []*delivery) {
	var all []*filing
	for _, v := range round {
		if left := v.left(); len(left) > 0 {
			v.room.Show()
			all = append(all, left...)
		}
	}
	t.intend(all)
	for _, v := range round {
		for _, c := range v.left() {
			if err := t.commit(c); err != nil {
				t.takeBack(v, err)
				break
			}
		}
	}
	t.syncAll(round)
	var done []journal.Key
	for _, v := range round {
		if !v.waits() {
			continue
		}
		v.done = true
		for _, c := range v.filings {
			if c.held && c.entry.State != journal.Done {
				done = append(done, c.key)
			}
			c.stored = true
		}
		if err := v.room.Commit(); err != nil {
			// The message is delivered; only its size is not counted yet.
			t.log().WarnContext(t.ctx, "quota not updated", "user", v.mb.User, "err", err)
		}
	}
	t.Journal.Moved(done...)
}

// commit makes a draft a message. On error it is still a draft.
func (t *transaction) commit(c *filing) error {
	err := c.draft.commit(c.dir, c.name)
	// A second try needs another machine with our host name and pid.
	for n := 0; n < 2 && errors.Is(err, unix.EEXIST); n++ {
		if t.forget(c); c.keep {
			break // the journal would name somebody else's message
		}
		t.intend([]*filing{c})
		err = c.draft.commit(c.dir, c.name)
	}
	c.moved = err == nil
	return err
}

// takeBack makes err the outcome of v, of which some copies may be visible by now.
func (t *transaction) takeBack(v *delivery, err error) {
	for _, c := range v.left() {
		if c.moved {
			err = errors.Join(err, t.retract(c))
		} else {
			t.forget(c) // before clear takes the draft away
		}
	}
	v.err = err
}

// retract makes a message that is not to be a draft again, so that an end of the process at any
// time leaves no doubt. Where the disk does not do that any more the message stays, and the
// journal, if there is one, names it: it is found when it is sent again.
func (t *transaction) retract(c *filing) error {
	err := c.dir.Back(c.name, c.box.tmp, c.draft.name)
	switch {
	case err == nil:
		c.moved = false
		t.forget(c)
	case !c.held:
		err = c.dir.Remove(c.name)
	}
	return err
}

// intend names the messages, and tells the journal where from and where to.
func (t *transaction) intend(all []*filing) {
	var moves []journal.Move
	for _, c := range all {
		c.name = c.draft.finalName(t.hostname()) + c.info
		if c.held {
			moves = append(moves, journal.Move{Key: c.key, Draft: c.box.tmp.path + "/" + c.draft.name, Final: c.dir.path + "/" + c.name})
		}
	}
	t.Journal.Intend(moves...)
}

// syncAll makes the names of the messages durable, several at a time: the journal of the filesystem makes
// one commit of those that come together. Where that fails the message is taken back.
func (t *transaction) syncAll(round []*delivery) {
	if !t.sync() {
		return
	}
	type outcome struct {
		c   *filing
		err error
	}
	var all []*outcome
	for _, v := range round {
		for _, c := range v.left() {
			all = append(all, &outcome{c: c})
		}
	}
	if len(all) == 1 { // without another goroutine
		all[0].err = all[0].c.dir.Sync()
	} else {
		var wg sync.WaitGroup
		slots := make(chan struct{}, lmtp.MaxParallel)
		for _, o := range all {
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				o.err = o.c.dir.Sync()
			})
		}
		wg.Wait()
	}
	failed := map[*filing]error{}
	for _, o := range all {
		if o.err != nil {
			failed[o.c] = o.err
		}
	}
	for _, v := range round {
		for _, c := range v.left() {
			if err := failed[c]; err != nil {
				t.takeBack(v, err)
				break
			}
		}
	}
}

// clear takes away what is half done, and gives back what the round held.
func (t *transaction) clear(round []*delivery) {
	for _, v := range round {
		for _, c := range v.filings {
			if c.draft != nil {
				v.err = errors.Join(v.err, c.draft.finish(false)) // only after a panic
			}
			if c.draft != nil && !c.moved && !c.keep {
				v.err = errors.Join(v.err, c.draft.discard())
			}
			if c.box != nil {
				c.box.Close()
			}
		}
		if v.room != nil {
			v.room.Release()
		}
	}
}
