package notify

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"mime"
	"mime/quotedprintable"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"
)

// started returns a Notifier whose messages come out of the channel, after as many errors as
// there are.
func started(t *testing.T, limit int, fail ...error) (*Notifier, <-chan string) {
	t.Helper()
	out := make(chan string, queueSize+1)
	n := &Notifier{From: "policyd <postmaster@mail.example.com>", To: "admin@example.com", Host: "mail.example.com", Limit: limit,
		Log: slog.New(slog.DiscardHandler),
		Send: func(_ context.Context, text []byte) error {
			if len(fail) > 0 {
				err := fail[0]
				fail = fail[1:]
				return err
			}
			out <- string(text)
			return nil
		}}
	n.Start()
	t.Cleanup(n.Close)
	return n, out
}

func read(t *testing.T, text string) (*mail.Message, string) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil {
		t.Fatal(err)
	}
	return m, string(body)
}

func TestAMessageIsWellFormed(t *testing.T) {
	n, out := started(t, 0)
	long := strings.Repeat("größer ", 400)
	for _, tt := range []struct{ name, subject, body, wantSubject, wantBody string }{
		{"plain text", "account a@b is on hold", "for 3 networks\n", "account a@b is on hold", "for 3 networks\n"},
		{"a dot alone", "x", "a\n.\nb\n", "x", "a\n.\nb\n"},
		{"a header in the subject", "x\r\nBcc: everybody@example.com\n\nbody", "y", "x  Bcc: everybody@example.com  body", "y"},
		{"no UTF-8", "x\xff", "y\xff", "x?", "y?"},
		{"a NUL", "x\x00y", "a\x00b", "x y", "a\x00b"},
		{"long lines", long, long, strings.ToValidUTF8(long[:maxSubject], ""), long},
	} {
		if err := n.Notify(t.Context(), tt.subject, tt.body); err != nil {
			t.Fatal(err)
		}
		text := <-out
		m, body := read(t, text)
		subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
		if err != nil || subject != tt.wantSubject || body != tt.wantBody || len(m.Header) != 9 {
			t.Errorf("it handles %s: subject %q, %d headers, body %q, %v", tt.name, subject, len(m.Header), body, err)
		}
		for line := range strings.Lines(text) {
			if len(line) > 998 || strings.Contains(line, "\r") {
				t.Errorf("it handles %s: line %.60q of %d octets", tt.name, line, len(line))
			}
		}
	}
}

func TestALimitHolds(t *testing.T) {
	n, out := started(t, 2)
	now := time.Unix(1e9, 0)
	n.Now = func() time.Time { return now }
	for i, want := range []error{nil, nil, ErrTooMany, ErrTooMany} {
		if err := n.Notify(t.Context(), "s", "b"); err != want {
			t.Errorf("notification %d: %v; want %v", i, err, want)
		}
	}
	<-out
	<-out
	now = now.Add(time.Hour)
	if err := n.Notify(t.Context(), "s", "b"); err != nil {
		t.Errorf("after an hour: %v", err)
	}
	if _, body := read(t, <-out); !strings.Contains(body, "2 notifications before this one were left out") {
		t.Errorf("body %q", body)
	}
}

func TestAMessageIsTriedAgain(t *testing.T) {
	n, out := started(t, 0, errors.New("refused"))
	if err := n.Notify(t.Context(), "s", "b"); err != nil {
		t.Fatal(err)
	}
	<-out
}

func TestAFinalErrorIsFinal(t *testing.T) {
	final := errors.New("550 no such user")
	n, out := started(t, 0, final)
	n.Final = func(err error) bool { return err == final }
	_ = n.Notify(t.Context(), "lost", "")
	_ = n.Notify(t.Context(), "second", "")
	if m, _ := read(t, <-out); m.Header.Get("Subject") != "second" {
		t.Errorf("got %q", m.Header.Get("Subject"))
	}
}

// A mail server that hangs costs nobody anything, and the queue has an end.
func TestNobodyWaits(t *testing.T) {
	hanging := make(chan struct{})
	var once sync.Once
	n := &Notifier{Log: slog.New(slog.DiscardHandler), Send: func(ctx context.Context, _ []byte) error {
		once.Do(func() { close(hanging) })
		<-ctx.Done()
		return ctx.Err()
	}, Final: func(error) bool { return true }}
	n.Start()
	_ = n.Notify(t.Context(), "s", "b")
	<-hanging
	for range queueSize {
		if err := n.Notify(t.Context(), "s", "b"); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Notify(t.Context(), "s", "b"); err != ErrTooMany {
		t.Errorf("%v; want %v", err, ErrTooMany)
	}
	n.cancel()
	n.Close()
	if err := n.Notify(t.Context(), "s", "b"); err != ErrClosed {
		t.Errorf("%v; want %v", err, ErrClosed)
	}
}

func TestNilTellsNobody(t *testing.T) {
	var n *Notifier
	if err := n.Notify(t.Context(), "s", "b"); err != nil {
		t.Error(err)
	}
	n.Close()
}
