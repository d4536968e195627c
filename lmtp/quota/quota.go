// Package quota bounds and counts what deliveries add to a user's mail, together with
// a Dovecot that does the same for the same user.
//
// The limits are the quota_rule settings of the userdb. The usage is in one of two places:
// in a Maildir++ maildirsize file, which both sides read and append to
// (https://www.inter7.com/courierimap/README.maildirquota.html), or nowhere
// (Dovecot's backend "count"), then it is summed up from the names of the messages.
package quota

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"dovepost/lmtp"
	"dovepost/lmtp/maildir"
)

// Backend is where the usage is kept.
type Backend int

const (
	None    Backend = iota // nothing is bounded or counted
	Maildir                // in the file maildirsize; octets are those on disk
	Count                  // in Dovecot's indexes: we write nothing; octets are those with CRLF
)

// ParseBackend reads the setting quota as Dovecot has it, "maildir:User quota", and "none".
func ParseBackend(s string) (Backend, error) {
	name, _, _ := strings.Cut(s, ":")
	switch name {
	case "", "none":
		return None, nil
	case "maildir":
		return Maildir, nil
	case "count":
		return Count, nil
	}
	return None, fmt.Errorf("quota = %s: not maildir, count or none", s)
}

// Grace is what a user who is below the limit may exceed it by with one message.
type Grace struct {
	Percent int64 // of the limit on all mail
	Bytes   int64 // if Percent is 0
}

// ParseGrace reads quota_grace: "10%", "10M". Empty is Dovecot's default, 10%.
func ParseGrace(s string) (Grace, error) {
	if s == "" {
		return Grace{Percent: 10}, nil
	}
	if digits, ok := strings.CutSuffix(strings.TrimSuffix(s, "%"), "%"); ok || strings.HasSuffix(s, "%") {
		n, err := strconv.ParseInt(strings.TrimSuffix(digits, "%"), 10, 32) // %% is a % in dovecot.conf
		if err != nil || n < 0 {
			return Grace{}, fmt.Errorf("quota_grace = %s: bad percentage", s)
		}
		return Grace{Percent: n}, nil
	}
	var l Limits
	if err := parseLimits("bytes="+s, &l, nil, false); err != nil {
		return Grace{}, fmt.Errorf("quota_grace = %s: %w", s, err)
	}
	return Grace{Bytes: l.Bytes}, nil
}

// Root is a quota root: the rules of one site. It is a maildir.Quota.
//
// A message fits if used + size <= limit, or limit + grace as long as used < limit.
// Room that running deliveries have reserved counts as used, so that many at once do
// not exceed the limit by more than one would. Who does not fit because of them waits until they
// are counted or given back.
type Root struct {
	Backend  Backend
	Grace    Grace
	TempFail bool  // quota_full_tempfail: over quota is a temporary error
	MaxMail  int64 // quota_max_mail_size: octets of one message, as the backend counts; 0: no limit

	Warnings []*Warning    // quota_warning, quota_warning2 ...: the first that is crossed counts
	Warn     func(Crossed) // is told of it, and must not wait for anything; nil: nobody

	mu       sync.Mutex
	accounts map[string]*account // guarded by mu; those with deliveries, by control directory
	sums     sums                // what Count has added up
	sizes    knownSizes          // what Maildir has read
}

var _ maildir.Quota = (*Root)(nil)

// account is one user who gets mail right now.
type account struct {
	refs int // guarded by Root.mu

	mu       sync.Mutex
	change   sync.Cond // on mu: visible or counting have changed
	used     usage     // with what was committed since it was read
	pending  usage     // reserved
	visible  int       // deliveries between the moment before their message becomes visible and its being counted
	counting bool      // somebody counts all messages, or waits to, and no more may become visible
}

func newAccount() *account {
	a := new(account)
	a.change.L = &a.mu
	return a
}

// quiesce waits until each message of this process that can be seen is counted as well,
// and keeps it so until resume. a.mu is held, but released while it waits.
func (a *account) quiesce() {
	for a.counting {
		a.change.Wait()
	}
	a.counting = true
	for a.visible > 0 {
		a.change.Wait()
	}
}

func (a *account) resume() {
	a.counting = false
	a.change.Broadcast()
}

// errFull is lmtp.ErrOverQuota with quota_full_tempfail.
var errFull = &lmtp.Status{Code: 452, Enhanced: "4.2.2", Text: lmtp.ErrOverQuota.Text}

// errTooLarge is what Dovecot 2.4 says; 2.3 says 451, for ever.
var errTooLarge = &lmtp.Status{Code: 552, Enhanced: "5.2.3", Text: "Message size exceeds administrative limit"}

// errBusy is for a message that did not fit because of others that are being delivered.
var errBusy = &lmtp.Status{Code: 452, Enhanced: "4.2.2", Text: "Other messages for the user are being delivered"}

// Reserve implements maildir.Quota.
func (r *Root) Reserve(ctx context.Context, u *maildir.User, mailboxes []string, size int64) (maildir.Reservation, error) {
	return r.begin(ctx, u, mailboxes, max(size, 0), true)
}

// HasRoom implements maildir.Quota. A client's size counts line ends as two octets, and
// sometimes a little more: what is left of it without that is what is asked for.
func (r *Root) HasRoom(ctx context.Context, u *maildir.User, mailbox string, size int64) error {
	v, err := r.begin(ctx, u, []string{mailbox}, r.least(size), true)
	if err == nil {
		v.Release()
	}
	return err
}

// least returns what is left of the size that a client has announced.
func (r *Root) least(size int64) int64 {
	if size = max(size, 0); r.Backend == Count {
		return size - size/64
	}
	return size / 2 // all lines may be empty
}

// Unbounded counts what is delivered, refuses nothing, and warns of nothing.
func (r *Root) Unbounded() maildir.Quota { return unbounded{r} }

type unbounded struct{ *Root }

func (r unbounded) Reserve(ctx context.Context, u *maildir.User, mailboxes []string, size int64) (maildir.Reservation, error) {
	return r.begin(ctx, u, mailboxes, size, false)
}

func (unbounded) HasRoom(context.Context, *maildir.User, string, int64) error { return nil }

// begin makes a reservation; bounded says that there are limits to it.
func (r *Root) begin(ctx context.Context, u *maildir.User, mailboxes []string, size int64, bounded bool) (maildir.Reservation, error) {
	v := &reservation{root: r, user: u, bounded: bounded}
	if err := v.tooLarge(size); err != nil {
		return nil, err
	}
	if r.Backend == None {
		return v, nil
	}
	var err error
	if v.rules, err = ParseRules(u.Mailbox.Quota); err != nil {
		return nil, err
	}
	for _, mailbox := range mailboxes {
		if !v.rules.ignores(mailbox) {
			v.mailboxes = append(v.mailboxes, mailbox)
		}
	}
	if len(v.mailboxes) == 0 {
		return v, nil
	}
	v.key = u.Location.Control
	v.account = r.acquire(v.key)
	if err := v.reserve(ctx, size); err != nil {
		v.Release()
		return nil, err
	}
	return v, nil
}

func (r *Root) acquire(key string) *account {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.accounts[key]
	if a == nil {
		if r.accounts == nil {
			r.accounts = make(map[string]*account)
		}
		a = newAccount()
		r.accounts[key] = a
	}
	a.refs++
	return a
}

func (r *Root) release(key string, a *account) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.refs--; a.refs == 0 {
		delete(r.accounts, key)
	}
}

// reservation is a maildir.Reservation, for one copy in each of mailboxes.
type reservation struct {
	root      *Root
	user      *maildir.User
	bounded   bool
	rules     *Rules
	mailboxes []string // those that count
	account   *account // nil: nothing of it counts
	key       string
	dir       *maildir.Dir // of maildirsize; nil before it is read, and for Count

	limits  Limits // on all mail
	size    int64  // reserved octets of each copy
	stored  int64  // octets of each copy on disk
	visible bool   // counted in account.visible
	done    bool   // no longer in account.pending
}

// all is what the copies take together.
func (v *reservation) all(size int64) usage {
	n := int64(len(v.mailboxes))
	return usage{n * size, n}
}

func (v *reservation) tooLarge(size int64) error {
	if v.bounded && v.root.MaxMail > 0 && size > v.root.MaxMail {
		return errTooLarge
	}
	return nil
}

// reserve reads the usage and takes room for size octets.
func (v *reservation) reserve(ctx context.Context, size int64) error {
	a := v.account
	a.mu.Lock()
	defer a.mu.Unlock()
	v.done = true // until there is room
	var err error
	if v.root.Backend == Maildir {
		a.used, v.limits, err = v.readSize()
	} else {
		v.limits = v.rules.limits
		a.used, err = v.root.sums.usage(ctx, v, a.pending.bytes+v.all(size).bytes)
	}
	if err != nil {
		return fmt.Errorf("quota: %w", err)
	}
	if v.root.Backend == Maildir && !v.fits(size, usage{}) {
		if a.used, err = v.verifySize(); err != nil {
			return fmt.Errorf("quota: %w", err)
		}
	}
	// Those who take the room now give it back, or take it for good, without waiting for this one:
	// it has not called Show for anybody.
	for !v.fits(size, a.pending) && v.fits(size, usage{}) {
		a.change.Wait()
	}
	if !v.fits(size, a.pending) {
		return v.over()
	}
	v.done = false
	v.size = size
	a.pending.add(v.all(size), 1)
	return nil
}

// fits decides as Dovecot does for a delivery, copy by copy, while others have reserved pending;
// account.mu is held.
func (v *reservation) fits(size int64, pending usage) bool {
	if !v.bounded {
		return true
	}
	used := v.account.used
	used.add(pending, 1)
	for _, mailbox := range v.mailboxes {
		if !v.fitsOne(mailbox, size, used) {
			return false
		}
		used.add(usage{size, 1}, 1)
	}
	return true
}

func (v *reservation) fitsOne(mailbox string, size int64, used usage) bool {
	limits, _ := v.rules.forBox(mailbox, v.limits)
	if limits.Messages > 0 && used.messages >= limits.Messages {
		return false
	}
	switch {
	case limits.Bytes == 0:
		return true
	case size == 0:
		return used.bytes <= limits.Bytes
	case used.bytes >= limits.Bytes:
		return false
	}
	grace := v.root.Grace.Bytes
	if v.root.Grace.Percent != 0 {
		grace = share(v.limits.Bytes, v.root.Grace.Percent)
	}
	// used < limit here, and a sum of the three could overflow.
	room := limits.Bytes - used.bytes
	return size <= room || size-room <= grace
}

func (v *reservation) over() error {
	if v.root.TempFail {
		return errFull
	}
	return lmtp.ErrOverQuota
}

// Resize implements maildir.Reservation.
func (v *reservation) Resize(size, vsize int64) error {
	v.stored = size
	if v.root.Backend == Count {
		size = vsize
	}
	if err := v.tooLarge(size); err != nil {
		return err
	}
	if v.account == nil {
		return nil
	}
	a := v.account
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pending.add(v.all(v.size), -1)
	a.change.Broadcast()
	if !v.fits(size, a.pending) {
		v.done = true
		if v.fits(size, usage{}) {
			return errBusy // two messages for the same two users could wait for each other
		}
		return v.over()
	}
	v.size = size
	a.pending.add(v.all(size), 1)
	return nil
}

// Show implements maildir.Reservation. It waits for who counts the user's messages, who
// waits for all who have called Show: a delivery to several users calls it in one order.
func (v *reservation) Show() {
	a := v.account
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.counting {
		a.change.Wait()
	}
	a.visible++
	v.visible = true
}

// Commit implements maildir.Reservation.
func (v *reservation) Commit() (err error) {
	if v.account == nil {
		return nil
	}
	a := v.account
	a.mu.Lock()
	defer a.mu.Unlock()
	if v.done {
		return errors.New("quota: nothing reserved")
	}
	all := v.all(v.size)
	if v.root.Backend == Maildir {
		err = v.appendSize(v.all(v.stored))
	} else {
		v.root.sums.add(v.key, all)
	}
	v.settle()
	before := a.used
	a.used.add(all, 1)
	v.warn(before, a.used)
	return err
}

// settle takes the reservation out of account.pending; account.mu is held.
func (v *reservation) settle() {
	if !v.done {
		v.account.pending.add(v.all(v.size), -1)
		v.done = true
		v.account.change.Broadcast()
	}
}

// Release implements maildir.Reservation.
func (v *reservation) Release() {
	if v.dir != nil {
		_ = v.dir.Close()
	}
	a := v.account
	if a == nil {
		return
	}
	a.mu.Lock()
	v.settle()
	if v.visible {
		a.visible--
		a.change.Broadcast()
	}
	a.mu.Unlock()
	v.root.release(v.key, a)
}
