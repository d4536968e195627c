// Package socketmap serves and asks lookup tables over the protocol of Postfix socketmap_table(5).
//
// A request is a netstring with "NAME SP KEY", a reply is a netstring with
// "OK value", "NOTFOUND " or "TEMP reason". Requests of one connection are
// answered one after the other, in their order, also when a client sends
// several at once. Replies "TIMEOUT" and "PERM" exist in the protocol and are
// never sent: to Postfix the first is a TEMP, and the second makes it notify
// the postmaster.
//
// Postfix sends the whole key and as the user typed it: partial keys and case
// folding are the business of the map (package lookup/ladder). Connections are
// neither authenticated nor encrypted: listen on a unix socket or on loopback.
package socketmap

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"dovepost/lookup"
	"dovepost/lookup/internal/wire"
)

const (
	// readBuffer is what an idle connection keeps: room for an ordinary request.
	readBuffer = 512
)

// Handler answers the requests of Postfix. It must not be copied once in use.
type Handler struct {
	// Maps returns the maps by name. It is called for each request, so that the
	// maps can be exchanged while connections are open.
	Maps func() lookup.Maps
	// Timeout bounds one lookup; past it the answer is TEMP. 0 means 5 s. It must
	// stay far below the 100 s after which Postfix gives the connection up.
	Timeout time.Duration
	// Log takes warnings about lookups that failed, a few per second at most, and
	// each lookup at debug level; nil means slog.Default().
	Log *slog.Logger
	// Observe is told the outcome of each request: "found", "notfound" or "temp".
	// It may be nil.
	Observe func(result string, took time.Duration)

	quiet wire.Quiet
}

// ServeConn answers the requests on c until the peer closes it or the server
// drains (nil), or until c fails or breaks the framing (an error). It does not close c.
func (h *Handler) ServeConn(ctx context.Context, c net.Conn) error {
	s := &wire.Stream{Conn: c}
	r := bufio.NewReaderSize(s, readBuffer)
	for {
		if err := s.Await(r); err != nil {
			return wire.End(err)
		}
		request, err := readNetstring(r, maxRequest)
		if err != nil && err != errTooLong {
			return err
		}
		if err := h.reply(ctx, s, request, err); err != nil {
			return err
		}
	}
}

// reply answers one request; bad says that it could not be read.
func (h *Handler) reply(ctx context.Context, s *wire.Stream, request []byte, bad error) error {
	var start time.Time
	if h.Observe != nil {
		start = time.Now()
	}
	buf := replies.Get().(*[]byte)
	defer replies.Put(buf)
	var result string
	if bad != nil {
		*buf, result = appendTemp((*buf)[:0], "request too long"), "temp"
		h.warn("request too long", "", nil, bad)
	} else {
		*buf, result = h.appendAnswer(ctx, (*buf)[:0], request)
		if log := h.log(); log.Enabled(ctx, slog.LevelDebug) {
			log.Debug("socketmap", "request", string(request), "result", result)
		}
	}
	if h.Observe != nil {
		h.Observe(result, time.Since(start))
	}
	_, err := s.Write(*buf)
	if cap(*buf) > 4096 {
		*buf = nil // a rare large reply does not stay in the pool
	}
	return err
}

// replies holds buffers for replies, so that an idle connection needs none.
var replies = sync.Pool{New: func() any { return new([]byte) }}

// appendAnswer appends the reply to one request and names the outcome.
func (h *Handler) appendAnswer(ctx context.Context, dst, request []byte) ([]byte, string) {
	name, key, ok := bytes.Cut(request, []byte{' '})
	m := h.Maps()[string(name)]
	switch {
	case !ok:
		h.warn("malformed request", string(name), nil, nil)
		return appendTemp(dst, "malformed request"), "temp"
	case m == nil:
		h.warn("unknown map", string(name), key, nil)
		return appendTemp(dst, "unknown map"), "temp"
	case len(key) > maxKey:
		h.warn("key too long", string(name), key, nil)
		return appendTemp(dst, "key too long"), "temp"
	}
	values, err := wire.Ask(ctx, m, key, h.Timeout)
	switch {
	case err == nil:
		size, flaw := check(values)
		if flaw != "" {
			h.warn(flaw, string(name), key, nil)
			return appendTemp(dst, flaw), "temp"
		}
		return appendOK(dst, values, size), "found"
	case errors.Is(err, lookup.ErrNotFound):
		return append(dst, "9:NOTFOUND ,"...), "notfound"
	case errors.Is(err, context.DeadlineExceeded):
		h.warn("lookup timed out", string(name), key, err)
		return appendTemp(dst, "lookup timed out"), "temp"
	default:
		h.warn("lookup failed", string(name), key, err)
		return appendTemp(dst, "lookup failed"), "temp"
	}
}

// check returns the length of values when joined with commas, or why Postfix
// must not see them. An empty value would be a configuration error to it, a NUL
// would cut the value short.
func check(values []string) (size int, flaw string) {
	size = len(values) - 1
	for _, v := range values {
		switch {
		case !utf8.ValidString(v):
			return 0, "value is not UTF-8"
		case strings.IndexByte(v, 0) >= 0:
			return 0, "value has a NUL"
		}
		size += len(v)
	}
	switch {
	case size <= 0:
		return 0, "empty value"
	case size > maxReply-len("OK "):
		return 0, "value too long"
	}
	return size, ""
}

// appendOK appends the reply with values, which are size octets when joined.
func appendOK(dst []byte, values []string, size int) []byte {
	dst = strconv.AppendInt(dst, int64(len("OK ")+size), 10)
	dst = append(dst, ":OK "...)
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, v...)
	}
	return append(dst, ',')
}

// appendTemp appends "try again later". The reason ends in the log of Postfix.
func appendTemp(dst []byte, reason string) []byte {
	dst = strconv.AppendInt(dst, int64(len("TEMP ")+len(reason)), 10)
	dst = append(dst, ":TEMP "...)
	dst = append(dst, reason...)
	return append(dst, ',')
}

// warn logs a request that got no proper answer, unless many did a moment ago.
func (h *Handler) warn(what, name string, key []byte, err error) {
	unsaid, ok := h.quiet.Allow(time.Now())
	if !ok {
		return
	}
	args := []any{"map", name, "key", string(key[:min(len(key), 200)])}
	if err != nil {
		args = append(args, "err", err)
	}
	if unsaid > 0 {
		args = append(args, "unsaid", unsaid)
	}
	h.log().Warn("socketmap: "+what, args...)
}

func (h *Handler) log() *slog.Logger {
	if h.Log == nil {
		return slog.Default()
	}
	return h.Log
}
