package dovecot

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"dovepost/auth"
)

// state is where a request stands. It is in the table from AUTH to its final
// answer, and a successful login to its pick-up.
type state int

const (
	waiting state = iota // for the client's CONT, or not yet begun
	working              // a step is being computed; its goroutine owns req and sasl
	done                 // successful, waits for REQUEST
)

// exchange is one request of a client.
type exchange struct {
	c       *clientConn
	id      uint32
	req     *auth.Request
	flags   flags
	started time.Time
	sasl    auth.Exchange
	pass    *string           // the password of a login that a proxy will repeat
	row     *auth.Credentials // proven, while the client has to confirm the last message
	ctx     context.Context   // ends with the request
	cancel  context.CancelFunc

	// Guarded by c.tmu.
	state  state
	held   bool   // counted in c.open
	result string // why a working request was taken out of the table
	timer  *time.Timer
}

// add puts x into the table. An error is a duplicate id.
func (c *clientConn) add(x *exchange) (open int, err error) {
	c.tmu.Lock()
	defer c.tmu.Unlock()
	if c.requests[x.id] != nil {
		x.cancel()
		return 0, fmt.Errorf("duplicate id %d", x.id)
	}
	c.requests[x.id] = x
	x.take()
	x.timer = time.AfterFunc(openTimeout, x.expire)
	return len(c.requests), nil
}

func (c *clientConn) find(id uint32) *exchange {
	c.tmu.Lock()
	defer c.tmu.Unlock()
	return c.requests[id]
}

// resume begins a step of the request id at the client's CONT. It returns nil for
// one that is not known, or that has had its answer and is now forgotten; and
// false for one that did not expect a CONT, which has been taken out of the table.
func (c *clientConn) resume(id uint32) (x *exchange, expected bool) {
	c.tmu.Lock()
	defer c.tmu.Unlock()
	x = c.requests[id]
	switch {
	case x == nil:
		return nil, false
	case x.state == waiting:
		x.state = working
		x.take()
		return x, true
	}
	c.drop(x, "protocol")
	return x, false
}

// dropWaiting forgets the requests that wait for the client, but not x.
func (c *clientConn) dropWaiting(x *exchange) {
	c.tmu.Lock()
	var stale []*exchange
	for _, old := range c.requests {
		if old != x && old.state == waiting {
			stale = append(stale, old)
		}
	}
	c.tmu.Unlock()
	for _, old := range stale {
		c.remove(old, "cancelled")
	}
}

// remove takes x out of the table. false: somebody else has, and only one of the
// two may answer. The log line is left to the step where one is running.
func (c *clientConn) remove(x *exchange, result string) bool {
	c.tmu.Lock()
	if c.requests[x.id] != x {
		c.tmu.Unlock()
		return false
	}
	state := x.state
	c.drop(x, result)
	c.tmu.Unlock()
	if state == waiting {
		x.report(result, nil)
	}
	return true
}

// drop takes x out of the table; c.tmu is held, and x is in it.
func (c *clientConn) drop(x *exchange, result string) {
	delete(c.requests, x.id)
	x.letGo()
	x.timer.Stop()
	x.result = result
	x.cancel()
}

// take keeps the connection from being idle; c.tmu is held.
func (x *exchange) take() {
	if !x.held {
		x.held = true
		x.c.hold()
	}
}

// letGo lets the connection be idle as far as x is concerned; c.tmu is held.
func (x *exchange) letGo() {
	if x.held {
		x.held = false
		x.c.release()
	}
}

// finish gives x its final answer, unless it has got one or wants none any more.
func (c *clientConn) finish(x *exchange, result string, line []byte) bool {
	if !c.remove(x, result) {
		return false
	}
	c.send(line)
	return true
}

// send writes lines; a connection that takes none is ended.
func (c *clientConn) send(lines []byte) {
	if err := c.write(lines); err != nil {
		c.cancel(err)
	}
}

// keep makes x wait for its pick-up. false: x has been cancelled.
func (c *clientConn) keep(x *exchange) bool {
	c.tmu.Lock()
	defer c.tmu.Unlock()
	if c.requests[x.id] != x {
		return false
	}
	x.state = done
	x.timer.Stop()
	x.timer = time.AfterFunc(pickUpGrace, x.ripen)
	return true
}

// ripen lets a drain no longer wait for the pick-up of x.
func (x *exchange) ripen() {
	x.c.tmu.Lock()
	defer x.c.tmu.Unlock()
	if x.c.requests[x.id] == x {
		x.letGo()
		x.timer = time.AfterFunc(openTimeout-pickUpGrace, x.expire)
	}
}

// expire forgets a request whose client, or whose master, says nothing more.
func (x *exchange) expire() {
	x.c.tmu.Lock()
	running := x.state == working // the verifier has time limits of its own
	if running && x.c.requests[x.id] == x {
		x.timer.Reset(openTimeout) // the client may leave it alone afterwards
	}
	x.c.tmu.Unlock()
	if !running {
		x.c.remove(x, "timeout")
	}
}

// linger lets a drain no longer wait for the client of x. Postfix forgets an exchange
// whose user has left, and its connection would be busy until somebody else comes.
func (x *exchange) linger() {
	x.c.tmu.Lock()
	defer x.c.tmu.Unlock()
	if x.c.requests[x.id] == x && x.state == waiting {
		x.letGo()
		x.timer = time.AfterFunc(openTimeout-patience, x.expire)
	}
}

// claim takes the successful login id out of the table.
func (c *clientConn) claim(id uint32) (login, bool) {
	c.tmu.Lock()
	defer c.tmu.Unlock()
	x := c.requests[id]
	if x == nil || x.state != done {
		return login{}, false
	}
	c.drop(x, "")
	return login{req: x.req, row: x.row}, true
}

// step lets the mechanism have the client's response and tells the client what it says.
func (x *exchange) step(response []byte) {
	c := x.c
	defer func() {
		if r := recover(); r != nil {
			c.log.Error("panic in an authentication", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			c.temporary(x, nil)
			x.report("temp", errors.New("panic"))
			c.cancel(errSilent)
		}
	}()
	if x.row != nil { // the client has confirmed the mechanism's last message
		x.accept(x.row, nil)
		return
	}
	challenge, row, err := x.sasl.Next(x.ctx, response)
	switch {
	case err != nil:
		x.refuse(err)
	case row == nil:
		x.challenge(challenge)
	case challenge != nil && !x.flags.finalRespOK:
		x.row = row
		x.challenge(challenge)
	default:
		x.accept(row, challenge)
	}
}

func (x *exchange) challenge(challenge []byte) {
	c := x.c
	binding := "" // of the request, which is the reader's as soon as the state is waiting
	if x.req.Binding.Data == nil && c.minor >= modernMinor {
		binding = x.req.Binding.Type
	}
	c.tmu.Lock()
	open := c.requests[x.id] == x
	if open {
		x.state = waiting
		x.timer.Stop()
		x.timer = time.AfterFunc(patience, x.linger)
	}
	c.tmu.Unlock()
	if !open {
		x.report(x.result, nil)
		return
	}
	c.send(challengeLine(x.id, challenge, binding))
}

// accept tells the client who it is.
func (x *exchange) accept(row *auth.Credentials, final []byte) {
	c := x.c
	if _, nologin := row.Fields.Get("nologin"); nologin && c.isMTA(x) {
		// Postfix takes any OK for a success.
		reason, _ := row.Fields.Get("reason")
		x.refuse(&auth.Refusal{Err: auth.ErrUserDisabled, Reason: reason})
		return
	}
	line, handOver, err := x.okLine(row, final)
	switch {
	case err != nil:
		x.refuse(err)
		return
	case len(line) > maxLine:
		x.refuse(fmt.Errorf("the fields of %q make a line of %d octets", row.User, len(line)))
		return
	}
	ok := false
	if handOver {
		stripped := *row
		stripped.Password = ""
		x.row, x.pass, x.req.Password, x.req.Token = &stripped, nil, "", ""
		if ok = c.keep(x); ok {
			c.send(line)
		}
	} else {
		ok = c.finish(x, "ok", line)
	}
	if !ok {
		x.report(x.result, nil)
		return
	}
	x.report("ok", nil)
	if handOver && c.h.Ahead != nil {
		c.askAhead(login{req: x.req, row: x.row})
	}
}

// askAhead asks about the user of a login what a master will ask. What comes of it the master
// hears when it does.
func (c *clientConn) askAhead(l login) {
	if prefetched(l.row) != nil {
		return
	}
	ctx, cancel := context.WithTimeout(c.end, lookupTimeout)
	defer cancel()
	c.h.Ahead.LookupUser(ctx, l.request())
}

// okLine returns OK, and whether a REQUEST may follow it. An error is temporary.
func (x *exchange) okLine(row *auth.Credentials, final []byte) (line []byte, handOver bool, err error) {
	fields := row.Fields
	// Who cannot hand over a connection does not pass it on either, and gets no password.
	passesOn := x.c.h.Login && !x.flags.noPickUp
	if passesOn {
		if fields, err = settleProxy(x.ctx, x.req, fields); err != nil {
			return nil, false, err
		}
	}
	_, nologin := fields.Get("nologin")
	_, proxy := fields.Get("proxy")
	b := appendPair(appendCommand(nil, "OK", x.id), "user", row.User)
	b = appendForward(b, x.req, fields)
	b = appendPassdbFields(b, fields, true)
	b = appendOriginal(b, x.req, row.User, fields)
	b = appendMissing(b, fields, "auth_user", x.req.MasterUser)
	if proxy && passesOn {
		if _, own := fields.Get("pass"); x.pass != nil && !own {
			b = appendPair(b, "pass", *x.pass) // an empty one, too: only the backend may call it wrong
		} else {
			b = appendMissing(b, fields, "pass", x.req.Token)
		}
		b = appendMissing(b, fields, "master", x.req.MasterUser)
	}
	if final != nil && x.flags.finalRespOK {
		b = appendPair(b, "resp", base64.StdEncoding.EncodeToString(final))
	}
	return append(b, '\n'), passesOn && !nologin && !proxy, nil
}

// recorder is the Verifier of one exchange. It keeps the password of a login that a
// proxy will repeat elsewhere.
type recorder struct {
	auth.Verifier
	x *exchange
}

func (v recorder) VerifyPlain(ctx context.Context, r *auth.Request, password []byte) (*auth.Credentials, error) {
	row, err := v.Verifier.VerifyPlain(ctx, r, password)
	if err == nil && isProxied(row.Fields) {
		v.x.pass = new(string(password))
	}
	return row, err
}

// refuse tells the client that it failed: late, if it has been proven wrong, and
// at once, if the failure is ours.
func (x *exchange) refuse(err error) {
	c := x.c
	if !auth.Refused(err) {
		if !c.temporary(x, x.req) {
			x.report(x.result, nil)
			return
		}
		x.report("temp", err)
		return
	}
	var refusal *auth.Refusal
	errors.As(err, &refusal)
	code, reason := refusalCode(err), ""
	if refusal != nil {
		reason = refusal.Reason
	}
	if !c.finish(x, "", failLine(x.id, x.req, code, reason)) {
		x.report(x.result, err)
		return
	}
	x.report(refusalLabel(err), err)
}

// isMTA reports whether the asker of x is Postfix or Exim and not Dovecot. Those
// say minor version 0 and know neither nologin nor code=.
func (c *clientConn) isMTA(x *exchange) bool { return x.req.MTA }

// temporary ends x with a failure that is not the client's, unless x has ended.
// Postfix makes a 535 of every FAIL; only silence is a 454. r, of which the answer
// names the user, may be nil.
func (c *clientConn) temporary(x *exchange, r *auth.Request) bool {
	if !c.isMTA(x) {
		return c.finish(x, "temp", failLine(x.id, r, "temp_fail", ""))
	}
	removed := c.remove(x, "temp")
	if removed {
		c.cancel(errSilent)
	}
	return removed
}

// refusalCode returns the code= of a refusal; or nothing, where the client may
// not learn more than "no".
func refusalCode(err error) string {
	switch {
	case errors.Is(err, auth.ErrUserDisabled):
		return "user_disabled"
	case errors.Is(err, auth.ErrPassExpired):
		return "pass_expired"
	case errors.Is(err, auth.ErrAuthzFailed):
		return "authz_fail"
	}
	return ""
}

func refusalLabel(err error) string {
	switch {
	case errors.Is(err, auth.ErrUnknownUser):
		return "unknown_user"
	case errors.Is(err, auth.ErrPasswordMismatch):
		return "mismatch"
	case errors.Is(err, auth.ErrMalformed):
		return "malformed"
	}
	return refusalCode(err)
}

// report writes the one log line of a finished request, and counts it.
func (x *exchange) report(result string, err error) {
	took := time.Since(x.started)
	level := slog.LevelInfo
	if result == "temp" {
		level = slog.LevelWarn
	}
	user := x.req.User
	if user == "" {
		user = x.req.Login
	}
	attrs := []slog.Attr{slog.String("result", result), slog.String("user", user),
		slog.String("service", x.req.Service), slog.String("mech", x.req.Mech)}
	if x.req.RemoteIP.IsValid() {
		attrs = append(attrs, slog.String("rip", x.req.RemoteIP.String()))
	}
	if x.req.Session != "" {
		attrs = append(attrs, slog.String("session", x.req.Session))
	}
	if err != nil && !slices.Contains([]string{"mismatch", "unknown_user"}, result) {
		attrs = append(attrs, slog.Any("err", err))
	}
	var refusal *auth.Refusal
	if errors.As(err, &refusal) && refusal.Again {
		attrs = append(attrs, slog.Bool("again", true))
	}
	attrs = append(attrs, slog.Duration("took", took.Round(time.Millisecond)))
	x.c.log.LogAttrs(context.Background(), level, "auth", attrs...)
	if x.c.h.Observe != nil {
		x.c.h.Observe(result, took)
	}
}
