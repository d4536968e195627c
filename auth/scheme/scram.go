package scheme

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"hash"
	"strings"
)

// The stored form of SCRAM (RFC 5802 3, RFC 7677): iterations, salt, StoredKey and
// ServerKey, the last three in base64, with commas between.
var scramSchemes = []*spec{
	scramScheme("SCRAM-SHA-1", sha1.New),
	scramScheme("SCRAM-SHA-256", sha256.New),
}

const (
	scramIterations    = 4096 // also the least that RFC 7677 and Dovecot accept
	scramMaxIterations = 4_000_000
	scramSalt          = 16
)

func scramScheme(name string, newHash func() hash.Hash) *spec {
	return &spec{
		name: name,
		verify: func(value, password []byte, _ string) (bool, error) {
			return verifySCRAM(newHash, string(value), password)
		},
		hash: func(password []byte, o Options) ([]byte, error) {
			iterations, err := chooseCount(o.Rounds, scramIterations, scramIterations, scramMaxIterations)
			if err != nil {
				return nil, err
			}
			salt := make([]byte, scramSalt)
			rand.Read(salt)
			stored, server, err := scramKeys(newHash, password, salt, iterations)
			if err != nil {
				return nil, err
			}
			b64 := base64.StdEncoding.EncodeToString
			return fmt.Appendf(nil, "%d,%s,%s,%s", iterations, b64(salt), b64(stored), b64(server)), nil
		},
	}
}

func verifySCRAM(newHash func() hash.Hash, value string, password []byte) (bool, error) {
	parts := strings.Split(value, ",")
	if len(parts) != 4 {
		return false, fmt.Errorf("%w: not iterations,salt,StoredKey,ServerKey", ErrMalformed)
	}
	iterations, err := parseCount(parts[0], scramIterations, scramMaxIterations)
	if err != nil {
		return false, err
	}
	var fields [3][]byte
	for i := range fields {
		if fields[i], err = base64.StdEncoding.DecodeString(blanks.Replace(parts[i+1])); err != nil {
			return false, fmt.Errorf("%w: wrong encoding", ErrMalformed)
		}
	}
	size := newHash().Size()
	if len(fields[1]) != size || len(fields[2]) != size {
		return false, fmt.Errorf("%w: length of a key", ErrMalformed)
	}
	stored, _, err := scramKeys(newHash, password, fields[0], iterations)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(stored, fields[1]) == 1, nil
}

func scramKeys(newHash func() hash.Hash, password, salt []byte, iterations int) (stored, server []byte, err error) {
	salted, err := pbkdf2.Key(newHash, string(password), salt, iterations, newHash().Size())
	if err != nil {
		return nil, nil, err
	}
	h := newHash()
	h.Write(mac(newHash, salted, "Client Key"))
	return h.Sum(nil), mac(newHash, salted, "Server Key"), nil
}

func mac(newHash func() hash.Hash, key []byte, msg string) []byte {
	m := hmac.New(newHash, key)
	m.Write([]byte(msg))
	return m.Sum(nil)
}
