package main

import (
	"log/slog"

	"github.com/spf13/pflag"
)

// ignoredSettings are those of Dovecot's auth service that a site may carry over, and
// that have nothing to say here.
type ignoredSettings struct {
	cacheSize, cacheTTL, cacheNegativeTTL string
}

func (s *ignoredSettings) ignoredFlags(fs *pflag.FlagSet) {
	const why = "taken and without effect: rows are fresh for 2s and last while the database is away, see auth_cache_verified_ttl"
	fs.StringVar(&s.cacheSize, "auth_cache_size", "", why)
	fs.StringVar(&s.cacheTTL, "auth_cache_ttl", "", why)
	fs.StringVar(&s.cacheNegativeTTL, "auth_cache_negative_ttl", "", why)
}

// warn says which of them are set.
func (s *ignoredSettings) warn(log *slog.Logger) {
	for _, set := range []struct{ name, value string }{
		{"auth_cache_size", s.cacheSize}, {"auth_cache_ttl", s.cacheTTL}, {"auth_cache_negative_ttl", s.cacheNegativeTTL},
	} {
		if set.value != "" && set.value != "0" {
			log.Warn("setting without effect: what is cached follows the database within 2s", "setting", set.name)
		}
	}
}
