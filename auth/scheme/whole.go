package scheme

import (
	"bytes"
	"strings"
)

// Whole reports whether stored has been made of all of the password that it has just
// been found to match. DES looks at eight octets, of seven bits each, bcrypt at 72, and
// PLAIN-TRUNC at as many as it says: of a password that is as long nobody knows what the
// user types elsewhere, so it must not take the place of stored.
func Whole(stored string, password []byte) bool {
	s, enc, text, err := split(stored)
	if err != nil {
		return false
	}
	value, err := s.decode(enc, text)
	if err != nil {
		return false
	}
	switch isCrypt := strings.HasSuffix(s.name, "CRYPT"); {
	case s.name == "PLAIN-TRUNC":
		return wholePlain(value)
	case isCrypt && bytes.HasPrefix(value, []byte("$2")):
		return len(password) < bcryptKey
	case isCrypt && !bytes.HasPrefix(value, []byte("$")):
		return wholeDES(value, password)
	}
	return true
}

// wholePlain reports whether a value of PLAIN-TRUNC is shorter than it may be.
func wholePlain(value []byte) bool {
	length, stored, _ := bytes.Cut(value, []byte("-"))
	n, err := parseCount(string(length), 1, maxPassword)
	return err == nil && len(stored) < n
}

// wholeDES reports whether none of the password's bits are lost on a value of verifyDES.
func wholeDES(value, password []byte) bool {
	for _, c := range password {
		if c >= 0x80 {
			return false
		}
	}
	switch {
	case len(value) == 2+desText:
		return len(password) < 8
	case bytes.HasPrefix(value, []byte("_")):
		return true
	}
	return len(password) < 8*bigcryptParts
}
