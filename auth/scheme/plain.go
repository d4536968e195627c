package scheme

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"strconv"
)

// The schemes that store the password itself. All four names mean the same;
// PLAIN-TRUNC can also hold only a beginning, as "LENGTH-beginning".
var plainSchemes = []*spec{
	{name: "PLAIN", verify: verifyPlain, hash: hashPlain},
	{name: "CLEAR", verify: verifyPlain, hash: hashPlain},
	{name: "CLEARTEXT", verify: verifyPlain, hash: hashPlain},
	{name: "PLAIN-TRUNC", verify: verifyPlainTrunc, hash: hashPlainTrunc},
}

func verifyPlain(value, password []byte, _ string) (bool, error) {
	return equal(value, password), nil
}

func hashPlain(password []byte, _ Options) ([]byte, error) { return bytes.Clone(password), nil }

// verifyPlainTrunc compares at most LENGTH octets: a longer password is right if
// it begins with the stored octets, which must then be that long.
func verifyPlainTrunc(value, password []byte, _ string) (bool, error) {
	length, stored, ok := bytes.Cut(value, []byte("-"))
	if !ok {
		return false, fmt.Errorf("%w: no length in front", ErrMalformed)
	}
	n, err := strconv.ParseUint(string(length), 10, 31)
	if err != nil {
		return false, fmt.Errorf("%w: the length is not a number", ErrMalformed)
	}
	if n == 0 {
		return false, fmt.Errorf("%w: length 0 would match anything", ErrMalformed)
	}
	if uint64(len(stored)) == n && uint64(len(password)) > n {
		password = password[:n]
	}
	return equal(stored, password), nil
}

func hashPlainTrunc(password []byte, _ Options) ([]byte, error) {
	return append(strconv.AppendInt(nil, maxPassword, 10), "-"+string(password)...), nil
}

// equal compares in a time that tells neither the place of the first difference
// nor the length of the secret.
func equal(a, b []byte) bool {
	x, y := sha256.Sum256(a), sha256.Sum256(b)
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}
