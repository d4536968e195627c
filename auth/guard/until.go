package guard

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"dovepost/auth"
)

// maxUntil is Dovecot's AUTH_REQUEST_MAX_DELAY_SECS.
const maxUntil = 5 * time.Minute

// checkUntil returns why the delay_until of a row lets nobody in, or nothing.
func checkUntil(row *auth.Credentials) string {
	_, why := delayUntil(row, time.Now())
	return why
}

// delayUntil returns how long, at now, a right password has to wait for its answer:
// delay_until is a Unix time, and behind a plus sign the bound of some seconds more,
// at random. As in Dovecot, a time that has passed says nothing, and one that cannot
// be read, or is further away than five minutes, is a reason to let nobody in.
func delayUntil(row *auth.Credentials, now time.Time) (wait time.Duration, why string) {
	value, ok := row.Fields.Get("delay_until")
	if !ok {
		return 0, ""
	}
	text, more, has := strings.Cut(value, "+")
	at, err := strconv.ParseUint(text, 10, 62)
	if err != nil {
		return 0, "delay_until is no time"
	}
	extra := uint64(0)
	if has {
		if extra, err = strconv.ParseUint(more, 10, 32); err != nil {
			return 0, "delay_until has no number behind the plus sign"
		}
	}
	left := int64(at) - now.Unix()
	switch {
	case left <= 0:
		return 0, ""
	case left > int64(maxUntil/time.Second):
		return 0, "delay_until is too far away"
	}
	if extra > 0 {
		left += rand.Int64N(int64(extra))
	}
	return min(time.Unix(now.Unix()+left, 0).Sub(now), maxUntil), ""
}
