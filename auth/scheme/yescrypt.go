package scheme

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"math/bits"
)

// yescrypt ($y$), GOST R 34.11-2012 on top of it ($gy$), and its ancestor scrypt
// ($7$), as crypt(5) and "yescrypt - scalable KDF and password hashing scheme" by
// Alexander Peslyak have them. The computation is in yescryptkdf.go.
//
// crypt(5)'s own settings take 16 MiB. What libxcrypt would take has no other limit
// than memory; here it is MaxMemory and yescryptMaxWork.
const (
	yescryptMaxWork = 4 << 30 // octets written, all passes: about eight seconds
	yescryptHash    = 32
	yescryptText    = 43
	yescryptMaxSalt = 64
)

const (
	yescryptWORM = 1
	yescryptRW   = 2
	// yescryptFlavour is the only one of yescrypt's read-write variants that there is:
	// 6 rounds, 4 gathers of 2, 12 KiB of S-boxes.
	yescryptFlavour = 0xb6
)

// yescryptSetting is what stands before the hash.
type yescryptSetting struct {
	flags      uint32 // 0: classic scrypt
	n, r, p, t uint64
	salt       []byte
	text       []byte // the hash, in crypt(3)'s base64
}

func verifyYescrypt(value, password []byte) (bool, error) {
	s, err := parseYescrypt(value)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(appendLittle64(nil, s.kdf(password)), s.text) == 1, nil
}

func yescryptMemory(value []byte) int64 {
	s, err := parseYescrypt(value)
	if err != nil {
		return 0
	}
	return int64(128 * s.n * s.r)
}

// parseYescrypt reads $y$parameters$salt$hash and $7$parameters salt$hash.
func parseYescrypt(value []byte) (s yescryptSetting, err error) {
	malformed := func(what string) (yescryptSetting, error) {
		return s, fmt.Errorf("%w: %s", ErrMalformed, what)
	}
	end := len(value) - yescryptText - 1
	if end < 3 || value[end] != '$' {
		return malformed("length")
	}
	s.text = value[end+1:]
	in := &little64{text: value[3:end]}
	if value[1] == '7' {
		s.n, s.r, s.p = 1<<in.digit(), in.fixed(30), in.fixed(30)
		s.salt = in.text
		for _, c := range s.salt {
			if cryptDigit(c) < 0 {
				return malformed("salt")
			}
		}
	} else {
		s.parameters(in)
		s.salt = in.octets(yescryptMaxSalt)
	}
	if in.failed {
		return malformed("parameters")
	}
	return s, s.bounds()
}

// parameters reads those of yescrypt, up to and with the $ behind them.
func (s *yescryptSetting) parameters(in *little64) {
	flavour := in.number(0)
	switch {
	case flavour < yescryptRW:
		s.flags = uint32(flavour)
	default:
		s.flags = yescryptRW + uint32(flavour-yescryptRW)<<2
	}
	s.n, s.r, s.p = 1<<min(in.number(1), 63), in.number(1), 1
	if in.next() != '$' {
		have := in.number(1)
		if have&1 != 0 {
			s.p = in.number(2)
		}
		if have&2 != 0 {
			s.t = in.number(1)
		}
		if have&^3 != 0 {
			in.failed = true // upgrades of a hash, and a ROM: libxcrypt has neither
		}
	}
	if in.next() != '$' {
		in.failed = true
		return
	}
	in.text = in.text[1:]
}

// bounds: what the algorithm cannot do, and what it shall not.
func (s *yescryptSetting) bounds() error {
	classic := s.flags == 0
	switch {
	case s.flags > yescryptWORM && s.flags != yescryptFlavour,
		s.n < 2, s.r < 1, s.p < 1, s.r*s.p >= 1<<30, classic && s.t != 0,
		s.flags&yescryptRW != 0 && s.n/s.p <= 1:
		return fmt.Errorf("%w: parameters", ErrMalformed)
	}
	high, memory := bits.Mul64(128*s.r, s.n)
	if high != 0 || memory > MaxMemory || 128*s.r*s.p > MaxMemory>>4 {
		return fmt.Errorf("%w: N=%d, r=%d, p=%d", ErrTooCostly, s.n, s.r, s.p)
	}
	passes := 2 + s.t
	if s.flags&yescryptRW == 0 {
		passes *= s.p
	}
	if passes > yescryptMaxWork/memory {
		return fmt.Errorf("%w: N=%d, r=%d, p=%d, t=%d", ErrTooCostly, s.n, s.r, s.p, s.t)
	}
	return nil
}

// kdf returns the hash of password.
func (s *yescryptSetting) kdf(password []byte) []byte {
	if s.flags&yescryptRW != 0 && s.n/s.p >= 0x100 && s.n/s.p*s.r >= 0x20000 {
		first := *s
		first.n, first.t = s.n>>6, 0
		password = first.body(password, "yescrypt-prehash")
	}
	out := s.body(password, "yescrypt")
	if s.flags != 0 { // as SCRAM's StoredKey
		stored := sha256.Sum256(hmacSHA256(out, []byte("Client Key")))
		out = stored[:]
	}
	return out
}

func (s *yescryptSetting) body(password []byte, name string) []byte {
	if s.flags != 0 {
		password = hmacSHA256([]byte(name), password)
	}
	b := pbkdf2Once(password, s.salt, int(128*s.r*s.p))
	if s.flags != 0 {
		password = append([]byte{}, b[:32]...)
	}
	mixer := newSmix(s)
	defer mixer.free()
	if s.flags&yescryptRW != 0 {
		password = mixer.readWrite(b, password)
	} else {
		mixer.writeOnce(b)
	}
	return pbkdf2Once(password, b, yescryptHash)
}

func hmacSHA256(key, msg []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(msg)
	return m.Sum(nil)
}

// pbkdf2Once is PBKDF2-HMAC-SHA-256 with one iteration.
func pbkdf2Once(password, salt []byte, size int) []byte {
	out, err := pbkdf2.Key(sha256.New, string(password), salt, 1, size)
	if err != nil {
		panic("pbkdf2: " + err.Error()) // only lengths beyond 2^32 blocks have no answer
	}
	return out
}

// little64 reads crypt(3)'s base64, the lowest sextet first.
type little64 struct {
	text   []byte
	failed bool
}

// next is the character that comes next; 0 at the end.
func (l *little64) next() byte {
	if len(l.text) == 0 {
		return 0
	}
	return l.text[0]
}

func (l *little64) digit() uint64 {
	d := cryptDigit(l.next())
	if d < 0 {
		l.failed = true
		return 0
	}
	l.text = l.text[1:]
	return uint64(d)
}

// fixed reads a number of n bits.
func (l *little64) fixed(n int) (v uint64) {
	for at := 0; at < n; at += 6 {
		v |= l.digit() << at
	}
	return v
}

// number reads a number that is at least least: small ones have one character, and
// the first character says how many follow.
func (l *little64) number(least uint64) uint64 {
	var start, end, shift uint64 = 0, 47, 0
	v, c := least, l.digit()
	for c > end {
		v += (end + 1 - start) << shift
		start = end + 1
		end = start + (62-end)/2
		shift += 6
	}
	v += (c - start) << shift
	for ; shift > 0; shift -= 6 {
		v += l.digit() << (shift - 6)
	}
	return v
}

// octets reads all that is left, at most so many octets. Bits that make no octet must be 0.
func (l *little64) octets(most int) (out []byte) {
	for len(l.text) > 0 && !l.failed {
		var group, n uint64
		for ; n < 24 && len(l.text) > 0; n += 6 {
			group |= l.digit() << n
		}
		if n < 12 {
			l.failed = true
		}
		for ; n >= 8; n -= 8 {
			out = append(out, byte(group))
			group >>= 8
		}
		if group != 0 || len(out) > most {
			l.failed = true
		}
	}
	return out
}

// appendLittle64 is the inverse of octets.
func appendLittle64(dst, octets []byte) []byte {
	for len(octets) > 0 {
		n := min(3, len(octets))
		var group uint32
		for i := range n {
			group |= uint32(octets[i]) << (8 * i)
		}
		dst = appendCrypt64(dst, group, n+1)
		octets = octets[n:]
	}
	return dst
}
