package scheme

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"fmt"
	"hash"
	"strconv"
	"strings"
)

// sha-crypt, "Unix crypt using SHA-256 and SHA-512", Ulrich Drepper, 2007.
// $5$salt$hash or $6$rounds=N$salt$hash.
//
// Each of the rounds hashes one of eight arrangements of four pieces. They are
// laid out once, padding included, and a round only puts the last digest into its
// place and has whole blocks hashed: see blockHash.
type shaCrypt struct {
	prefix string
	text   int // characters of the hash
	new    func() hash.Hash
	encode func(dst, digest []byte) []byte
}

var (
	sha512Crypt = &shaCrypt{prefix: "$6$", text: 86, new: sha512.New, encode: encodeSHA512Crypt}
	sha256Crypt = &shaCrypt{prefix: "$5$", text: 43, new: sha256.New, encode: encodeSHA256Crypt}
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
	h := newBlockHash(c.new())
	digestB := h.sum(password, salt, password)
	digestA := h.sum(password, salt, stretch(digestB, len(password)), choose(digestB, password))
	p := stretch(h.sum(bytes.Repeat(password, len(password))), len(password))
	s := stretch(h.sum(bytes.Repeat(salt, 16+int(digestA[0]))), len(salt))

	var layouts [8]layout
	for kind := range layouts {
		layouts[kind] = h.layout(kind, p, s)
	}
	digest := digestA
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
		digest = h.sumPadded(l.message)
	}
	return c.encode(make([]byte, 0, c.text), digest)
}

// choose arranges digest and password by the bits of the password's length.
func choose(digest, password []byte) (chosen []byte) {
	for n := len(password); n > 0; n >>= 1 {
		if n&1 != 0 {
			chosen = append(chosen, digest...)
		} else {
			chosen = append(chosen, password...)
		}
	}
	return chosen
}

// layout is the message of one kind of round, padded; digest is its part where the last
// round's digest belongs.
type layout struct{ message, digest []byte }

// layout arranges the message of a round. Bits of kind: 1 the round is odd,
// 2 it is not a multiple of 3, 4 it is not a multiple of 7.
func (h *blockHash) layout(kind int, p, s []byte) layout {
	size := h.Size()
	var m []byte
	var at int
	if kind&1 != 0 {
		m = append(m, p...)
	} else {
		m = make([]byte, size)
	}
	if kind&2 != 0 {
		m = append(m, s...)
	}
	if kind&4 != 0 {
		m = append(m, p...)
	}
	if kind&1 != 0 {
		at = len(m)
		m = append(m, make([]byte, size)...)
	} else {
		m = append(m, p...)
	}
	m = h.pad(m)
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
