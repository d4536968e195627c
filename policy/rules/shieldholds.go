package rules

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// ShieldHolds bounds how many accounts one process holds within an hour. It is safe for concurrent use.
type ShieldHolds struct {
	mu    sync.Mutex // guards what follows
	most  int
	times []time.Time // of the last hour
	full  bool        // somebody was told
}

// NewShieldHolds makes a bound; 0: none.
func NewShieldHolds(most int) *ShieldHolds { return &ShieldHolds{most: most} }

// DefaultShieldHolds is more than are stolen in an hour where nothing has gone wrong.
const DefaultShieldHolds = 10

const shieldHour = time.Hour

// take takes the room for one account. news: there is none, for the first time since there was.
func (h *ShieldHolds) take(now time.Time) (room, news bool) {
	if h == nil {
		return true, false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.most <= 0 {
		return true, false
	}
	for len(h.times) > 0 && now.Sub(h.times[0]) >= shieldHour {
		h.times = h.times[1:]
	}
	if len(h.times) >= h.most {
		news, h.full = !h.full, true
		return false, news
	}
	h.times, h.full = append(h.times, now), false
	return true, false
}

// spare tells of an account that is not held although it should be: the log once an hour for each, and, if it is the first,
// the administrator.
func (s *Shield) spare(login, reason string, news bool) {
	now := s.now()
	if !s.spared.has(login, now) {
		s.spared.add(login, now.Add(shieldHour), shieldAccounts)
		s.log().Warn("account not put on hold: shield_max_holds", "login", login, "reason", reason)
	}
	if !news || s.Notify == nil {
		return
	}
	body := fmt.Sprintf("The account %s %s.\n\nIt is not put on hold: within the last hour as many accounts were as shield_max_holds lets policyd hold. "+
		"Either that many are stolen, or something else makes all look so, such as recipients that are refused to everybody. "+
		"The log names the others. Those that are held:\n\n  SELECT * FROM shield_accounts WHERE state = 'held';\n", login, reason)
	s.later(func(ctx context.Context) error {
		if err := s.Notify(ctx, "no more accounts are put on hold", body); err != nil {
			s.log().Warn("nobody is told that no more accounts are put on hold", "err", err)
		}
		return nil
	})
}

// hold holds an account, here at once, in the store and elsewhere soon, and locks it if lock is set.
func (s *Shield) hold(login, reason string, lock bool) {
	s.mu.Lock()
	a := s.account(login)
	if a.state == ShieldHeld || a.state == ShieldExempt {
		s.mu.Unlock()
		return
	}
	if room, news := s.Holds.take(s.now()); !room {
		s.mu.Unlock()
		s.spare(login, reason, news)
		return
	}
	a.state, a.pending = ShieldHeld, true
	s.mu.Unlock()
	s.log().Warn("account put on hold", "login", login, "reason", reason, "action", s.Action.String())
	lock = lock && s.Lock != nil
	s.later(func(ctx context.Context) error {
		news, err := s.Store.Hold(ctx, AccountKey(login), reason)
		if err != nil {
			return fmt.Errorf("holding %s: %w", login, err)
		}
		s.mu.Lock()
		a.pending = false
		s.mu.Unlock()
		if !news { // another machine was faster, or the account is exempt
			return nil
		}
		if lock {
			s.later(func(ctx context.Context) error { return s.lock(ctx, login) })
		}
		if s.Notify != nil {
			s.notify(ctx, login, reason, lock)
		}
		return nil
	})
}

func (s *Shield) lock(ctx context.Context, login string) error {
	if err := s.Lock(ctx, login); err != nil {
		return fmt.Errorf("locking %s: %w", login, err)
	}
	return nil
}

func (s *Shield) notify(ctx context.Context, login, reason string, locked bool) {
	body := fmt.Sprintf("The account %s %s.\n\nIts mail is answered with %s by policyd", login, reason, s.Action)
	if locked {
		body += ", and it is being locked"
	}
	body += fmt.Sprintf(".\n\nTo release it:\n\n  UPDATE shield_accounts SET state = 'released' WHERE login = '%s';\n\nMail on hold is seen with postqueue -p and released with postsuper -H.\n",
		strings.NewReplacer("'", "''", `\`, `\\`).Replace(AccountKey(login)))
	if err := s.Notify(ctx, "account put on hold: "+login, body); err != nil {
		s.log().Warn("nobody is told of an account that was put on hold", "login", login, "err", err)
	}
}
