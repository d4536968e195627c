package dovecot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dovepost/auth"
)

const (
	// maxLookups bounds the requests of one master connection that are worked on
	// at a time; more wait in the socket.
	maxLookups = 64

	// lookupTimeout is for one REQUEST, USER or PASS. imap gives up after 90 s,
	// lmtp and doveadm after 155 s.
	lookupTimeout = 60 * time.Second

	// listChunk is how much of a LIST is written at a time.
	listChunk = 4096
)

// MasterHandler serves auth-master. It is the kind master, or with UserdbOnly the
// kind userdb: without REQUEST and CACHE-FLUSH, and with the rights of its peers
// checked where the socket's mode is 0666.
type MasterHandler struct {
	Instance   *Instance // shared with the clients' handlers
	UserdbOnly bool
	Passdb     auth.Passdb
	Userdb     auth.Userdb
	Tokens     *Tokens // nil: sessions get no auth_token

	// Flush forgets what is cached of the users, or of all where none is named,
	// and returns the number of entries. nil: there is no cache.
	Flush func(users []string) int

	// Status tells about the cache; with reset its counters begin anew. nil: there
	// is no cache.
	Status func(reset bool) CacheStatus

	Log     *slog.Logger                            // nil: slog.Default()
	Observe func(result string, took time.Duration) // found, notfound, temp, listed; may be nil
}

// CacheStatus is what CACHE-STATUS tells: counters, then what the cache holds.
type CacheStatus struct {
	Hits, Misses           uint64
	PosEntries, NegEntries uint64 // known users, and unknown ones
	PosSize, NegSize       uint64 // octets
}

// masterConn is one connection of imap, pop3, lmtp, doveadm ...
type masterConn struct {
	*conn
	h       *MasterHandler
	log     *slog.Logger
	ctx     context.Context
	cancel  context.CancelCauseFunc
	minor   int
	peer    peer
	isPeer  bool
	onlyUID uint32 // if limited: the only uid whose USER may be answered
	limited bool

	lookups   sync.WaitGroup
	slots     chan struct{}
	iterating atomic.Bool
}

// ServeConn speaks to one master until it leaves, breaks the protocol, or the
// server drains and nothing is pending. At the end of ctx pending requests fail.
func (h *MasterHandler) ServeConn(ctx context.Context, nc net.Conn) error {
	c := &masterConn{conn: newConn(nc), h: h, log: h.Log, slots: make(chan struct{}, maxLookups)}
	if c.log == nil {
		c.log = slog.Default()
	}
	c.peer, c.isPeer = peerOf(nc)
	if h.UserdbOnly {
		c.onlyUID, c.limited = restrictedUID(nc)
	}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	defer c.lookups.Wait()
	defer c.cancel(errSilent)
	defer c.watch(c.ctx)()
	c.hold()

	if err := c.write(append(appendCommand([]byte("VERSION\t1\t1\n"), "SPID", h.Instance.spid), '\n')); err != nil {
		return err
	}
	if err := c.readHandshake(); err != nil {
		return goodEnd(err)
	}
	c.release()
	for {
		line, err := c.next(c.ctx)
		if err == nil {
			err = c.handle(line)
		}
		if err != nil {
			return goodEnd(err)
		}
	}
}

func (c *masterConn) readHandshake() error {
	timer := time.AfterFunc(handshakeTimeout, func() { c.cancel(errHandshake) })
	defer timer.Stop()
	line, err := c.next(c.ctx)
	if err != nil {
		return err
	}
	if c.minor, err = parseVersion(splitLine(line)); err != nil {
		return c.violation(err)
	}
	return nil
}

func (c *masterConn) violation(err error) error {
	c.log.Warn("auth master broke the protocol", "err", err)
	return err
}

func (c *masterConn) handle(line string) error {
	word, rest, _ := strings.Cut(line, "\t")
	fields := splitLine(rest)
	id, err := parseNumber(fields[0])
	var serve func() []byte
	switch {
	case word == "USER", word == "PASS":
		if err == nil {
			serve, err = c.lookup(word, id, fields[1:])
		}
	case word == "LIST":
		serve = func() []byte { return c.list(id, fields[1:]) }
	case word == "REQUEST" && !c.h.UserdbOnly:
		if err == nil {
			serve, err = c.request(id, fields[1:])
		}
	case word == "CACHE-FLUSH" && !c.h.UserdbOnly:
		serve = func() []byte { return c.flush(id, fields[1:]) }
	case word == "CACHE-STATUS" && !c.h.UserdbOnly:
		serve = func() []byte { return c.status(id, fields[1:]) }
	default:
		err = fmt.Errorf("unknown command %.20q", word)
	}
	if err != nil {
		return c.violation(err)
	}
	select {
	case c.slots <- struct{}{}:
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	}
	c.hold()
	c.lookups.Go(func() { c.answer(id, serve) })
	return nil
}

// answer computes and writes one reply.
func (c *masterConn) answer(id uint32, serve func() []byte) {
	defer func() {
		if r := recover(); r != nil {
			c.log.Error("panic in a lookup", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			c.cancel(fmt.Errorf("panic: %v", r))
		}
		<-c.slots
		c.release()
	}()
	reply := serve()
	if len(reply) >= maxReply {
		c.log.Error("the reply of a lookup is too long for Dovecot", "octets", len(reply), "limit", maxReply)
		reply = failReply(id, "the reply is too long")
	}
	if err := c.write(reply); err != nil {
		c.cancel(err)
	}
}

// lookup prepares USER or PASS: <name> service=<service> [parameters].
func (c *masterConn) lookup(word string, id uint32, fields []string) (func() []byte, error) {
	if len(fields) < 1 {
		return nil, fmt.Errorf("broken %s", word)
	}
	r := &auth.Request{Login: fields[0]}
	f := parseParams(r, fields[1:])
	r.Modern = r.Modern || c.minor >= modernMinor
	if !f.service {
		return nil, fmt.Errorf("%s without service", word)
	}
	if word == "PASS" {
		return func() []byte { return c.pass(id, r) }, nil
	}
	return func() []byte { return c.user(id, r) }, nil
}

func (c *masterConn) user(id uint32, r *auth.Request) []byte {
	return c.timed(id, "USER", r, func(ctx context.Context) ([]byte, error) {
		u, err := c.h.Userdb.LookupUser(ctx, r)
		if err == nil {
			u, err = numbered(u)
		}
		if err != nil {
			return nil, err
		}
		if c.limited && u.UID != strconv.FormatUint(uint64(c.onlyUID), 10) {
			return nil, fmt.Errorf("uid %d may not look up %q: the socket's mode is 0666", c.peer.uid, u.Name)
		}
		return appendUser(appendCommand(nil, "USER", id), u, nil, r.Modern)
	})
}

func (c *masterConn) pass(id uint32, r *auth.Request) []byte {
	return c.timed(id, "PASS", r, func(ctx context.Context) ([]byte, error) {
		if c.limited {
			return nil, fmt.Errorf("uid %d may not ask for PASS: the socket's mode is 0666", c.peer.uid)
		}
		row, err := c.h.Passdb.LookupPass(ctx, r)
		if err != nil {
			return nil, err
		}
		fields, err := settleProxy(ctx, r, row.Fields)
		if err != nil {
			return nil, err
		}
		b := appendPair(appendCommand(nil, "PASS", id), "user", row.User)
		b = appendForward(b, r, fields)
		return append(appendPassdbFields(b, fields, false), '\n'), nil
	})
}

// timed runs one lookup and words its errors. Only the database may say NOTFOUND:
// Postfix bounces what lmtp does not find.
func (c *masterConn) timed(id uint32, word string, r *auth.Request, lookup func(context.Context) ([]byte, error)) []byte {
	start := time.Now()
	ctx, cancel := context.WithTimeout(c.ctx, lookupTimeout)
	defer cancel()
	reply, err := lookup(ctx)
	result := "found"
	switch {
	case err == nil:
	case errors.Is(err, auth.ErrUnknownUser),
		word == "PASS" && (errors.Is(err, auth.ErrUserDisabled) || errors.Is(err, auth.ErrPassExpired)):
		result, reply = "notfound", append(appendCommand(nil, "NOTFOUND", id), '\n')
	default:
		result, reply = "temp", failReply(id, "temporary failure, see the log of authd")
		c.log.Warn("lookup", "command", word, "user", r.Login, "service", r.Service, "err", err)
	}
	c.log.Debug("lookup", "command", word, "user", r.Login, "service", r.Service, "result", result, "took", time.Since(start))
	if c.h.Observe != nil {
		c.h.Observe(result, time.Since(start))
	}
	return reply
}

func failReply(id uint32, reason string) []byte {
	return failLine(id, nil, "", reason)
}

// request prepares the hand-off of a login:
// <client-pid> <client-id> <cookie> [session_pid=<pid>] [request_auth_token].
func (c *masterConn) request(id uint32, fields []string) (func() []byte, error) {
	if len(fields) < 3 {
		return nil, errors.New("broken REQUEST")
	}
	pid, err := parseNumber(fields[0])
	if err != nil {
		return nil, err
	}
	clientID, err := parseNumber(fields[1])
	if err != nil {
		return nil, err
	}
	h := handOff{id: id, pid: pid, clientID: clientID, cookie: strings.ToLower(fields[2])}
	for _, p := range fields[3:] {
		switch name, value, _ := strings.Cut(p, "="); name {
		case "session_pid":
			h.sessionPID = value
		case "request_auth_token":
			h.wantsToken = true
		}
	}
	return func() []byte { return c.handOff(h) }, nil
}

// handOff is a REQUEST: which login, and of whom the session will be.
type handOff struct {
	id, pid, clientID uint32
	cookie            string
	sessionPID        string // decimal; or empty
	wantsToken        bool
}

func (c *masterConn) handOff(h handOff) []byte {
	fail := func(err error) []byte {
		c.log.Warn("hand-off refused", "err", err)
		return append(appendCommand(nil, "FAIL", h.id), '\n')
	}
	l, err := c.h.Instance.pickUp(h.pid, h.clientID, h.cookie)
	if err != nil {
		return fail(err)
	}
	// A process in another pid namespace has pid 0 here: nothing to compare with.
	if h.sessionPID != "" && c.isPeer && c.peer.pid > 0 && h.sessionPID != strconv.Itoa(int(c.peer.pid)) {
		return fail(fmt.Errorf("session_pid=%.20q is not the pid %d of the peer", h.sessionPID, c.peer.pid))
	}
	r := l.request()
	r.Modern = r.Modern || c.minor >= modernMinor
	return c.timed(h.id, "REQUEST", r, func(ctx context.Context) ([]byte, error) {
		u, err := c.loginUser(ctx, r, l.row)
		if err == nil {
			u, err = numbered(u)
		}
		if err != nil {
			return nil, err
		}
		return appendUser(appendCommand(nil, "USER", h.id), u, c.sessionFields(r, u, h), r.Modern)
	})
}

// sessionFields are what a session learns about its login besides the user.
func (c *masterConn) sessionFields(r *auth.Request, u *auth.User, h handOff) (fields auth.Fields) {
	add := func(name, value string) {
		if value != "" {
			fields = append(fields, auth.Field{Name: name, Value: value, HasValue: true})
		}
	}
	if _, there := u.Fields.Get("master_user"); !there {
		add("master_user", r.MasterUser)
	}
	add("auth_mech", r.Mech)
	if _, anonymous := r.Row.Fields.Get("anonymous"); anonymous {
		fields = append(fields, auth.Field{Name: "anonymous"})
	}
	if h.wantsToken && h.sessionPID != "" && c.h.Tokens != nil {
		add("auth_token", c.h.Tokens.token(r.Service, h.sessionPID, u.Name, r.Session))
	}
	switch {
	case r.MasterUser != "":
		add("auth_user", r.MasterUser)
	case r.Login != u.Name:
		add("auth_user", r.Login)
	}
	return fields
}

// loginUser returns the userdb row of a login: the passdb's own, if the password
// query has fetched enough of it, else the userdb's with the rest of the passdb's.
func (c *masterConn) loginUser(ctx context.Context, r *auth.Request, row *auth.Credentials) (*auth.User, error) {
	if u := prefetched(row); u != nil {
		return u, nil
	}
	u, err := c.h.Userdb.LookupUser(ctx, r)
	if err != nil || len(row.Userdb) == 0 {
		return u, err
	}
	merged := *u
	merged.Fields = slices.Clip(merged.Fields)
	for _, f := range row.Userdb {
		fill := map[string]*string{"home": &merged.Home, "mail": &merged.Mail, "uid": &merged.UID, "gid": &merged.GID}[f.Name]
		_, there := merged.Fields.Get(f.Name)
		switch {
		case fill == nil && !there:
			merged.Fields = append(merged.Fields, f)
		case fill != nil && *fill == "":
			*fill = f.Value
		}
	}
	return &merged, nil
}

// prefetched makes a user of the userdb_* fields of a passdb row; nil if they do
// not suffice.
func prefetched(row *auth.Credentials) *auth.User {
	u := &auth.User{Name: row.User}
	setFields(u, row.Userdb)
	if u.UID == "" || u.GID == "" || u.Home == "" {
		return nil
	}
	return u
}

// list answers LIST [user=<mask>]: the names, then DONE.
func (c *masterConn) list(id uint32, fields []string) []byte {
	failed := append(appendCommand(nil, "DONE", id), "\tfail\n"...)
	mask := ""
	for _, p := range fields {
		if v, ok := strings.CutPrefix(p, "user="); ok {
			mask = v
		}
	}
	switch {
	case c.limited:
		c.log.Warn("LIST refused: the socket's mode is 0666", "uid", c.peer.uid)
		return failed
	case !c.iterating.CompareAndSwap(false, true):
		c.log.Warn("LIST refused: this connection has one under way")
		return failed
	}
	defer c.iterating.Store(false)
	start := time.Now()
	defer context.AfterFunc(c.ctx, func() { c.SetWriteDeadline(longAgo) })()
	names, err := c.listNames(id, mask)
	result := "listed"
	if err != nil {
		result = "temp"
		c.log.Warn("LIST", "mask", mask, "names", names, "err", err)
	}
	if c.h.Observe != nil {
		c.h.Observe(result, time.Since(start))
	}
	if err != nil {
		return failed
	}
	return append(appendCommand(nil, "DONE", id), "\t\n"...)
}

func (c *masterConn) listNames(id uint32, mask string) (names int, err error) {
	var b []byte
	for name, err := range c.h.Userdb.Users(c.ctx, mask) {
		if err != nil {
			return names, err
		}
		line := len(b)
		b = append(appendCommand(b, "LIST", id), '\t')
		b = append(appendEscaped(b, name), '\n')
		if len(b)-line >= maxReply {
			return names, fmt.Errorf("a user name of %d octets", len(name))
		}
		names++
		if len(b) < listChunk {
			continue
		}
		// doveadm -A reads a name when it has finished with the one before: no
		// time limit, the connection's end ends it.
		if err := c.writeWithin(b, 0); err != nil {
			return names, err
		}
		b = b[:0]
	}
	if len(b) == 0 {
		return names, nil
	}
	return names, c.writeWithin(b, 0)
}

// flush answers CACHE-FLUSH [users].
func (c *masterConn) flush(id uint32, fields []string) []byte {
	users := slices.DeleteFunc(fields, func(f string) bool { return f == "" })
	entries := 0
	if c.h.Flush != nil {
		entries = c.h.Flush(users)
	}
	b := append(appendCommand(nil, "OK", id), '\t')
	return append(strconv.AppendInt(b, int64(entries), 10), '\n')
}

// status answers CACHE-STATUS [reset].
func (c *masterConn) status(id uint32, params []string) []byte {
	var s CacheStatus
	if c.h.Status != nil {
		s = c.h.Status(slices.Contains(params, "reset"))
	}
	b := appendCommand(nil, "OK", id)
	for _, f := range []struct {
		name  string
		value uint64
	}{{"hits", s.Hits}, {"misses", s.Misses}, {"pos_entries", s.PosEntries}, {"neg_entries", s.NegEntries}, {"pos_size", s.PosSize}, {"neg_size", s.NegSize}} {
		b = appendPair(b, f.name, strconv.FormatUint(f.value, 10))
	}
	return append(b, '\n')
}
