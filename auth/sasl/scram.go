package sasl

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"dovepost/auth"
)

const (
	scramIterations = 4096 // of made-up credentials, and RFC 7677's least
	scramSalt       = 16   // octets, as Dovecot makes them
	scramMaxNonce   = 1024
)

// scram is SCRAM with one hash, RFC 5802 and 7677, with channel binding (-PLUS) or
// without.
//
// Who does not exist, or has a password of another scheme, gets a salt and an
// iteration count like everybody else, the same each time he asks, and learns at
// the end that he is wrong. A clear password has the same salt; and every exchange
// computes the keys of one password, whether it needs them or not.
type scram struct {
	scheme  string
	newHash func() hash.Hash
	plus    bool
	offered bool   // the -PLUS is in the list, for whoever can do it
	saltKey []byte // of made-up salts
	work    func(context.Context, *auth.Request, func()) error

	// like is what the stored credentials look like that were seen first.
	like *atomic.Pointer[scramLook]
}

type scramLook struct{ iterations, salt int }

func scramFactory(scheme string, newHash func() hash.Hash, plus bool) func(*Options, []string) (auth.Mechanism, error) {
	return func(o *Options, list []string) (auth.Mechanism, error) {
		return scram{scheme, newHash, plus, slices.Contains(list, scheme+"-PLUS"), o.SaltKey, o.Work, &atomic.Pointer[scramLook]{}}, nil
	}
}

func (m scram) Name() string {
	if m.plus {
		return m.scheme + "-PLUS"
	}
	return m.scheme
}

func (m scram) Flags() []string {
	if m.plus {
		return []string{"mutual-auth", "channel-binding"}
	}
	return []string{"mutual-auth"}
}

func (m scram) Start(r *auth.Request, v auth.Verifier) auth.Exchange {
	return &scramExchange{m: m, r: r, v: v}
}

type scramExchange struct {
	m scram
	r *auth.Request
	v auth.Verifier

	hello   scramHello
	first   string // our first message; empty before
	nonce   string // the client's and ours
	keys    scramKeys
	row     *auth.Credentials
	refusal error // known since the first message, told after the last
	over    bool
}

// Next takes the client's first message and its final one. Errors:
// auth.ErrMalformed, also for a wrong use of channel binding;
// auth.ErrPasswordMismatch; the verifier's.
func (x *scramExchange) Next(ctx context.Context, response []byte) ([]byte, *auth.Credentials, error) {
	switch {
	case x.over:
		return nil, nil, errOver
	case response == nil && x.first == "":
		return []byte{}, nil, nil
	case hasNUL(response):
		return nil, nil, auth.ErrMalformed
	case x.first == "":
		return x.begin(ctx, string(response))
	}
	x.over = true
	return x.finish(string(response))
}

// begin answers the client's first message with nonce, salt and iteration count.
func (x *scramExchange) begin(ctx context.Context, message string) ([]byte, *auth.Credentials, error) {
	var err error
	if x.hello, err = parseHello(message); err != nil {
		return nil, nil, err
	}
	if err := x.checkBinding(); err != nil {
		return nil, nil, err
	}
	claim(x.r, x.hello.user, x.hello.authzid)
	x.row, err = x.v.LookupCredentials(ctx, x.r, x.m.scheme)
	if err != nil && !auth.Refused(err) {
		return nil, nil, err
	}
	x.refusal = err
	if err := x.findKeys(ctx); err != nil {
		return nil, nil, err
	}
	var random [18]byte
	rand.Read(random[:])
	x.nonce = x.hello.nonce + base64.StdEncoding.EncodeToString(random[:])
	x.first = fmt.Sprintf("r=%s,s=%s,i=%d", x.nonce, base64.StdEncoding.EncodeToString(x.keys.salt), x.keys.iterations)
	x.r.Binding.Type = x.hello.binding
	return []byte(x.first), nil, nil
}

// checkBinding applies RFC 5802 section 6. A client that says y could bind the
// channel and has not seen our -PLUS: if it was there to be seen, over TLS and for
// a login process that can do it, somebody has taken it out of the list.
func (x *scramExchange) checkBinding() error {
	switch x.hello.flag {
	case 'p':
		if !x.m.plus {
			return fmt.Errorf("%w: channel binding without -PLUS", auth.ErrMalformed)
		}
	case 'y':
		if x.m.plus || x.m.offered && x.r.Modern && x.r.TLS {
			return fmt.Errorf("%w: the client was made to believe that there is no channel binding", auth.ErrMalformed)
		}
	default:
		if x.m.plus {
			return fmt.Errorf("%w: -PLUS without channel binding", auth.ErrMalformed)
		}
	}
	return nil
}

// scramKeys are stored credentials. RFC 5802 section 3.
type scramKeys struct {
	iterations     int
	salt           []byte
	stored, server []byte // StoredKey, ServerKey
}

// findKeys takes the keys from the row, computes them from a clear password, or
// makes them up. An error is temporary.
func (x *scramExchange) findKeys(ctx context.Context) error {
	password := "no password"
	if x.row != nil {
		scheme, value := secret(x.row)
		if scheme != "PLAIN" {
			keys, err := parseKeys(value, x.m.newHash().Size())
			if err == nil {
				x.m.like.CompareAndSwap(nil, &scramLook{keys.iterations, len(keys.salt)})
				x.keys = keys
			} else {
				x.refusal = fmt.Errorf("%w: the stored %s: %w", auth.ErrPasswordMismatch, scheme, err)
			}
		} else {
			password = value
		}
	}
	user := x.r.User
	if user == "" {
		user = x.r.Login
	}
	var keys scramKeys
	var err error
	if busy := x.m.work(ctx, x.r, func() { keys, err = x.m.computeKeys(user, password) }); busy != nil {
		return busy
	}
	if err == nil && x.keys.stored == nil {
		x.keys = keys
		if look := x.m.like.Load(); x.refusal != nil && look != nil {
			x.keys.iterations, x.keys.salt = look.iterations, x.m.salt(user, look.salt)
		}
	}
	return err
}

// computeKeys makes the keys of a clear password, with the user's salt.
func (m scram) computeKeys(user, password string) (scramKeys, error) {
	k := scramKeys{iterations: scramIterations, salt: m.salt(user, scramSalt)}
	salted, err := pbkdf2.Key(m.newHash, password, k.salt, k.iterations, m.newHash().Size())
	if err != nil {
		return scramKeys{}, err
	}
	k.stored = m.sum(m.mac(salted, "Client Key"))
	k.server = m.mac(salted, "Server Key")
	return k, nil
}

// salt is the salt of a user who has none: n octets, always the same.
func (m scram) salt(user string, n int) []byte {
	salt := make([]byte, 0, n)
	for i := byte(0); len(salt) < n; i++ {
		salt = append(salt, m.mac(m.saltKey, m.scheme+"\x00"+user+"\x00"+string(i))...)
	}
	return salt[:n]
}

func (m scram) mac(key []byte, message string) []byte {
	h := hmac.New(m.newHash, key)
	h.Write([]byte(message))
	return h.Sum(nil)
}

func (m scram) sum(b []byte) []byte {
	h := m.newHash()
	h.Write(b)
	return h.Sum(nil)
}

// finish verifies the client's proof and answers with the server's.
func (x *scramExchange) finish(message string) ([]byte, *auth.Credentials, error) {
	final, err := parseFinal(message)
	if err != nil {
		return nil, nil, err
	}
	if final.nonce != x.nonce || len(final.proof) != len(x.keys.stored) {
		return nil, nil, auth.ErrMalformed
	}
	bound := x.hello.header
	if x.hello.flag == 'p' {
		bound += string(x.r.Binding.Data)
		if len(x.r.Binding.Data) == 0 {
			x.refusal = fmt.Errorf("%w: the connection has no %.40s", auth.ErrPasswordMismatch, x.hello.binding)
		}
	}
	if subtle.ConstantTimeCompare(final.binding, []byte(bound)) != 1 && x.refusal == nil {
		x.refusal = fmt.Errorf("%w: channel binding", auth.ErrPasswordMismatch)
	}
	whole := x.hello.bare + "," + x.first + "," + final.withoutProof
	clientKey := x.m.mac(x.keys.stored, whole)
	subtle.XORBytes(clientKey, clientKey, final.proof)
	right := subtle.ConstantTimeCompare(x.m.sum(clientKey), x.keys.stored) == 1
	switch {
	case x.refusal != nil:
		return nil, nil, x.refusal
	case !right:
		return nil, nil, auth.ErrPasswordMismatch
	}
	signature := base64.StdEncoding.EncodeToString(x.m.mac(x.keys.server, whole))
	return []byte("v=" + signature), proven(x.row), nil
}

// parseKeys reads stored credentials: iterations, salt, StoredKey and ServerKey,
// of size octets each, the last three in base64, with commas between.
func parseKeys(value string, size int) (k scramKeys, err error) {
	parts := strings.Split(value, ",")
	if len(parts) != 4 {
		return k, fmt.Errorf("%d parts, not 4", len(parts))
	}
	if k.iterations, err = strconv.Atoi(parts[0]); err != nil || k.iterations < scramIterations || k.iterations > 1<<31-1 {
		return scramKeys{}, fmt.Errorf("iteration count is not between %d and 2^31", scramIterations)
	}
	for i, to := range []*[]byte{&k.salt, &k.stored, &k.server} {
		if *to, err = base64.StdEncoding.DecodeString(parts[i+1]); err != nil || len(*to) == 0 || i > 0 && len(*to) != size {
			return scramKeys{}, fmt.Errorf("part %d is not base64 of the right length", i+2)
		}
	}
	return k, nil
}
