package scheme

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// sha-crypt, "Unix crypt using SHA-256 and SHA-512", Ulrich Drepper, 2007.
// $5$salt$hash or $6$rounds=N$salt$hash.
//
// Each of the rounds hashes one of eight arrangements of four pieces. They are
// laid out once, and a round only puts the last digest into its place and hashes
// one contiguous message: no allocation and no incremental state per round.
type shaCrypt struct {
	prefix string
	size   int
	text   int                   // characters of the hash
	sum    func(dst, msg []byte) // digest of msg into dst
	encode func(dst, digest []byte) []byte
}

var (
	sha512Crypt = &shaCrypt{
		prefix: "$6$", size: sha512.Size, text: 86,
		sum:    func(dst, msg []byte) { d := sha512.Sum512(msg); copy(dst, d[:]) },
		encode: encodeSHA512Crypt,
	}
	sha256Crypt = &shaCrypt{
		prefix: "$5$", size: sha256.Size, text: 43,
		sum:    func(dst, msg []byte) { d := sha256.Sum256(msg); copy(dst, d[:]) },
		encode: encodeSHA256Crypt,
	}
)

const (
	shaCryptRounds    = 5000
	shaCryptMinRounds = 1000
	shaCryptMaxRounds = 5_000_000 // about a second; crypt(5) itself would allow 999,999,999
	shaCryptSalt      = 16
)

func (c *shaCrypt) verify(value, password []byte) (bool, error) {
	rest := strings.TrimPrefix(string(value), c.prefix)
	rounds := shaCryptRounds
	if after, ok := strings.CutPrefix(rest, "rounds="); ok {
		digits, after, ok := strings.Cut(after, "$")
		if !ok {
			return false, fmt.Errorf("%w: no salt", ErrMalformed)
		}
		var err error
		if rounds, err = parseCount(digits, shaCryptMinRounds, shaCryptMaxRounds); err != nil {
			return false, err
		}
		rest = after
	}
	salt, text, ok := strings.Cut(rest, "$")
	if !ok || len(text) != c.text || len(salt) > shaCryptSalt || !cryptSaltAllowed(salt) {
		return false, fmt.Errorf("%w: salt or hash", ErrMalformed)
	}
	got := c.crypt(password, []byte(salt), rounds)
	return subtle.ConstantTimeCompare(got, []byte(text)) == 1, nil
}

func (c *shaCrypt) hash(password []byte, o Options) ([]byte, error) {
	if len(password) > maxCryptPassword {
		return nil, fmt.Errorf("%w: longer than %d octets", ErrPassword, maxCryptPassword)
	}
	rounds, err := chooseCount(o.Rounds, shaCryptRounds, shaCryptMinRounds, shaCryptMaxRounds)
	if err != nil {
		return nil, err
	}
	head, salt := c.prefix, cryptSalt(shaCryptSalt)
	if o.Rounds != 0 {
		head += "rounds=" + strconv.Itoa(rounds) + "$"
	}
	return append([]byte(head+salt+"$"), c.crypt(password, []byte(salt), rounds)...), nil
}

// crypt returns the text of the hash. The letters are those of Drepper's description.
func (c *shaCrypt) crypt(password, salt []byte, rounds int) []byte {
	digestB := make([]byte, c.size)
	c.sum(digestB, slices.Concat(password, salt, password))

	msg := slices.Concat(password, salt, stretch(digestB, len(password)))
	for n := len(password); n > 0; n >>= 1 {
		if n&1 != 0 {
			msg = append(msg, digestB...)
		} else {
			msg = append(msg, password...)
		}
	}
	digest := make([]byte, c.size) // A, then the result of each round
	c.sum(digest, msg)

	temp := make([]byte, c.size)
	c.sum(temp, bytes.Repeat(password, len(password)))
	p := stretch(temp, len(password))
	c.sum(temp, bytes.Repeat(salt, 16+int(digest[0])))
	s := stretch(temp, len(salt))

	var layouts [8]layout
	for kind := range layouts {
		layouts[kind] = newLayout(kind, p, s, c.size)
	}
	for round := range rounds {
		kind := round & 1
		if round%3 != 0 {
			kind |= 2
		}
		if round%7 != 0 {
			kind |= 4
		}
		l := &layouts[kind]
		copy(l.digest, digest)
		c.sum(digest, l.message)
	}
	return c.encode(make([]byte, 0, c.text), digest)
}

// layout is the message of one kind of round; digest is its part where the last
// round's digest belongs.
type layout struct{ message, digest []byte }

// newLayout arranges the message of a round. Bits of kind: 1 the round is odd,
// 2 it is not a multiple of 3, 4 it is not a multiple of 7.
func newLayout(kind int, p, s []byte, size int) layout {
	m := make([]byte, 0, size+2*len(p)+len(s))
	var at int
	if kind&1 != 0 {
		m = append(m, p...)
	} else {
		m = m[:size]
	}
	if kind&2 != 0 {
		m = append(m, s...)
	}
	if kind&4 != 0 {
		m = append(m, p...)
	}
	if kind&1 != 0 {
		at = len(m)
		m = m[:at+size]
	} else {
		m = append(m, p...)
	}
	return layout{message: m, digest: m[at : at+size]}
}

// stretch repeats digest up to n octets.
func stretch(digest []byte, n int) []byte {
	return bytes.Repeat(digest, n/len(digest)+1)[:n]
}

func encodeSHA512Crypt(dst, d []byte) []byte {
	a, b, c := 0, 21, 42
	for range 21 {
		dst = appendCrypt64(dst, uint32(d[a])<<16|uint32(d[b])<<8|uint32(d[c]), 4)
		a, b, c = b+1, c+1, a+1
	}
	return appendCrypt64(dst, uint32(d[63]), 2)
}

func encodeSHA256Crypt(dst, d []byte) []byte {
	a, b, c := 0, 10, 20
	for range 10 {
		dst = appendCrypt64(dst, uint32(d[a])<<16|uint32(d[b])<<8|uint32(d[c]), 4)
		a, b, c = c+1, a+1, b+1
	}
	return appendCrypt64(dst, uint32(d[31])<<8|uint32(d[30]), 3)
}
