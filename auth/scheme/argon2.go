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
// which Dovecot uses, the value decides between the two variants. ARGON2 is a name of
// Dovecot 2.4.
var argon2Schemes = []*spec{
	{name: "ARGON2", verify: verifyArgon2, memory: argon2Memory, hash: argon2Hash("argon2id", 64<<10, 3)},
	{name: "ARGON2I", verify: verifyArgon2, memory: argon2Memory, hash: argon2Hash("argon2i", 32<<10, 4)},
	{name: "ARGON2ID", verify: verifyArgon2, memory: argon2Memory, hash: argon2Hash("argon2id", 64<<10, 3)},
}

const (
	argon2MaxMemory = MaxMemory >> 10 // KiB
	argon2MaxWork   = 4 << 20         // KiB times passes: about four seconds
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

// argon2Hashed is a value that was read: $argon2id$v=19$m=65536,t=3,p=1$salt$hash.
type argon2Hashed struct {
	variant               string
	memory, passes, lanes int // memory in KiB
	salt, key             []byte
}

func parseArgon2(value []byte) (h argon2Hashed, err error) {
	parts := bytes.Split(value, []byte("$"))
	if len(parts) != 6 || len(parts[0]) != 0 || string(parts[2]) != "v=19" {
		return h, fmt.Errorf("%w: not an argon2 string of version 19", ErrMalformed)
	}
	h.variant = string(parts[1])
	if h.variant != "argon2i" && h.variant != "argon2id" {
		return h, fmt.Errorf("%w: argon2 variant", ErrMalformed)
	}
	if h.memory, h.passes, h.lanes, err = argon2Cost(string(parts[3])); err != nil {
		return h, err
	}
	if h.salt, err = base64.RawStdEncoding.Strict().DecodeString(string(parts[4])); err != nil || len(h.salt) < 8 || len(h.salt) > 64 {
		return h, fmt.Errorf("%w: salt", ErrMalformed)
	}
	if h.key, err = base64.RawStdEncoding.Strict().DecodeString(string(parts[5])); err != nil || len(h.key) < 16 || len(h.key) > 128 {
		return h, fmt.Errorf("%w: hash", ErrMalformed)
	}
	return h, nil
}

func verifyArgon2(value, password []byte, _ string) (bool, error) {
	if locked(value) {
		return false, nil
	}
	h, err := parseArgon2(value)
	if err != nil {
		return false, err
	}
	got := argon2Sum(h.variant, password, h.salt, h.passes, h.memory, h.lanes, len(h.key))
	return subtle.ConstantTimeCompare(got, h.key) == 1, nil
}

func argon2Memory(value []byte) int64 {
	h, err := parseArgon2(value)
	if err != nil {
		return 0
	}
	return int64(h.memory) << 10
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
