package sasl

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/subtle"
	"fmt"
	"strconv"
	"strings"
	"time"

	"dovepost/auth"
)

// apop is POP3's APOP, RFC 1939, as Dovecot's pop3-login passes it on. pop3-login
// makes the challenge and never advertises the mechanism: it is private. The clear
// password has to be stored.
type apop struct{ since int64 }

func newAPOP(*Options, []string) (auth.Mechanism, error) { return apop{time.Now().Unix()}, nil }

func (apop) Name() string    { return "APOP" }
func (apop) Flags() []string { return []string{"private", "dictionary", "active"} }

func (m apop) Start(r *auth.Request, v auth.Verifier) auth.Exchange {
	return &apopExchange{r, v, m.since}
}

type apopExchange struct {
	r     *auth.Request
	v     auth.Verifier
	since int64 // Unix time of our start
}

// Next takes challenge NUL name NUL digest, the 16 octets of MD5(challenge
// password). The challenge must be one of the connection that sends it, and not
// older than this process. Errors: auth.ErrMalformed, the verifier's.
func (x *apopExchange) Next(ctx context.Context, response []byte) ([]byte, *auth.Credentials, error) {
	challenge, rest, ok1 := bytes.Cut(response, []byte{0})
	name, digest, ok2 := bytes.Cut(rest, []byte{0})
	if !ok1 || !ok2 || len(digest) != md5.Size || !x.own(string(challenge)) {
		return nil, nil, auth.ErrMalformed
	}
	claim(x.r, string(name), "")
	row, err := x.v.LookupCredentials(ctx, x.r, "PLAIN")
	if err != nil {
		return nil, nil, err
	}
	_, password := secret(row)
	want := md5.Sum([]byte(string(challenge) + password))
	if subtle.ConstantTimeCompare(digest, want[:]) != 1 {
		return nil, nil, auth.ErrPasswordMismatch
	}
	return nil, proven(row), nil
}

// own reports whether the challenge, <SPID.CUID.time.random@host> in hexadecimal,
// begins with the names of this process and of the client's connection.
func (x *apopExchange) own(challenge string) bool {
	rest, ok1 := strings.CutPrefix(challenge, fmt.Sprintf("<%x.%x.", x.r.SPID, x.r.CUID))
	stamp, _, ok2 := strings.Cut(rest, ".")
	at, err := strconv.ParseInt(stamp, 16, 64)
	return ok1 && ok2 && err == nil && at >= x.since && x.r.SPID != 0
}
