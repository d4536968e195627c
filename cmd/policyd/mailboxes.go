package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/singleflight"

	"dovepost/auth"
	"dovepost/auth/guard"
	"dovepost/cmd/internal/daemon"
	"dovepost/cmd/internal/database"
	"dovepost/cmd/internal/mailbox"
	"dovepost/lmtp"
	"dovepost/lmtp/maildir"
	"dovepost/lmtp/quota"
	"dovepost/lookup/ladder"
	"dovepost/policy"
	"dovepost/policy/breaker"
	"dovepost/policy/rules"
)

const (
	// For so long what was seen in a mailbox is not looked for again, and then what was said of a recipient is not asked again.
	usageFresh = time.Second
	maxLooks   = 64 // mailboxes that are looked at at a time
)

// mailboxes is rules.Mailboxes: what lmtpd would say.
type mailboxes struct {
	addresses *addresses
	users     *mailbox.Users
	store     *maildir.Deliverer
	disk      *breaker.Breaker
	looks     singleflight.Group
	slots     chan struct{} // those who look, who may hang with their disk
}

// Room implements rules.Mailboxes.
func (m *mailboxes) Room(ctx context.Context, address string, size int64) (policy.Action, error) {
	kept, err := m.addresses.kept(ctx, address)
	if err != nil {
		return policy.Dunno, err
	}
	if !kept {
		return policy.Dunno, rules.ErrElsewhere
	}
	mb, err := m.users.Resolve(ctx, ladder.Quote(address))
	if errors.Is(err, lmtp.ErrUnknownUser) {
		return policy.Dunno, rules.ErrElsewhere
	}
	if err != nil {
		return policy.Dunno, err
	}
	if mb.UID == os.Geteuid() {
		mb.GID = -1 // it says whose a new file is, and there is none
	}
	full, err := m.full(ctx, mb, size)
	if err != nil || full == nil {
		return policy.Dunno, err
	}
	return policy.Action{Word: strconv.Itoa(full.Code), Text: full.Enhanced + " " + full.Text}, nil
}

// full returns how a delivery would be refused for want of room; nil: it would not.
func (m *mailboxes) full(ctx context.Context, mb *lmtp.Mailbox, size int64) (*lmtp.Status, error) {
	key := mb.User + "\x00" + mb.Detail + "\x00" + strconv.FormatInt(size, 10)
	err := m.disk.Do(ctx, func(ctx context.Context) error { return m.look(ctx, key, mb, size) })
	var full *lmtp.Status
	if errors.As(err, &full) && slices.Contains([]string{"4.2.2", "5.2.2", "5.2.3"}, full.Enhanced) {
		return full, nil
	}
	return nil, err
}

var errLooks = errors.New("too many mailboxes are being looked at")

// look asks about one mailbox, and waits for the disk as long as ctx lasts.
func (m *mailboxes) look(ctx context.Context, key string, mb *lmtp.Mailbox, size int64) error {
	done := m.looks.DoChan(key, func() (_ any, err error) {
		defer func() { // it would end the daemon, since nobody is above it
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
			}
		}()
		select {
		case m.slots <- struct{}{}:
		default:
			return nil, errLooks
		}
		defer func() { <-m.slots }()
		return nil, m.store.HasRoom(context.WithoutCancel(ctx), mb, size)
	})
	select {
	case result := <-done:
		return result.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// idle is the probe of the disk: those who were waiting for it have come back.
func (m *mailboxes) idle(context.Context) error {
	if len(m.slots) > 0 {
		return errors.New("mailboxes are still being looked at")
	}
	return nil
}

// mailboxes makes what knows how full the mailboxes are.
func (b *builder) mailboxes() (*mailboxes, error) {
	a, err := b.addresses()
	if err != nil {
		return nil, err
	}
	store, err := b.mail.Store()
	if err != nil {
		return nil, err
	}
	root, err := b.mail.Quota.Root()
	if err != nil {
		return nil, err
	}
	if root == nil {
		return nil, errors.New("quota = none, and no quota_max_mail_size")
	}
	store.Quota, store.Log = quota.NewView(root, usageFresh), b.Log
	m := &mailboxes{addresses: a, store: store, slots: make(chan struct{}, maxLooks)}
	m.disk = &breaker.Breaker{Name: "mail store", Limit: b.lookupTimeout, Probe: m.idle, Log: b.Log,
		Away: func(err error) bool { return errors.Is(err, errLooks) }}
	b.state.others = append(b.state.others, m.disk)
	if m.users, err = b.users(cmp.Or(a.delimiter, "+")); err != nil {
		return nil, err
	}
	if uid, gid, err := b.mail.Owner(b.seedUsers()); err == nil && uid != os.Geteuid() {
		if err := maildir.MayOwn(uid, gid); err != nil {
			b.Log.Warn("the mailboxes cannot be read, unless their rows name another owner", "mail_uid", uid, "err", err)
		}
	}
	return m, nil
}

// seedUsers reports whether the users are those of the built-in tables.
func (b *builder) seedUsers() bool { return b.mail.SQL == "" && b.mail.Userdb == "" }

// users makes the userdb, as lmtpd has it.
func (b *builder) users(delimiter string) (*mailbox.Users, error) {
	source, id, err := b.userdb()
	if err != nil {
		return nil, err
	}
	homes, err := b.mail.Homes()
	if err != nil {
		return nil, err
	}
	rows := mailbox.Userdb{Userdb: source, Homes: homes, UID: b.mail.UID, GID: b.mail.GID, Rules: b.mail.Quota.Rules}
	u := &mailbox.Users{Delimiter: delimiter, Timeout: b.answerWithin}
	u.Use(b.cache.Map("users "+id, rows).Positive())
	return u, nil
}

// userdb opens where the users come from. id tells it from any other source.
func (b *builder) userdb() (source auth.Userdb, id string, err error) {
	if b.mail.Userdb != "" {
		if b.mail.SQL != "" {
			return nil, "", errors.New("want the users from one of sql and userdb")
		}
		client, err := b.mail.Remote(b.lookupTimeout)
		if err != nil {
			return nil, "", err
		}
		before := &breaker.Breaker{Name: "userdb " + b.mail.Userdb, Limit: b.lookupTimeout, Away: socketAway, Log: b.Log,
			Probe: func(ctx context.Context) error {
				_, err := client.LookupUser(ctx, &auth.Request{Login: "nobody@localhost.invalid", Service: "lmtp"})
				if err != nil && !socketAway(err) {
					err = nil // it has answered
				}
				return err
			}}
		b.state.others = append(b.state.others, before)
		return guardedUsers{client, before}, b.mail.Userdb, nil
	}
	names, err := b.mail.Names()
	if err != nil {
		return nil, "", err
	}
	if b.mail.SQL == "" && b.mysql == "" {
		return nil, "", errors.New("want the users from one of sql, mysql and userdb")
	}
	users, err := b.state.pools.Users(database.Files{SQL: b.mail.SQL, MySQL: b.mysql}, b.mail.Seed())
	if err != nil {
		return nil, "", daemon.ConfigError(err)
	}
	b.prepare(users.Pool, users.DB.PrepareUserdb)
	return guardedUsers{guard.Lookup{Names: names, Userdb: users.DB}, b.breaker(users.Pool)}, users.DB.UserStatement(), nil
}

// socketAway reports whether a server on a socket did not answer.
func socketAway(err error) bool {
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// guardedUsers is a userdb whose server a breaker stands before.
type guardedUsers struct {
	auth.Userdb
	breaker *breaker.Breaker
}

// LookupUser implements auth.Userdb.
func (g guardedUsers) LookupUser(ctx context.Context, r *auth.Request) (user *auth.User, err error) {
	err = g.breaker.Do(ctx, func(ctx context.Context) error {
		user, err = g.Userdb.LookupUser(ctx, r)
		return err
	})
	return user, err
}
