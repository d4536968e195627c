package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
)

// newLogger writes one line a record. When the journal reads w, each line begins
// with its priority, sd-daemon(3), and carries no time of its own.
func newLogger(w io.Writer, level slog.Level, journal bool) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if !journal {
		return slog.New(slog.NewTextHandler(w, options))
	}
	options.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}
	line := &journalLine{w: w}
	return slog.New(&journalHandler{slog.NewTextHandler(&line.buf, options), line})
}

// journalLine is the line that is being written, shared by a handler and its children.
type journalLine struct {
	mu  sync.Mutex // guards buf and the order of writes
	buf bytes.Buffer
	w   io.Writer
}

type journalHandler struct {
	text slog.Handler // writes to line.buf
	line *journalLine
}

func (h *journalHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.text.Enabled(ctx, l)
}

func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	h.line.mu.Lock()
	defer h.line.mu.Unlock()
	h.line.buf.Reset()
	h.line.buf.WriteString(priority(r.Level))
	if err := h.text.Handle(ctx, r); err != nil {
		return err
	}
	_, err := h.line.w.Write(h.line.buf.Bytes())
	return err
}

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &journalHandler{h.text.WithAttrs(attrs), h.line}
}

func (h *journalHandler) WithGroup(name string) slog.Handler {
	return &journalHandler{h.text.WithGroup(name), h.line}
}

func priority(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "<3>"
	case l >= slog.LevelWarn:
		return "<4>"
	case l >= slog.LevelInfo:
		return "<6>"
	}
	return "<7>"
}

// journalReads reports whether stderr is the journal: systemd.exec(5), JOURNAL_STREAM.
func journalReads(stderr *os.File) bool {
	var st syscall.Stat_t
	if syscall.Fstat(int(stderr.Fd()), &st) != nil {
		return false
	}
	return os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

func parseLevel(s string) (slog.Level, error) {
	var l slog.Level
	switch s = strings.ToLower(s); s {
	case "debug", "info", "warn", "error":
		return l, l.UnmarshalText([]byte(s))
	}
	return l, fmt.Errorf("log_level %q: want debug, info, warn or error", s)
}
