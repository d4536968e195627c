package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"dovepost/lmtp"
	"dovepost/lmtp/filter/submission"
	"dovepost/policy/notify"
)

// notifySettings say whom the rules tell what they have done.
type notifySettings struct {
	to, from, via string
	limit         int
}

func (s *notifySettings) flags(fs *pflag.FlagSet) {
	fs.StringVar(&s.to, "notify_to", "", "`address` that is told by mail when a rule takes an account out of service; empty: the log alone")
	fs.StringVar(&s.from, "notify_from", "", "`address` in From; empty: postmaster at this host. The envelope has the null sender")
	fs.StringVar(&s.via, "notify_via", "127.0.0.1:25", "`host:port` that takes these messages, or the path of a program like sendmail")
	fs.IntVar(&s.limit, "notify_limit", 20, "messages of an hour; 0: no limit")
}

// notifier makes what sends the messages; nil if nobody is to be told. It must be started.
func (s *notifySettings) notifier(log *slog.Logger) (*notify.Notifier, error) {
	if s.to == "" {
		return nil, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("the host's name: %w", err)
	}
	n := &notify.Notifier{To: s.to, From: s.from, Host: host, Limit: s.limit, Log: log, Final: refused}
	if n.From == "" {
		n.From = "policyd <postmaster@" + host + ">"
	}
	for _, a := range []struct{ name, value string }{{"notify_to", n.To}, {"notify_from", n.From}} {
		if !strings.Contains(a.value, "@") || strings.ContainsFunc(a.value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, fmt.Errorf("%s: %q is not an address", a.name, a.value)
		}
	}
	var sender lmtp.Sender = &submission.SMTP{Addr: s.via, Hello: host}
	if filepath.IsAbs(s.via) {
		sender = &submission.Sendmail{Path: s.via}
	} else if _, _, err := net.SplitHostPort(s.via); err != nil {
		return nil, fmt.Errorf("notify_via: want host:port or the path of a program: %w", err)
	}
	if s.limit < 0 {
		return nil, fmt.Errorf("notify_limit: %d is negative", s.limit)
	}
	n.Send = func(ctx context.Context, message []byte) error {
		return sender.Send(ctx, "", s.to, lmtp.Text(message))
	}
	return n, nil
}

// refused reports whether the mail server has said that it will never take a message.
func refused(err error) bool {
	var reply *textproto.Error
	return errors.As(err, &reply) && reply.Code >= 500
}
