package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"dovepost/lmtp"
)

func (s *session) rcpt(ctx context.Context, arg string) error {
	switch {
	case s.tx == nil:
		return s.refuse("503 5.5.0 MAIL needed first")
	case s.tx.spool != nil:
		return s.refuse("503 5.5.0 Bad sequence of commands")
	}
	if !hasKeyword(arg, "TO:") {
		return s.refuse("501 5.5.4 Invalid parameters")
	}
	to, rest, err := parseRecipient(arg[len("TO:"):])
	if err != nil {
		return s.refuse("501 5.5.4 Invalid TO: " + err.Error())
	}
	orcpt, err := parseRcptParams(rest)
	if err != nil {
		return s.refuseParam(err)
	}
	limit := s.h.MaxRecipients
	if limit == 0 {
		limit = DefaultMaxRecipients
	}
	if len(s.tx.rcpts) >= limit {
		return s.accept("452 4.5.3 Too many recipients")
	}
	s.tx.tried++
	return s.accept(s.addRecipient(ctx, to, orcpt))
}

// addRecipient asks the resolver for a recipient and returns the reply.
func (s *session) addRecipient(ctx context.Context, to, orcpt Address) string {
	start := time.Now()
	r := recipient{address: to, orcpt: orcpt, text: to.String(), first: -1, id: s.tx.id}
	if s.tx.tried > 1 {
		r.id += ":R" + strconv.Itoa(s.tx.tried)
	}
	if i := s.tx.find(to, orcpt); i >= 0 {
		r.first, r.mailbox = i, s.tx.rcpts[i].mailbox
	} else {
		mb, err := s.resolve(ctx, r.text)
		if errors.Is(err, lmtp.ErrUnknownUser) {
			user, _ := to.Split(s.h.RecipientDelimiter)
			s.log.Info("unknown user", "session", r.id, "from", s.tx.env.Sender, "to", r.text, "user", user)
			s.h.observe("unknown", time.Since(start))
			return fmt.Sprintf("550 5.1.1 <%s> User doesn't exist: %s", r.text, user)
		}
		if err != nil {
			s.log.Error("recipient deferred", "session", r.id, "from", s.tx.env.Sender, "to", r.text, "err", err)
			s.h.observe("temp", time.Since(start))
			return fmt.Sprintf("451 4.3.0 <%s> Temporary internal error", r.text)
		}
		r.mailbox = mb
	}
	if !s.h.enter(r.mailbox.User) {
		s.log.Warn("recipient deferred", "session", r.id, "from", s.tx.env.Sender, "to", r.text,
			"user", r.mailbox.User, "err", "lmtp_user_concurrency_limit is reached")
		s.h.observe("temp", time.Since(start))
		return fmt.Sprintf("451 4.3.0 <%s> Too many concurrent deliveries for user", r.text)
	}
	if status := s.checkRoom(ctx, &r); status != nil {
		s.h.leave(r.mailbox.User)
		s.h.observe(resultOf(status), time.Since(start))
		return s.fail(&r, status)
	}
	s.tx.rcpts = append(s.tx.rcpts, r)
	s.tx.env.Recipients = append(s.tx.env.Recipients, r.text)
	return "250 2.1.5 OK"
}

// checkRoom asks whether there is room for the message and returns the refusal, or nil.
func (s *session) checkRoom(ctx context.Context, r *recipient) *lmtp.Status {
	if s.h.Room == nil || r.first >= 0 {
		return nil
	}
	err := s.hasRoom(ctx, r.mailbox)
	if err == nil {
		return nil
	}
	level, status := slog.LevelWarn, statusOf(err)
	if status == nil {
		level, status = slog.LevelError, lmtp.ErrTempFail
	}
	s.log.Log(ctx, level, "no room", "session", r.id, "from", s.tx.env.Sender, "to", r.text,
		"user", r.mailbox.User, "size", s.tx.announced, "err", err)
	return status
}

// hasRoom asks Room; a panic there is its error.
func (s *session) hasRoom(ctx context.Context, mb *lmtp.Mailbox) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked(p)
		}
	}()
	return s.h.Room.HasRoom(ctx, mb, s.tx.announced)
}

// resolve asks the resolver; a panic there is its error.
func (s *session) resolve(ctx context.Context, rcpt string) (mb *lmtp.Mailbox, err error) {
	defer func() {
		if p := recover(); p != nil {
			mb, err = nil, panicked(p)
		}
	}()
	mb, err = s.h.Resolver.Resolve(ctx, rcpt)
	if err == nil && mb == nil {
		err = errors.New("resolver: no mailbox and no error")
	}
	return mb, err
}
