package scheme

import (
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"fmt"
	"hash"
	"strings"

	//lint:ignore SA1019 the scheme PLAIN-MD4 is defined by it
	"golang.org/x/crypto/md4"
)

// Plain digests of the password: no salt, no cost. Base64, but for the last three in hexadecimal.
var digestSchemes = []*spec{
	digestScheme("SHA", inBase64, sha1.New),
	digestScheme("SHA1", inBase64, sha1.New),
	digestScheme("SHA256", inBase64, sha256.New),
	digestScheme("SHA512", inBase64, sha512.New),
	digestScheme("LDAP-MD5", inBase64, md5.New),
	digestScheme("PLAIN-MD5", inHex, md5.New),
	digestScheme("PLAIN-MD4", inHex, md4.New),
	{name: "DIGEST-MD5", form: inHex, size: md5.Size, verify: verifyDigestMD5, hash: hashDigestMD5},
}

func digestScheme(name string, enc form, newHash func() hash.Hash) *spec {
	sum := func(password []byte) []byte {
		h := newHash()
		h.Write(password)
		return h.Sum(nil)
	}
	return &spec{
		name: name,
		form: enc,
		size: newHash().Size(),
		verify: func(value, password []byte, _ string) (bool, error) {
			return subtle.ConstantTimeCompare(sum(password), value) == 1, nil
		},
		hash: func(password []byte, _ Options) ([]byte, error) { return sum(password), nil },
	}
}

// DIGEST-MD5 is H(user:realm:password), the realm being what follows the first @
// of the user's name. RFC 2831 2.1.2.1.
func digestMD5(password []byte, name string) []byte {
	user, realm, _ := strings.Cut(name, "@")
	sum := md5.Sum(append([]byte(user+":"+realm+":"), password...))
	return sum[:]
}

func verifyDigestMD5(value, password []byte, user string) (bool, error) {
	return subtle.ConstantTimeCompare(digestMD5(password, user), value) == 1, nil
}

func hashDigestMD5(password []byte, o Options) ([]byte, error) {
	if o.User == "" {
		return nil, fmt.Errorf("%w: the user's name is needed", ErrPassword)
	}
	return digestMD5(password, o.User), nil
}

// Salted digests: digest(password + salt) + salt, in base64. The salt is what follows the digest.
var saltedSchemes = []*spec{
	saltedScheme("SMD5", md5.New),
	saltedScheme("SSHA", sha1.New),
	saltedScheme("SSHA256", sha256.New),
	saltedScheme("SSHA512", sha512.New),
}

// Dovecot makes salts of 4 octets and takes any other length.
const saltedSalt = 4

func saltedScheme(name string, newHash func() hash.Hash) *spec {
	size := newHash().Size()
	sum := func(password, salt []byte) []byte {
		h := newHash()
		h.Write(password)
		h.Write(salt)
		return h.Sum(make([]byte, 0, size+saltedSalt))
	}
	return &spec{
		name: name,
		form: inBase64,
		verify: func(value, password []byte, _ string) (bool, error) {
			if len(value) <= size {
				return false, fmt.Errorf("%w: no salt after the digest", ErrMalformed)
			}
			return subtle.ConstantTimeCompare(sum(password, value[size:]), value[:size]) == 1, nil
		},
		hash: func(password []byte, _ Options) ([]byte, error) {
			salt := make([]byte, saltedSalt)
			rand.Read(salt)
			return append(sum(password, salt), salt...), nil
		},
	}
}
