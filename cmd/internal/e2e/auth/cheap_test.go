package auth

import (
	"encoding/base64"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/crypto/argon2"

	"dovepost/auth/scheme"
)

// slow are the hashes that cost much, each with its variant.
var slow = regexp.MustCompile(`\$(argon2id?|2[aby])\$[^'"\s\\]+`)

// cheaper has the hashes of the cast's passwords in data cost as little as their
// schemes allow: thousands of questions are asked about them, and what a hash costs is
// no part of the answers.
func cheaper(t *testing.T, data string, cast []string) string {
	return slow.ReplaceAllStringFunc(data, func(hash string) string {
		name, salt := "BLF-CRYPT", []byte("saltsaltsaltsalt")
		if strings.HasPrefix(hash, "$argon2") {
			name = strings.ToUpper(strings.Split(hash, "$")[1])
		}
		for _, user := range cast {
			password := []byte(passwordOf(user))
			if ok, err := scheme.Verify("{"+name+"}"+hash, password, user); err != nil || !ok {
				continue
			}
			encode := base64.RawStdEncoding.EncodeToString
			switch name {
			case "ARGON2ID":
				return "$argon2id$v=19$m=64,t=1,p=1$" + encode(salt) + "$" + encode(argon2.IDKey(password, salt, 1, 64, 1, 32))
			case "ARGON2I":
				return "$argon2i$v=19$m=64,t=3,p=1$" + encode(salt) + "$" + encode(argon2.Key(password, salt, 3, 64, 1, 32))
			}
			made, err := scheme.HashWith(name, password, scheme.Options{User: user, Rounds: 4})
			if err != nil {
				t.Fatal(err)
			}
			return strings.TrimPrefix(made, "{"+name+"}")
		}
		return hash
	})
}
