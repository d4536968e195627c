// Package tcptable serves a lookup table over the protocol of Postfix tcp_table(5).
//
// A request is the line "get SP key LF", a reply one of "200 SP value LF",
// "500 SP text LF" (not found) and "400 SP text LF" (try again later). Lines have
// at most 4096 octets with their newline; key, value and text are written with
// %XX. No name of a map is in a request, so each map needs a listener of its own.
//
// Prefer socketmap: after an error Postfix tries up to ten times, a second apart,
// and while it does so the mail waits.
//
// Postfix sends the whole key and as the user typed it: partial keys and case
// folding are the business of the map (package lookup/ladder). Connections are
// neither authenticated nor encrypted: bind to loopback.
package tcptable

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"
	"unicode/utf8"

	"dovepost/lookup"
	"dovepost/lookup/internal/wire"
)

const (
	// maxSkip is the longest line that is read and thrown away for the sake of the next one.
	maxSkip = 1 << 20
)

// Handler answers the requests of Postfix for one map. It must not be copied once in use.
type Handler struct {
	// Map returns the map, or nil when there is none (then every answer is 400). It
	// is called for each request, so that the map can be exchanged while
	// connections are open.
	Map func() lookup.Map
	// Timeout bounds one lookup; past it the answer is 400. 0 means 5 s.
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
// drains (nil), or until c fails (an error). It does not close c.
func (h *Handler) ServeConn(ctx context.Context, c net.Conn) error {
	s := &wire.Stream{Conn: c}
	r := bufio.NewReaderSize(s, maxLine)
	var reply []byte
	for {
		if err := s.Await(r); err != nil {
			return wire.End(err)
		}
		line, err := readLine(r)
		if err != nil && err != bufio.ErrBufferFull {
			return err
		}
		if reply, err = h.reply(ctx, s, reply[:0], line, err); err != nil {
			return err
		}
	}
}

// readLine reads one line and returns it without its newline. It is good until the
// next read from r. bufio.ErrBufferFull: the line was too long and has been skipped.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if err == nil {
		return line[:len(line)-1], nil
	}
	for skipped := len(line); err == bufio.ErrBufferFull; skipped += len(line) {
		if skipped > maxSkip {
			return nil, errors.New("endless line")
		}
		if line, err = r.ReadSlice('\n'); err == nil {
			return nil, bufio.ErrBufferFull
		}
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return nil, err
}

// reply answers one request; bad says that it was too long. It returns the buffer.
func (h *Handler) reply(ctx context.Context, s *wire.Stream, buf, line []byte, bad error) ([]byte, error) {
	var start time.Time
	if h.Observe != nil {
		start = time.Now()
	}
	var result string
	if bad != nil {
		h.warn("request too long", nil, nil)
		buf, result = append(buf, "400 request%20too%20long\n"...), "temp"
	} else {
		buf, result = h.appendAnswer(ctx, buf, line)
	}
	if h.Observe != nil {
		h.Observe(result, time.Since(start))
	}
	_, err := s.Write(buf)
	return buf, err
}

// appendAnswer appends the reply to one request and names the outcome.
func (h *Handler) appendAnswer(ctx context.Context, dst, line []byte) ([]byte, string) {
	temp := func(what string, key []byte, err error) ([]byte, string) {
		h.warn(what, key, err)
		return append(appendEncoded(append(dst, "400 "...), what), '\n'), "temp"
	}
	verb, key, ok := bytes.Cut(line, []byte{' '})
	if !ok || string(verb) != "get" {
		return temp("unknown request", line, nil)
	}
	key, err := decode(key)
	if err != nil {
		return temp("malformed key", nil, err)
	}
	m := h.Map()
	if m == nil {
		return temp("unknown map", nil, nil)
	}
	values, err := wire.Ask(ctx, m, key, h.Timeout)
	if log := h.log(); log.Enabled(ctx, slog.LevelDebug) {
		log.Debug("tcp_table", "key", string(key), "values", len(values), "err", err)
	}
	switch {
	case err == nil:
		reply, flaw := appendFound(dst, values)
		if flaw != "" {
			return temp(flaw, key, nil)
		}
		return reply, "found"
	case errors.Is(err, lookup.ErrNotFound):
		return append(dst, "500 not%20found\n"...), "notfound"
	case errors.Is(err, context.DeadlineExceeded):
		return temp("lookup timed out", key, err)
	default:
		return temp("lookup failed", key, err)
	}
}

// appendFound appends the reply with values, joined with commas, or says why
// Postfix must not see them: an empty value would be a configuration error to
// it, a NUL would cut the value short, a line too long would be asked for again
// and again.
func appendFound(dst []byte, values []string) (reply []byte, flaw string) {
	start := len(dst)
	reply = append(dst, "200 "...)
	for i, v := range values {
		switch {
		case !utf8.ValidString(v):
			return dst, "value is not UTF-8"
		case strings.IndexByte(v, 0) >= 0:
			return dst, "value has a NUL"
		case len(v) >= maxLine:
			return dst, "value too long"
		}
		if i > 0 {
			reply = append(reply, ',')
		}
		reply = appendEncoded(reply, v)
	}
	reply = append(reply, '\n')
	switch n := len(reply) - start; {
	case n == len("200 \n"):
		return dst, "empty value"
	case n > maxLine:
		return dst, "value too long"
	}
	return reply, ""
}

// warn logs a request that got no proper answer, unless many did a moment ago.
func (h *Handler) warn(what string, key []byte, err error) {
	unsaid, ok := h.quiet.Allow(time.Now())
	if !ok {
		return
	}
	args := []any{"key", string(key[:min(len(key), 200)])}
	if err != nil {
		args = append(args, "err", err)
	}
	if unsaid > 0 {
		args = append(args, "unsaid", unsaid)
	}
	h.log().Warn("tcp_table: "+what, args...)
}

func (h *Handler) log() *slog.Logger {
	if h.Log == nil {
		return slog.Default()
	}
	return h.Log
}
