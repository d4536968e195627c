package maildir

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"dovepost/lmtp"
	"dovepost/lmtp/journal"
)

// transaction is one message on its way to its mailboxes.
type transaction struct {
	*Deliverer
	ctx context.Context
	env *lmtp.Envelope
	msg lmtp.Message
}

// delivery is what concerns one recipient: all of it happens, or nothing.
type delivery struct {
	mb       *lmtp.Mailbox
	user     *User
	filings  []*filing
	forwards []*forward
	room     Reservation // of the filings that wait
	done     bool        // nothing is left to do: all is there
	err      error
}

// filing is one copy in one mailbox.
type filing struct {
	lmtp.Filing
	claim

	box    *box
	draft  *draft
	dir    *Dir   // new or cur of box
	info   string // behind the name in cur: ":2," and the flags
	name   string // in dir
	moved  bool   // from tmp/ to dir
	keep   bool   // the draft, because the journal could not be told
	stored bool   // it is there for good, or there is another copy in the same mailbox
}

// claim is what the journal knows of a step.
type claim struct {
	key   journal.Key
	entry journal.Entry
	held  bool // the key is ours until the end
}

// waits reports whether there is something left to do.
func (v *delivery) waits() bool { return !v.done && v.err == nil }

// left are the filings that are not there yet; none when the delivery has failed.
func (v *delivery) left() (left []*filing) {
	if !v.waits() {
		return nil
	}
	for _, c := range v.filings {
		if !c.stored {
			left = append(left, c)
		}
	}
	return left
}

// Deliver stores msg for each of to. See lmtp.Deliverer. Mailboxes of one owner on one
// filesystem share one file.
func (d *Deliverer) Deliver(ctx context.Context, env *lmtp.Envelope, to []*lmtp.Mailbox, msg lmtp.Message) []error {
	t := &transaction{d, ctx, env, msg}
	all := make([]*delivery, len(to))
	for i, mb := range to {
		all[i] = &delivery{mb: mb}
		if all[i].user, all[i].err = d.user(mb); all[i].err == nil {
			all[i].err = t.judge(all[i])
		}
	}
	t.claim(all)
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

// undated is for how long the name of a message is believed that has no Received field. Postfix uses its
// short queue ids again, and such a message may be the one of yesterday, octet for octet. A message
// that is sent again comes after maximal_backoff_time, 4000 s, at most.
const undated = 2 * time.Hour

// claim asks the journal about each step. A message whose sender has no name for it is
// not to be told from another one that says the same, and both are delivered.
func (t *transaction) claim(all []*delivery) {
	if t.Journal == nil || t.env.Queue == "" {
		return
	}
	digest := t.msg.Digest()
	own := map[journal.Key]bool{}
	take := func(v *delivery, c *claim, step string) {
		if v.err != nil {
			return
		}
		// What no filter has touched is a step by itself, and so is each copy for the same address. No address has NUL.
		c.key = journal.KeyOf(t.env.Queue, v.mb.Rcpt+step, digest)
		for n := 2; own[c.key]; n++ {
			c.key = journal.KeyOf(t.env.Queue, v.mb.Rcpt+step+"\x00n"+strconv.Itoa(n), digest)
		}
		if c.entry, c.held = t.Journal.Claim(c.key); !c.held {
			v.err = errUnderWay
			return
		}
		own[c.key] = true
		if !t.env.Dated && time.Since(c.entry.When) > undated {
			c.entry = journal.Entry{}
		}
	}
	for _, v := range all {
		for _, c := range v.filings {
			step := ""
			if c.Mailbox != "" {
				step = "\x00f" + c.Mailbox
			}
			take(v, &c.claim, step)
		}
		for _, w := range v.forwards {
			take(v, &w.claim, "\x00r"+w.to)
		}
	}
}

func (t *transaction) release(all []*delivery) {
	free := func(c *claim) {
		if c.held {
			t.Journal.Release(c.key)
		}
	}
	for _, v := range all {
		for _, c := range v.filings {
			free(&c.claim)
		}
		for _, w := range v.forwards {
			free(&w.claim)
		}
	}
}

// maxRound is how many mailboxes are worked on at a time: each has up to five directories open.
const maxRound = 100

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
				if len(round) == maxRound || v.mb.UID != first.UID || v.mb.GID != first.GID || trees[tree] {
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
		t.finish(round)
		for _, v := range round {
			if left := v.left(); len(left) > 0 {
				v.err = v.room.Resize(left[0].draft.size, left[0].draft.vsize)
			}
		}
		t.redirect(round) // when nobody can be refused any more
		t.publish(round)
		return nil
	})
	fail(err)
}

// prepare finds the mailboxes, takes room, and writes the drafts.
func (t *transaction) prepare(v *delivery, round []*delivery) error {
	if len(v.filings) > 1 {
		// Two names may mean one mailbox, and then it gets one copy.
		if err := t.openAll(v); err != nil {
			return err
		}
	}
	for _, c := range v.filings {
		if c.stored {
			continue
		}
		var err error
		if c.stored, err = t.settle(v, c); err != nil {
			return err
		}
		if c.stored || c.box != nil {
			continue
		}
		if err := t.open(v, c); err != nil {
			return err
		}
		if c.stored, err = t.reappeared(v, c); err != nil {
			return err
		}
	}
	left := v.left()
	var names []string
	for _, c := range left {
		if err := v.user.mark(t.ctx, c); err != nil {
			return err
		}
		names = append(names, c.Mailbox)
	}
	if v.room = (boundless{}); t.Quota != nil && len(left) > 0 {
		room, err := t.Quota.Reserve(t.ctx, v.user, names, t.msg.Size())
		if err != nil {
			return err
		}
		v.room = room
	}
	for _, c := range left {
		if err := t.write(c, round); err != nil {
			return err
		}
	}
	return t.ctx.Err()
}

// open opens the mailbox of c, whose Mailbox is its name then.
func (t *transaction) open(v *delivery, c *filing) (err error) {
	asked := c.Mailbox
	if asked == "" {
		// As Dovecot's LMTP does with the mailbox of a detail.
		asked, c.Create, c.Subscribe = v.user.target(), t.Autocreate, t.Autosubscribe
	} else {
		asked = v.user.fullName(asked)
	}
	if c.Mailbox, c.box, err = v.user.open(t.ctx, asked, c.Create, c.Subscribe); err != nil {
		return err
	}
	if c.Mailbox != asked {
		c.Flags = nil // they were for another mailbox
	}
	return nil
}

// openAll opens the mailboxes of a delivery that has several. The first copy for a mailbox
// is the one that is made, with the flags of all.
func (t *transaction) openAll(v *delivery) error {
	first := map[string]*filing{}
	for _, c := range v.filings {
		if err := t.open(v, c); err != nil {
			return err
		}
		if f := first[c.Mailbox]; f != nil {
			f.Flags = append(slices.Clip(f.Flags), c.Flags...)
			c.stored = true
			continue
		}
		first[c.Mailbox] = c
	}
	return nil
}

// write makes the draft of c: of the same file as one that the round has already, if it can be.
func (t *transaction) write(c *filing, round []*delivery) (err error) {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	for _, w := range round {
		for _, other := range w.left() {
			if other.draft == nil {
				continue
			}
			if c.draft, err = other.draft.link(c.box, t.hostname()); !errors.Is(err, errNoLink) {
				return err
			}
		}
	}
	c.draft, err = c.box.write(t.msg.Open(), t.hostname())
	return err
}
