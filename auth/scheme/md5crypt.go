package scheme

import (
	"bytes"
	"crypto/md5"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

const (
	md5CryptPrefix = "$1$"
	md5CryptSalt   = 8
)

func verifyMD5Crypt(value, password []byte) (bool, error) {
	salt, text, ok := strings.Cut(strings.TrimPrefix(string(value), md5CryptPrefix), "$")
	if !ok || len(text) != 22 || len(salt) > md5CryptSalt || !cryptSaltAllowed(salt) {
		return false, fmt.Errorf("%w: salt or hash", ErrMalformed)
	}
	return subtle.ConstantTimeCompare(md5Crypt(password, []byte(salt)), []byte(text)) == 1, nil
}

func hashMD5Crypt(password []byte, _ Options) ([]byte, error) {
	salt := cryptSalt(md5CryptSalt)
	return append([]byte(md5CryptPrefix+salt+"$"), md5Crypt(password, []byte(salt))...), nil
}

// verifyMD5Only is the scheme MD5-CRYPT. Dovecot has its own code for it, without
// the length limit of crypt(3).
func verifyMD5Only(value, password []byte, _ string) (bool, error) {
	switch {
	case locked(value):
		return false, nil
	case !bytes.HasPrefix(value, []byte(md5CryptPrefix)):
		return false, fmt.Errorf("%w: not an md5-crypt hash", ErrMalformed)
	default:
		return verifyMD5Crypt(value, password)
	}
}

// verifyMD5 is the scheme MD5, which is what the row looks like: MD5-CRYPT or
// PLAIN-MD5.
func verifyMD5(value, password []byte, user string) (bool, error) {
	if bytes.HasPrefix(value, []byte(md5CryptPrefix)) || locked(value) {
		return verifyMD5Only(value, password, user)
	}
	digest, err := hex.DecodeString(string(value))
	if err != nil || len(digest) != md5.Size {
		digest, err = base64.StdEncoding.DecodeString(string(value))
	}
	if err != nil || len(digest) != md5.Size {
		return false, fmt.Errorf("%w: neither md5-crypt nor a digest", ErrMalformed)
	}
	sum := md5.Sum(password)
	return subtle.ConstantTimeCompare(sum[:], digest) == 1, nil
}

// md5Crypt is the algorithm of FreeBSD's crypt by Poul-Henning Kamp, 1994: a
// thousand rounds over arrangements of password, salt and the last digest.
func md5Crypt(password, salt []byte) []byte {
	inner := md5.Sum(bytes.Join([][]byte{password, salt, password}, nil))
	msg := append([]byte{}, password...)
	msg = append(msg, md5CryptPrefix...)
	msg = append(msg, salt...)
	msg = append(msg, stretch(inner[:], len(password))...)
	for n := len(password); n > 0; n >>= 1 {
		if n&1 != 0 {
			msg = append(msg, 0)
		} else {
			msg = append(msg, password[0])
		}
	}
	d := md5.Sum(msg)
	for round := range 1000 {
		msg = msg[:0]
		if round&1 != 0 {
			msg = append(msg, password...)
		} else {
			msg = append(msg, d[:]...)
		}
		if round%3 != 0 {
			msg = append(msg, salt...)
		}
		if round%7 != 0 {
			msg = append(msg, password...)
		}
		if round&1 != 0 {
			msg = append(msg, d[:]...)
		} else {
			msg = append(msg, password...)
		}
		d = md5.Sum(msg)
	}
	return appendMD5Text(make([]byte, 0, 22), &d)
}

// appendMD5Text appends a digest in the order of md5-crypt, 22 characters.
func appendMD5Text(dst []byte, d *[md5.Size]byte) []byte {
	for i := range 5 {
		last := i + 12
		if i == 4 {
			last = 5
		}
		dst = appendCrypt64(dst, uint32(d[i])<<16|uint32(d[i+6])<<8|uint32(d[last]), 4)
	}
	return appendCrypt64(dst, uint32(d[11]), 2)
}
