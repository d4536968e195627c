package sqldb

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"dovepost/lookup/mysql"
	"dovepost/policy/rules"
)

// Shield is a rules.ShieldStore in the tables shield_accounts and shield_networks.
type Shield struct{ db *DB }

// Shield returns the tables of the rule shield.
func (db *DB) Shield() *Shield { return &Shield{db} }

const (
	// An age is by the server's own clock.
	shieldLoad = "SELECT 'state' AS kind, state AS text, CAST(CEILING(UNIX_TIMESTAMP(changed)) AS SIGNED) AS at, UNIX_TIMESTAMP() AS now FROM shield_accounts WHERE login = ?" +
		" UNION ALL SELECT 'network', network, seen, UNIX_TIMESTAMP() FROM shield_networks WHERE login = ? AND seen >= UNIX_TIMESTAMP() - ?"
	shieldSee = "INSERT INTO shield_networks (login, network, seen) VALUES (?, ?, UNIX_TIMESTAMP())" +
		" ON DUPLICATE KEY UPDATE seen = GREATEST(seen, VALUES(seen))"
	shieldHold = "INSERT INTO shield_accounts (login, state, reason) VALUES (?, 'held', ?)" +
		" ON DUPLICATE KEY UPDATE reason = IF(state = 'released', VALUES(reason), reason), state = IF(state = 'released', 'held', state)"
	shieldPurge = "DELETE FROM shield_networks WHERE seen < UNIX_TIMESTAMP() - ? LIMIT 1000"
)

// maxReason is the length of the column.
const maxReason = 255

// Statements are those of the tables, to be prepared at start.
func (*Shield) Statements() []string {
	return []string{shieldLoad, shieldSee, shieldHold, shieldPurge}
}

// Load implements rules.ShieldStore.
func (s *Shield) Load(ctx context.Context, login string, window time.Duration) (rules.ShieldRecord, error) {
	r := rules.ShieldRecord{Networks: map[string]time.Duration{}}
	rows, err := s.db.Query(ctx, shieldLoad, login, login, int64(window/time.Second))
	if err != nil {
		return r, fmt.Errorf("shield: %w", err)
	}
	for _, v := range rows.Values {
		age := time.Duration(number(v[3])-number(v[2])) * time.Second
		if v[0].String == "state" {
			r.State, r.Age = v[1].String, age
		} else {
			r.Networks[v[1].String] = max(0, age)
		}
	}
	return r, nil
}

// See implements rules.ShieldStore.
func (s *Shield) See(ctx context.Context, login, network string) error {
	_, err := s.db.update(ctx, shieldSee, login, network)
	return err
}

// Hold implements rules.ShieldStore.
func (s *Shield) Hold(ctx context.Context, login, reason string) (news bool, err error) {
	if len(reason) > maxReason {
		reason = reason[:maxReason]
	}
	n, err := s.db.update(ctx, shieldHold, login, reason)
	return n > 0, err
}

// Purge deletes networks that were last seen longer ago than age, a bounded number of them, and
// reports whether there may be more.
func (s *Shield) Purge(ctx context.Context, age time.Duration) (more bool, err error) {
	n, err := s.db.update(ctx, shieldPurge, int64(age/time.Second))
	return n >= purged, err
}

// Lock is a statement of the administrator's that locks an account.
type Lock struct {
	db       *DB
	template *mysql.Template[byte]
}

// Lock compiles the statement: %u is the login, %n what is before its last @, %d what is behind, %% is %.
// All are bound. Errors say what cannot be understood or bound.
func (db *DB) Lock(text string) (*Lock, error) {
	t, err := mysql.Compile(text, func(s string) (mysql.Variable[byte], error) {
		switch {
		case strings.HasPrefix(s, "%%"):
			return mysql.Variable[byte]{Len: 2, Literal: true}, nil
		case len(s) > 1 && strings.IndexByte("und", s[1]) >= 0:
			return mysql.Variable[byte]{Len: 2, Value: s[1]}, nil
		}
		return mysql.Variable[byte]{}, errors.New("want %u, %n, %d or %%")
	})
	switch {
	case err != nil:
		return nil, err
	case t.Direct() || t.Names():
		return nil, errors.New("a variable stands where nothing can be bound")
	case len(text) < 6 || !strings.EqualFold(text[:6], "UPDATE"):
		return nil, errors.New("it is no UPDATE")
	}
	if _, args, err := t.Expand(func(byte) string { return "1" }); err != nil || len(args) == 0 {
		return nil, errors.New("it has no variable: it would lock everybody")
	}
	return &Lock{db, t}, nil
}

// Prepare has the server look at the statement.
func (l *Lock) Prepare(ctx context.Context) error {
	return l.template.Prepare(ctx, l.db.pool, func(byte) string { return "1" })
}

// Lock locks an account and returns how many rows that has changed: none, if there is no such
// account, or if it is locked already.
func (l *Lock) Lock(ctx context.Context, login string) (changed int64, err error) {
	name, domain := login, ""
	if at := strings.LastIndexByte(login, '@'); at >= 0 {
		name, domain = login[:at], login[at+1:]
	}
	values := map[byte]string{'u': login, 'n': name, 'd': domain}
	err = l.db.breaker.Do(ctx, func(ctx context.Context) error {
		for try := 0; ; try++ {
			if changed, err = l.template.Exec(ctx, l.db.pool, func(v byte) string { return values[v] }); !deadlocked(err) || try == 4 {
				return err
			}
		}
	})
	if err != nil {
		return 0, fmt.Errorf("shield_lock_query: %w", err)
	}
	return changed, nil
}
