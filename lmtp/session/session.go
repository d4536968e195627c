// Package session serves LMTP, the delivery protocol of RFC 2033: what Postfix's
// lmtp(8) speaks to the program that owns the mailboxes.
//
// It knows RFC 5321 commands and paths, PIPELINING (RFC 2920), ENHANCEDSTATUSCODES
// (RFC 2034), 8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531), SIZE (RFC 1870) and
// CHUNKING (RFC 3030), and words its replies as Dovecot's LMTP does. It does not
// announce DSN: without it Postfix sends the success reports itself.
//
// Who a recipient is says an lmtp.Resolver, where a message goes an lmtp.Deliverer.
// A recipient gets its 250 after Deliver returned nil for it, and only then.
package session

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"dovepost/lmtp"
)

// What a Handler uses where a field is zero.
const (
	DefaultTimeout       = 5 * time.Minute
	DefaultDiskWork      = 256
	DefaultDataTimeout   = 10 * time.Minute
	DefaultSpoolWait     = time.Minute // Postfix waits two minutes for the answer to DATA
	DefaultMaxRecipients = 1000
	DefaultSpoolMemory   = 64 << 20
)

const (
	maxLine   = 4096    // octets of a command, without its line end
	maxSkip   = 4 << 20 // octets of a line that is too long, until the connection ends
	maxBad    = 10      // commands in a row that were refused as wrong
	readSize  = 32 << 10
	writeSize = 4 << 10
)

// Handler serves LMTP connections. Its fields must not change once it serves.
type Handler struct {
	Resolver  lmtp.Resolver
	Deliverer lmtp.Deliverer
	Room      lmtp.RoomChecker // asked at RCPT, lmtp_rcpt_check_quota; nil: the delivery finds out

	Hostname           string          // in greetings and Received headers
	RecipientDelimiter string          // each character starts an address extension
	DeliveryAddress    DeliveryAddress // lmtp_hdr_delivery_address
	NoReceived         bool            // lmtp_add_received_header = no
	UserConcurrency    int             // lmtp_user_concurrency_limit; 0: no limit
	MaxRecipients      int             // of one transaction; 0: DefaultMaxRecipients
	MaxSize            int64           // message_size_limit in octets, line ends counted as one; 0: no limit
	Timeout            time.Duration   // of each read and write, of a whole command line and of a TLS handshake; 0: DefaultTimeout
	DataTimeout        time.Duration   // of a whole DATA or BDAT, and a second more for each 500 octets; 0: DefaultDataTimeout
	TLS                *tls.Config     // for STARTTLS, offered to peers that have an address; nil: not offered
	Trusted            []netip.Prefix  // login_trusted_networks: who may use XCLIENT and XFORWARD; over a unix socket everybody may XFORWARD

	SpoolDir    string        // where messages beyond 2 MiB wait; empty: os.TempDir
	SpoolMemory int64         // octets that messages of 32 KiB to 2 MiB may hold together; the rest of them wait in files; 0: DefaultSpoolMemory
	SpoolDisk   int64         // octets that all spool files may hold together; 0: no limit
	SpoolWait   time.Duration // how long a message waits for room below SpoolDisk before it is put off; 0: DefaultSpoolWait

	DiskWork int // files that are written, read or synced at a time, a system thread each; others wait; 0: DefaultDiskWork

	Log     *slog.Logger                            // nil: slog.Default
	Observe func(result string, took time.Duration) // once for each RCPT refused and each delivery; nil: none

	usage usage
	mu    sync.Mutex     // guards users
	users map[string]int // recipients in open transactions, by user
	ident func() string  // makes session ids; nil: newID
	clock func() time.Time
}

// idler is what the accept loop's connections can do: see ServeConn.
type idler interface{ SetIdle(idle bool) error }

// ServeConn serves c until the client leaves, and returns nil when it left between
// two commands. It does not close c. Where c has a method SetIdle(bool) error, as
// the connections of a draining accept loop have, SetIdle(true) is called before
// each wait for a command, and SetIdle(false), which puts the read deadline back that a drain has moved,
// after it. When the former fails the client is told 421 4.3.2. That is as soon as
// it has the answer to a message, or asks for RSET, or after two quiet seconds and a half.
func (h *Handler) ServeConn(ctx context.Context, c net.Conn) error {
	s := newSession(h, c)
	defer s.close()
	err := s.serve(ctx)
	if ferr := s.w.Flush(); err == nil {
		err = ferr
	}
	if s.secure != nil {
		s.secure.CloseWrite()
	}
	return err
}

// session is one connection.
type session struct {
	h   *Handler
	log *slog.Logger
	r   *bufio.Reader
	w   *bufio.Writer

	idle    idler      // nil: the connection is never drained
	peer    netip.Addr // who is at the other end; the zero Addr on a unix socket
	secure  *tls.Conn  // nil before STARTTLS
	id      string
	remote  string // the client's IP address, the peer's or that of XCLIENT; empty on a unix socket
	hello   string // the client's name when it is a valid one
	bad     int    // wrong commands in a row
	begun   int    // transactions that MAIL began
	tx      *transaction
	forward forward // of XFORWARD, for the next transaction
	ended   bool    // the last command ended a transaction with a delivery

	conn     *timedConn
	farewell time.Time // until when a drained connection may stay; zero: it is not drained
}

// linger is how long the next command of a drained connection is waited for. Postfix keeps
// an idle connection for two seconds, lmtp_connection_cache_time_limit, and takes 421 in
// answer to a MAIL for a reason to put the message off by five minutes.
const linger = 2500 * time.Millisecond

// errQuit ends a session as agreed with the client.
var errQuit = errors.New("quit")

var (
	errDrain   = errors.New("draining")
	errTooLong = errors.New("command line too long")
	errEndless = errors.New("command line without an end")
)

var (
	readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readSize) }}
	writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, writeSize) }}
)

func newSession(h *Handler, c net.Conn) *session {
	s := &session{h: h, id: h.newID(), peer: remoteAddr(c)}
	s.remote = addrText(s.peer)
	s.log = h.Log
	if s.log == nil {
		s.log = slog.Default()
	}
	s.idle, _ = c.(idler)
	timed := &timedConn{Conn: c, timeout: h.Timeout}
	if timed.timeout == 0 {
		timed.timeout = DefaultTimeout
	}
	s.conn = timed
	s.r = readers.Get().(*bufio.Reader)
	s.r.Reset(timed)
	s.w = writers.Get().(*bufio.Writer)
	s.w.Reset(timed)
	return s
}

func (s *session) close() {
	s.endTransaction()
	s.r.Reset(nil)
	readers.Put(s.r)
	s.w.Reset(nil)
	writers.Put(s.w)
}

func (s *session) serve(ctx context.Context) error {
	s.reply(s.greeting())
	for {
		line, err := s.readLine()
		switch {
		case err == nil:
			err = s.command(ctx, line)
		case err == errTooLong:
			err = s.refuse("500 5.5.2 Line too long")
		default:
			return s.leave(err)
		}
		if err == errQuit {
			return nil
		}
		if err != nil {
			return s.leave(err)
		}
	}
}

func (s *session) greeting() string { return "220 " + s.h.Hostname + " dovepost ready." }

// leave says goodbye as far as the client still listens and returns err if that
// is worth telling.
func (s *session) leave(err error) error {
	switch {
	case err == errDrain:
		s.terminate("4.3.2", "Shutting down")
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.terminate("4.4.2", "Disconnected for inactivity")
		return nil
	case err == errEndless:
		s.reply("500 5.5.2 Line too long")
	case err == io.EOF: // Postfix closes its cached connections without QUIT
		return nil
	}
	return err
}

// terminate announces that the connection ends: RFC 5321 3.8.
func (s *session) terminate(enhanced, text string) {
	s.reply("421 " + enhanced + " " + s.h.Hostname + " " + text)
}

// readLine returns the next command without its line end. It is valid until the
// next read. Errors: errTooLong when the line was read past, errDrain, or what
// the connection returned, io.EOF only between two commands.
func (s *session) readLine() ([]byte, error) {
	if err := s.await(); err != nil {
		return nil, err
	}
	s.conn.within(s.conn.timeout)
	defer s.conn.within(0)
	line, err := s.r.ReadSlice('\n')
	tooLong := err == bufio.ErrBufferFull
	for skipped := 0; err == bufio.ErrBufferFull; skipped += readSize {
		if skipped > maxSkip {
			return nil, errEndless
		}
		_, err = s.r.ReadSlice('\n')
	}
	if err == io.EOF {
		return nil, io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	if tooLong {
		return nil, errTooLong
	}
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	if len(line) > maxLine {
		return nil, errTooLong
	}
	return line, nil
}

// await returns when octets of a command are there, or errDrain. Replies are sent only when the
// client has nothing more under way, so that those to a group of pipelined
// commands leave in one packet: RFC 2920 3.2.
func (s *session) await() error {
	if s.r.Buffered() > 0 {
		if !s.lineBuffered() {
			return s.w.Flush()
		}
		return nil
	}
	if err := s.w.Flush(); err != nil {
		return err
	}
	if s.idle == nil || s.tx != nil && s.tx.spool != nil {
		_, err := s.r.Peek(1)
		return err
	}
	if s.idle.SetIdle(true) != nil {
		return s.drain()
	}
	_, err := s.r.Peek(1)
	if errors.Is(err, os.ErrDeadlineExceeded) && s.idle.SetIdle(true) != nil {
		return s.drain()
	}
	s.idle.SetIdle(false)
	return err
}

// drain returns errDrain when the connection can end without harm to the client: it has
// its answer to a message and has not begun another one, or it was quiet for long enough.
// Until then it may use the connection for one message more.
func (s *session) drain() error {
	if s.ended {
		return errDrain
	}
	now := time.Now()
	if s.farewell.IsZero() {
		s.farewell = now.Add(linger)
	}
	rest := s.farewell.Sub(now)
	if s.tx != nil {
		rest = linger
	}
	if rest <= 0 {
		return errDrain
	}
	s.idle.SetIdle(false)
	usual := s.conn.timeout
	s.conn.timeout = min(rest, usual)
	_, err := s.r.Peek(1)
	s.conn.timeout = usual
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errDrain
	}
	return err
}

// lineBuffered reports whether a whole command was received.
func (s *session) lineBuffered() bool {
	p, _ := s.r.Peek(s.r.Buffered())
	return bytes.IndexByte(p, '\n') >= 0
}

func (s *session) reply(line string) {
	s.w.WriteString(line)
	s.w.WriteString("\r\n")
}

// refuse answers a command that was wrong in itself. After too many in a row the
// connection ends: what is read there is no LMTP.
func (s *session) refuse(line string) error {
	if s.bad++; s.bad > maxBad {
		s.terminate("4.7.0", "Too many invalid commands.")
		return errQuit
	}
	s.reply(line)
	return nil
}

// accept answers a command that was understood.
func (s *session) accept(line string) error {
	s.bad = 0
	s.reply(line)
	return nil
}

func (h *Handler) now() time.Time {
	if h.clock != nil {
		return h.clock()
	}
	return time.Now()
}

// enterDisk waits until n more files may be worked on, and reports whether they may: the system gives a process
// so many threads, and the end of them is the end of the process. leaveDisk ends the work.
func (h *Handler) enterDisk(n int, stop <-chan struct{}) bool {
	limit := cmp.Or(h.DiskWork, DefaultDiskWork)
	return h.usage.work.take(int64(min(n, limit)), 0, int64(limit), h.dataTimeout(), stop)
}

func (h *Handler) leaveDisk(n int) {
	h.usage.work.give(int64(min(n, cmp.Or(h.DiskWork, DefaultDiskWork))))
}

func (h *Handler) dataTimeout() time.Duration { return cmp.Or(h.DataTimeout, DefaultDataTimeout) }

func (h *Handler) observe(result string, took time.Duration) {
	if h.Observe != nil {
		h.Observe(result, took)
	}
}

func (h *Handler) newID() string {
	if h.ident != nil {
		return h.ident()
	}
	var b [16]byte
	rand.Read(b[:])
	return base64.RawStdEncoding.EncodeToString(b[:])
}

// enter counts one more open recipient of user, unless there are too many.
func (h *Handler) enter(user string) bool {
	if h.UserConcurrency == 0 {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.users[user] >= h.UserConcurrency {
		return false
	}
	if h.users == nil {
		h.users = make(map[string]int)
	}
	h.users[user]++
	return true
}

func (h *Handler) leave(user string) {
	if h.UserConcurrency == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.users[user]--; h.users[user] <= 0 {
		delete(h.users, user)
	}
}
