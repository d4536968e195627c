package main

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"dovepost/auth"
	"dovepost/auth/guard"
	"dovepost/cmd/internal/daemon"
	"dovepost/cmd/internal/database"
)

// cacheSettings are the flags that concern what is remembered of the database and of
// logins.
type cacheSettings struct {
	rows         database.CacheSettings
	verifiedTTL  time.Duration
	verifiedSize int64
}

func (s *cacheSettings) cacheFlags(fs *pflag.FlagSet) {
	s.rows.Flags(fs)
	daemon.DurationVar(fs, &s.verifiedTTL, "auth_cache_verified_ttl", time.Hour, "how long a password that was right is not compared with the same hash again; 0: always")
	daemon.SizeVar(fs, &s.verifiedSize, "auth_cache_verified_size", 16<<20, "bound of what is remembered for that, in `octets`")
}

// checkCache finds settings that cannot be right.
func (s *cacheSettings) checkCache() error {
	switch {
	case s.verifiedTTL < 0:
		return fmt.Errorf("auth_cache_verified_ttl: %v is negative", s.verifiedTTL)
	case s.verifiedSize < 0:
		return fmt.Errorf("auth_cache_verified_size: %d is negative", s.verifiedSize)
	}
	return s.rows.Check()
}

// newCaches makes the caches, and publishes their figures.
func (a *authd) newCaches() {
	a.cache = a.rows.New(a.lookupTimeout, a.env.Log)
	a.verified = guard.NewVerified(a.verifiedTTL, a.verifiedSize)
	a.env.Metrics.Cache("users", a.cache.Stats)
	a.env.Metrics.Cache("verified", a.verified.Stats)
}

// recall has what s asks about users answered by the cache.
func (a *authd) recall(s *state) {
	for _, db := range s.all {
		db.Recall(database.Recall(a.cache, "passdb"), database.Recall(a.cache, "userdb"))
	}
	if s.appPasswords != nil {
		s.appPasswords.Recall(database.Recall(a.cache, "apppasswords"))
	}
}

// ahead is what is asked about users before a master does; nil if nobody would remember it.
func (a *authd) ahead() auth.Userdb {
	if a.rows.Fresh <= 0 || a.rows.Size <= 0 {
		return nil
	}
	return a.lookup
}

// flush is CACHE-FLUSH: it forgets the users, or all, and returns how many rows those
// were. Which passwords were right is forgotten of all users, which harms nobody.
func (a *authd) flush(users []string) int {
	for i, user := range users {
		if name, err := a.names.Canonical(user); err == nil {
			users[i] = name
		}
	}
	a.verified.Forget()
	return database.Flush(a.cache, users)
}

// usr1 tells the log how the caches fare.
func (a *authd) usr1() {
	hits, stale, misses, entries, bytes := a.cache.Stats()
	a.env.Log.Info("cache", "hits", hits, "stale", stale, "misses", misses, "entries", entries, "bytes", bytes, "limit", a.rows.Size)
	hits, _, misses, entries, _ = a.verified.Stats()
	a.env.Log.Info("verified passwords", "hits", hits, "misses", misses, "entries", entries)
}
