package scheme

import (
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"strings"
)

// PBKDF2 with HMAC-SHA-1 (RFC 8018 5.2) as Dovecot writes it: $1$salt$rounds$hex,
// the salt taken as the octets that stand there.
var pbkdf2Schemes = []*spec{
	{name: "PBKDF2", verify: verifyPBKDF2, hash: hashPBKDF2},
}

const (
	pbkdf2Rounds    = 5000
	pbkdf2MaxRounds = 4_000_000 // about a second
	pbkdf2Salt      = 16
)

func verifyPBKDF2(value, password []byte, _ string) (bool, error) {
	parts := strings.Split(string(value), "$")
	if len(parts) != 5 || parts[0] != "" || parts[1] != "1" {
		return false, fmt.Errorf("%w: not $1$salt$rounds$hash", ErrMalformed)
	}
	rounds, err := parseCount(parts[3], 1, pbkdf2MaxRounds)
	if err != nil {
		return false, err
	}
	want, err := hex.DecodeString(parts[4])
	if err != nil || len(want) != sha1.Size {
		return false, fmt.Errorf("%w: hash", ErrMalformed)
	}
	got, err := pbkdf2.Key(sha1.New, string(password), []byte(parts[2]), rounds, sha1.Size)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(got, want) == 1, nil
}

func hashPBKDF2(password []byte, o Options) ([]byte, error) {
	rounds, err := chooseCount(o.Rounds, pbkdf2Rounds, 1, pbkdf2MaxRounds)
	if err != nil {
		return nil, err
	}
	salt := cryptSalt(pbkdf2Salt)
	key, err := pbkdf2.Key(sha1.New, string(password), []byte(salt), rounds, sha1.Size)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "$1$%s$%d$%x", salt, rounds, key), nil
}
