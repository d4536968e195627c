package scheme

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"fmt"

	//lint:ignore SA1019 bcrypt is defined by it
	"golang.org/x/crypto/blowfish"
)

// bcrypt ("A Future-Adaptable Password Scheme", Niels Provos and David Mazières,
// 1999): $2y$cost$, 22 characters of salt and 31 of hash.
//
// The second letter tells how octets above 127 are taken. $2b$ and $2y$ take them as
// they are. $2x$ is the bug of crypt_blowfish before 2011, which extended their sign
// over the octets before. $2a$ could be either; libxcrypt takes the right way and
// changes the key a little for the passwords with which the bug made collisions.
const (
	bcryptCost    = 5 // Dovecot's default
	bcryptMinCost = 4
	bcryptMaxCost = 16 // about four seconds; libxcrypt allows 31
	bcryptKey     = 72 // octets of the password that count, a NUL behind it included
	bcryptHead    = 7  // $2y$NN$
	bcryptSalt    = 16
	bcryptHash    = 23 // octets; the last of 24 is left out
	bcryptLen     = 60
)

var bcrypt64 = base64.NewEncoding("./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789").WithPadding(base64.NoPadding)

func verifyBcrypt(value, password []byte) (bool, error) {
	if len(value) != bcryptLen || value[6] != '$' {
		return false, fmt.Errorf("%w: length", ErrMalformed)
	}
	if value[4] < '0' || value[4] > '9' || value[5] < '0' || value[5] > '9' {
		return false, fmt.Errorf("%w: cost", ErrMalformed)
	}
	cost := int(value[4]-'0')*10 + int(value[5]-'0')
	if cost < bcryptMinCost || cost > 31 {
		return false, fmt.Errorf("%w: cost", ErrMalformed)
	}
	if cost > bcryptMaxCost {
		return false, fmt.Errorf("%w: cost %d, limit %d", ErrTooCostly, cost, bcryptMaxCost)
	}
	salt, err := bcrypt64.DecodeString(string(value[bcryptHead : bcryptHead+22]))
	if err != nil {
		return false, fmt.Errorf("%w: salt", ErrMalformed)
	}
	got := bcrypt(value[2], cost, salt, password)
	return subtle.ConstantTimeCompare(got, value) == 1, nil
}

func hashBcrypt(password []byte, o Options) ([]byte, error) {
	if len(password) > maxCryptPassword {
		return nil, fmt.Errorf("%w: longer than %d octets", ErrPassword, maxCryptPassword)
	}
	cost, err := chooseCount(o.Rounds, bcryptCost, bcryptMinCost, bcryptMaxCost)
	if err != nil {
		return nil, err
	}
	salt := make([]byte, bcryptSalt)
	rand.Read(salt)
	return bcrypt('y', cost, salt, password), nil
}

// bcrypt returns the whole value.
func bcrypt(variant byte, cost int, salt, password []byte) []byte {
	first, key := bcryptKeys(variant, password)
	c, err := blowfish.NewSaltedCipher(first[:], salt)
	if err != nil {
		panic("blowfish: " + err.Error()) // only an empty key or salt has no answer
	}
	for range uint64(1) << cost {
		blowfish.ExpandKey(key[:], c)
		blowfish.ExpandKey(salt, c)
	}
	hash := []byte("OrpheanBeholderScryDoubt")
	for i := 0; i < len(hash); i += blowfish.BlockSize {
		for range 64 {
			c.Encrypt(hash[i:], hash[i:])
		}
	}
	value := fmt.Appendf(make([]byte, 0, bcryptLen), "$2%c$%02d$", variant, cost)
	value = bcrypt64.AppendEncode(value, salt)
	return bcrypt64.AppendEncode(value, hash[:bcryptHash])
}

// bcryptKeys returns the 18 words that Blowfish's key schedule reads of a key, for its
// first use and for the others.
func bcryptKeys(variant byte, password []byte) (first, key [bcryptKey]byte) {
	var sign, diff uint32
	at := 0
	for i := 0; i < bcryptKey; i += 4 {
		var right, wrong uint32
		for j := range 4 {
			var c byte
			if at < len(password) {
				c = password[at]
				at++
			} else {
				at = 0
			}
			right = right<<8 | uint32(c)
			wrong = wrong<<8 | uint32(int8(c))
			if j > 0 {
				sign |= wrong & 0x80
			}
		}
		diff |= right ^ wrong
		if variant == 'x' {
			right = wrong
		}
		binary.BigEndian.PutUint32(key[i:], right)
	}
	first = key
	if variant == 'a' && sign != 0 && diff == 0 {
		first[1] ^= 1
	}
	return first, key
}
