package dovecot

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"dovepost/auth"
)

const (
	// maxOpen bounds the requests of one connection, unclaimed logins included.
	// Dovecot's login processes have at most client_limit (1000) users each.
	maxOpen = 2048

	openTimeout = 150 * time.Second // for the client's next word, and for the pick-up
	pickUpGrace = 2 * time.Second   // a login younger than this keeps a drain waiting
	patience    = 5 * time.Second   // a client that says nothing for longer does so no more
	maxReason   = 400               // octets of a reason= that users see

	timedOutText   = "Authentication request timed out"
	unexpectedText = "Unexpected continuation"
)

// ClientHandler serves auth-client. It is the kind client, or with Login the kind
// login: there an OK is kept until a master has picked it up.
type ClientHandler struct {
	Instance   *Instance        // shared with the master's handlers
	Login      bool             // keep what succeeded for REQUEST
	Mechanisms []auth.Mechanism // in the order in which they are offered; at least one
	Verifier   auth.Verifier

	// Ahead is asked about the user of a login as soon as it has succeeded, for a cache to have
	// the answer when the master comes for it some milliseconds later; may be nil.
	Ahead auth.Userdb

	Log     *slog.Logger                            // nil: slog.Default()
	Observe func(result string, took time.Duration) // may be nil
}

// clientConn is one connection of an auth client.
type clientConn struct {
	*conn
	h      *ClientHandler
	log    *slog.Logger
	end    context.Context // the hard end
	ctx    context.Context // ends with the connection, or at the hard end
	cancel context.CancelCauseFunc
	minor  int
	cuid   uint32
	cookie string
	gone   chan struct{} // closed when the connection has ended
	steps  sync.WaitGroup

	drained bool // the connection has ended because the server drains; the reader's own

	tmu      sync.Mutex // guards requests, and the state of each
	requests map[uint32]*exchange
}

// ServeConn speaks to one client until it leaves, breaks the protocol, or the
// server drains and nothing is pending but exchanges whose clients say nothing for
// long. When it is the server that leaves, and at the end of ctx, all pending requests
// are told that the failure is temporary.
func (h *ClientHandler) ServeConn(ctx context.Context, nc net.Conn) error {
	c := &clientConn{conn: newConn(nc), h: h, log: h.Log, cookie: newCookie(), end: ctx,
		gone: make(chan struct{}), requests: make(map[uint32]*exchange)}
	if c.log == nil {
		c.log = slog.Default()
	}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	defer c.steps.Wait()
	defer c.close()
	defer c.watch(c.ctx)()
	c.hold() // a client that has no handshake yet is not idle: Postfix would die of it

	if err := c.greet(); err != nil {
		return err
	}
	pid, err := c.readHandshake()
	if err != nil {
		return goodEnd(err)
	}
	if h.Login {
		if err := h.Instance.enter(pid, c); err != nil {
			c.log.Warn("auth client claims", "err", err)
			return err
		}
		defer h.Instance.leave(pid, c)
	}
	c.release()

	for {
		line, err := c.next(c.ctx)
		if err == nil {
			err = c.handle(line)
		}
		if err != nil {
			c.drained = errors.Is(err, errDrained)
			return goodEnd(err)
		}
	}
}

// close answers what is pending, if it is the server that goes, and forgets all requests.
func (c *clientConn) close() {
	weLeave := c.drained || c.ctx.Err() != nil && !errors.Is(context.Cause(c.ctx), errSilent)
	result := "disconnected"
	if weLeave {
		result = "temp"
	}
	var idle []*exchange // those that no step will report
	var answers []byte
	c.tmu.Lock()
	for _, x := range c.requests {
		if x.state == waiting {
			idle = append(idle, x)
		}
		if x.state != done && weLeave && !c.isMTA(x) {
			answers = append(answers, failLine(x.id, nil, "temp_fail", "")...)
		}
		c.drop(x, result)
	}
	c.tmu.Unlock()
	for _, x := range idle {
		x.report(result, nil)
	}
	if len(answers) > 0 {
		c.send(answers)
	}
	c.cancel(errSilent)
	close(c.gone)
}

// errSilent ends a connection whose pending requests get no answer.
var errSilent = errors.New("connection closed without an answer")

// bindingWait is how long the client may be silent before it is told the
// mechanisms without channel binding. All but Exim speak first.
const bindingWait = 250 * time.Millisecond

// greet sends the server's whole part of the handshake. It comes from memory:
// Postfix's smtpd dies when it does not get it within 10 s.
func (c *clientConn) greet() error {
	b := []byte("VERSION\t1\t2\n")
	minor := 0
	if slices.ContainsFunc(c.h.Mechanisms, bindsChannel) {
		// A login process of 2.3 would offer such a mechanism, too, and has no data for it.
		if err := c.write(b); err != nil {
			return err
		}
		minor, b = c.peekMinor(), nil
	}
	c.cuid = c.h.Instance.lastCUID.Add(1)
	for _, m := range c.h.Mechanisms {
		if minor < modernMinor && bindsChannel(m) {
			continue
		}
		b = append(b, "MECH\t"...)
		b = appendEscaped(b, m.Name())
		for _, flag := range m.Flags() {
			b = append(b, '\t')
			b = appendEscaped(b, flag)
		}
		b = append(b, '\n')
	}
	b = append(appendCommand(b, "SPID", c.h.Instance.spid), '\n')
	b = append(appendCommand(b, "CUID", c.cuid), '\n')
	return c.write(append(b, "COOKIE\t"+c.cookie+"\nDONE\n"...))
}

// peekMinor waits a moment for the client's VERSION and returns its minor version.
func (c *clientConn) peekMinor() int {
	c.readBy(c.ctx, time.Now().Add(bindingWait))
	defer c.readBy(c.ctx, time.Time{})
	line, _ := c.r.Peek(len("VERSION\t1\t3\n"))
	version, _ := strings.CutPrefix(string(line), "VERSION\t1\t")
	minor, _ := strconv.Atoi(strings.TrimRight(version, "\r\n"))
	return minor
}

// bindsChannel reports whether m needs data of the client's TLS connection, which
// only Dovecot 2.4 can give.
func bindsChannel(m auth.Mechanism) bool { return slices.Contains(m.Flags(), "channel-binding") }

var errHandshake = errors.New("no handshake in time")

// readHandshake reads the client's part: VERSION, then CPID.
func (c *clientConn) readHandshake() (pid uint32, err error) {
	timer := time.AfterFunc(handshakeTimeout, func() { c.cancel(errHandshake) })
	defer timer.Stop()
	line, err := c.next(c.ctx)
	if err != nil {
		return 0, err
	}
	fields := splitLine(line)
	if c.minor, err = parseVersion(fields); err == nil && len(fields) > 3 {
		err = errors.New("broken VERSION")
	}
	if err != nil {
		return 0, c.violation(err)
	}
	if line, err = c.next(c.ctx); err != nil {
		return 0, err
	}
	fields = splitLine(line)
	if fields[0] != "CPID" || len(fields) != 2 {
		return 0, c.violation(fmt.Errorf("%.20q before CPID", fields[0]))
	}
	if pid, err = parseID(fields[1]); err != nil {
		return 0, c.violation(err)
	}
	return pid, nil
}

// violation logs what a client must not do. The stock server closes the connection.
func (c *clientConn) violation(err error) error {
	c.log.Warn("auth client broke the protocol", "err", err)
	return err
}

func (c *clientConn) handle(line string) error {
	word, rest, _ := strings.Cut(line, "\t")
	switch word {
	case "AUTH":
		return c.handleAuth(splitLine(rest))
	case "CONT":
		return c.handleCont(splitLine(rest))
	case "CANCEL":
		return c.handleCancel(splitLine(rest))
	}
	return c.violation(fmt.Errorf("unknown command %.20q", word))
}

func (c *clientConn) handleAuth(fields []string) error {
	a, err := parseAuth(fields, c.minor)
	if err != nil {
		return c.violation(err)
	}
	mech := c.mechanism(a.mech)
	if mech == nil {
		return c.violation(fmt.Errorf("unsupported mechanism %.20q", a.mech))
	}
	a.req.SPID, a.req.CUID = c.h.Instance.spid, c.cuid
	a.req.MTA = c.minor == 0 || a.req.Service == "smtp"
	x := &exchange{c: c, id: a.id, req: &a.req, flags: a.flags, started: time.Now(), state: waiting}
	x.ctx, x.cancel = context.WithCancel(c.ctx)
	open, err := c.add(x)
	if err != nil {
		return c.violation(err)
	}
	if c.minor == 0 { // such a client has one request at a time, and no CANCEL
		c.dropWaiting(x)
	}
	if open > maxOpen {
		c.log.Warn("too many requests on one auth connection", "limit", maxOpen)
		c.temporary(x, nil)
		return c.ended()
	}
	var response []byte
	if a.hasResp {
		if response, err = decode(a.resp); err != nil {
			c.finish(x, "protocol", failLine(x.id, nil, "invalid_base64", "Invalid base64 data in initial response"))
			return nil
		}
	}
	x.sasl = mech.Start(x.req, recorder{c.h.Verifier, x})
	c.resume(x.id)
	c.startStep(x, response)
	return nil
}

// handleCont: CONT <id> <base64>, and from 2.4 parameters behind it.
func (c *clientConn) handleCont(fields []string) error {
	if len(fields) < 2 {
		return c.violation(errors.New("broken CONT"))
	}
	id, err := parseNumber(fields[0])
	if err != nil {
		return c.violation(err)
	}
	x, expected := c.resume(id)
	switch {
	case x == nil:
		return c.write(failLine(id, nil, "", timedOutText))
	case !expected:
		return c.write(failLine(id, nil, "", unexpectedText))
	}
	response, err := decode(fields[1])
	if err == nil {
		err = c.contParams(x, fields[2:])
	}
	if err != nil {
		c.finish(x, "protocol", failLine(id, nil, "invalid_base64", "Invalid base64 data in continued response"))
		x.report("protocol", err)
		return nil
	}
	c.startStep(x, response)
	return nil
}

// contParams reads the parameters of the CONT for x, whose only user is the reader now.
func (c *clientConn) contParams(x *exchange, params []string) error {
	if len(params) > 0 && c.minor < modernMinor {
		return errors.New("invalid base64") // for 2.3 they are part of it
	}
	for _, p := range params {
		value, ok := strings.CutPrefix(p, "channel_binding=")
		if !ok || x.req.Binding.Type == "" {
			continue
		}
		data, err := decode(value)
		if err != nil {
			return err
		}
		x.req.Binding.Data = data
	}
	return nil
}

// handleCancel: CANCEL <id>.
func (c *clientConn) handleCancel(fields []string) error {
	if len(fields) != 1 {
		return c.violation(errors.New("broken CANCEL"))
	}
	id, err := parseNumber(fields[0])
	if err != nil {
		return c.violation(err)
	}
	if x := c.find(id); x != nil {
		c.remove(x, "cancelled")
	}
	// 2.4.5's slot is busy until it has the answer; 2.3 would not know the word.
	if c.minor >= 4 {
		return c.write(append(appendCommand(nil, "CANCELLED", id), '\n'))
	}
	return nil
}

func (c *clientConn) mechanism(name string) auth.Mechanism {
	for _, m := range c.h.Mechanisms {
		if m.Name() == name && (c.minor >= modernMinor || !bindsChannel(m)) {
			return m
		}
	}
	return nil
}

// ended returns the reason for which the connection has been ended, if it has.
func (c *clientConn) ended() error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	return nil
}

// decode reads base64, blanks behind it included, as Dovecot does. The result is
// never nil: nil means "no initial response".
func decode(s string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(strings.TrimRight(s, " \t"))
	if err != nil {
		return nil, errors.New("invalid base64") // the error of base64 shows where, which is a secret
	}
	if b == nil {
		b = []byte{}
	}
	return b, nil
}

// failLine is FAIL with what is known; empty parts are left out. r may be nil.
func failLine(id uint32, r *auth.Request, code, reason string) []byte {
	b := appendCommand(nil, "FAIL", id)
	if r != nil && (r.User != "" || r.Login != "") {
		user := cmp.Or(r.User, r.Login)
		b = appendOriginal(appendPair(b, "user", user), r, user, nil)
	}
	if code != "" {
		b = appendPair(b, "code", code)
	}
	if reason != "" {
		b = appendPair(b, "reason", oneLine(reason))
	}
	return append(b, '\n')
}

// oneLine makes a text fit to be shown in the reply of a mail protocol. Postfix
// does not unescape, and a login process would pass a line break on.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "")
	}
	return text
}

// challengeLine is CONT; binding is the type of channel binding data that the
// client's next one has to bring, or empty.
func challengeLine(id uint32, challenge []byte, binding string) []byte {
	b := append(appendCommand(nil, "CONT", id), '\t') // also when it is empty
	b = base64.StdEncoding.AppendEncode(b, challenge)
	if binding != "" {
		b = appendPair(b, "channel_binding", binding)
	}
	return append(b, '\n')
}
