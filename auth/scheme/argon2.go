package scheme

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Argon2 in the PHC string format, version 19 of RFC 9106. As with libsodium,
// which Dovecot uses, the value decides between the two variants.
var argon2Schemes = []*spec{
	{name: "ARGON2I", verify: verifyArgon2, hash: argon2Hash("argon2i", 32<<10, 4)},
	{name: "ARGON2ID", verify: verifyArgon2, hash: argon2Hash("argon2id", 64<<10, 3)},
}

const (
	argon2MaxMemory = 1 << 20 // KiB: 1 GiB
	argon2MaxWork   = 4 << 20 // KiB times passes: about four seconds
	argon2MaxLanes  = 64
	argon2Salt      = 16
	argon2Key       = 32
)

func argon2Sum(variant string, password, salt []byte, passes, memory, lanes, size int) []byte {
	if variant == "argon2i" {
		return argon2.Key(password, salt, uint32(passes), uint32(memory), uint8(lanes), uint32(size))
	}
	return argon2.IDKey(password, salt, uint32(passes), uint32(memory), uint8(lanes), uint32(size))
}

// verifyArgon2 reads $argon2id$v=19$m=65536,t=3,p=1$salt$hash.
func verifyArgon2(value, password []byte, _ string) (bool, error) {
	if locked(value) {
		return false, nil
	}
	parts := bytes.Split(value, []byte("$"))
	if len(parts) != 6 || len(parts[0]) != 0 || string(parts[2]) != "v=19" {
		return false, fmt.Errorf("%w: not an argon2 string of version 19", ErrMalformed)
	}
	variant := string(parts[1])
	if variant != "argon2i" && variant != "argon2id" {
		return false, fmt.Errorf("%w: argon2 variant", ErrMalformed)
	}
	memory, passes, lanes, err := argon2Cost(string(parts[3]))
	if err != nil {
		return false, err
	}
	salt, err := base64.RawStdEncoding.Strict().DecodeString(string(parts[4]))
	if err != nil || len(salt) < 8 || len(salt) > 64 {
		return false, fmt.Errorf("%w: salt", ErrMalformed)
	}
	key, err := base64.RawStdEncoding.Strict().DecodeString(string(parts[5]))
	if err != nil || len(key) < 16 || len(key) > 128 {
		return false, fmt.Errorf("%w: hash", ErrMalformed)
	}
	got := argon2Sum(variant, password, salt, passes, memory, lanes, len(key))
	return subtle.ConstantTimeCompare(got, key) == 1, nil
}

// argon2Cost reads "m=65536,t=3,p=1".
func argon2Cost(text string) (memory, passes, lanes int, err error) {
	params := strings.Split(text, ",")
	if len(params) != 3 {
		return 0, 0, 0, fmt.Errorf("%w: cost", ErrMalformed)
	}
	for i, param := range []struct {
		name  string
		limit int
		to    *int
	}{{"m=", argon2MaxMemory, &memory}, {"t=", argon2MaxWork, &passes}, {"p=", argon2MaxLanes, &lanes}} {
		digits, ok := strings.CutPrefix(params[i], param.name)
		if !ok {
			return 0, 0, 0, fmt.Errorf("%w: cost", ErrMalformed)
		}
		if *param.to, err = parseCount(digits, 1, param.limit); err != nil {
			return 0, 0, 0, err
		}
	}
	if memory < 8*lanes {
		return 0, 0, 0, fmt.Errorf("%w: cost", ErrMalformed)
	}
	if memory*passes > argon2MaxWork {
		return 0, 0, 0, fmt.Errorf("%w: %d KiB in %d passes", ErrTooCostly, memory, passes)
	}
	return memory, passes, lanes, nil
}

func argon2Hash(variant string, memory, usual int) func([]byte, Options) ([]byte, error) {
	return func(password []byte, o Options) ([]byte, error) {
		passes, err := chooseCount(o.Rounds, usual, 1, argon2MaxWork/memory)
		if err != nil {
			return nil, err
		}
		salt := make([]byte, argon2Salt)
		rand.Read(salt)
		key := argon2Sum(variant, password, salt, passes, memory, 1, argon2Key)
		b64 := base64.RawStdEncoding
		return fmt.Appendf(nil, "$%s$v=19$m=%d,t=%d,p=1$%s$%s", variant, memory, passes, b64.EncodeToString(salt), b64.EncodeToString(key)), nil
	}
}
