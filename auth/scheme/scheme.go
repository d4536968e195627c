// Package scheme verifies and makes password hashes as Dovecot's password
// schemes spell them: "{SCHEME}hash", with an optional encoding suffix as in
// "{SHA256.hex}". The names, formats and default costs are those of Dovecot 2.3
// (password-scheme.c; `doveadm pw -l`, `doveadm pw -t`), the crypt(3) formats
// those of libxcrypt's crypt(5).
//
// A stored hash is data from a database and may be anything: every parser here
// is bounded, and a hash that asks for more time or memory than the limits
// of its file is an error and never computed. Passwords are octets; nothing is
// normalised. Neither passwords nor hashes stand in errors.
//
// Through {CRYPT}, and as in Dovecot through SHA512-CRYPT, SHA256-CRYPT and DES-CRYPT,
// go all formats of libxcrypt but gost-yescrypt: yescrypt, scrypt, bcrypt, sha512-crypt,
// sha256-crypt, sha1-crypt, SunMD5, md5-crypt, NT, BSDi's DES, bigcrypt and DES.
//
// The limits, and what Dovecot with libxcrypt and libsodium would compute:
//
//	ARGON2      1 GiB; 4 GiB written in all passes     4 TiB, 2^32 passes
//	yescrypt    1 GiB; 4 GiB written in all passes     what the machine has
//	scrypt      1 GiB; 4 GiB written by all lanes      what the machine has
//	bcrypt      cost 16                                31
//	sha*-crypt  5,000,000 rounds                       999,999,999; sha1-crypt 4,294,967,295
//	SunMD5      2,000,000 rounds                       4,294,963,199
//	BSDi's DES  4,194,304 iterations                   16,777,215
//	PBKDF2      4,000,000 iterations                   4,294,967,295
//	SCRAM       4,000,000 iterations                   4,294,967,295
//
// The greatest of each takes some seconds. Memory says what a comparison needs.
//
// What is not here: gost-yescrypt and OTP.
package scheme

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// The errors. None of them proves that the password is wrong: to a client they
// are temporary.
var (
	ErrUnknownScheme = errors.New("unknown password scheme")
	ErrMalformed     = errors.New("malformed password hash")
	ErrTooCostly     = errors.New("password hash asks for too much work")
	ErrPassword      = errors.New("password cannot be hashed")
)

// maxPassword is the longest password in octets that any scheme looks at: more
// than one SASL response of Dovecot or Postfix can carry.
const maxPassword = 16 << 10

// maxStored is the longest stored value, in octets, that is looked at. The
// longest real ones (PLAIN aside) have about 250.
const maxStored = 64 << 10

type form int

const (
	asIs form = iota
	inBase64
	inHex
)

// spec is one scheme. value is what stands behind the braces, with the encoding
// taken off.
type spec struct {
	name   string
	form   form
	size   int // octets of value, where the scheme fixes them; else 0
	verify func(value, password []byte, user string) (bool, error)
	hash   func(password []byte, o Options) ([]byte, error)
	memory func(value []byte) int64 // octets that verify works in; nil: a few KiB

	sampleOnce sync.Once
	sample     string // for Spend: a complete stored value that no password matches
}

// Options are what some schemes take into a new hash.
type Options struct {
	User   string // DIGEST-MD5: the whole user name, realm included
	Rounds int    // the cost of crypt schemes, PBKDF2, ARGON2 (passes) and SCRAM; 0 is Dovecot's default
}

// Verify reports whether password, of the user's name user, matches stored,
// which has the form "{SCHEME}hash". Scheme names are case-insensitive.
//
// Only nil and true is proof. False without an error is proof of the opposite:
// the password is wrong, or it is one that no hash can stand for (it holds a NUL
// octet, or has more than 16 KiB), or the hash is locked (crypt schemes: it is
// empty or begins with ! or *). Errors: ErrUnknownScheme, ErrMalformed,
// ErrTooCostly.
func Verify(stored string, password []byte, user string) (bool, error) {
	s, enc, text, err := split(stored)
	if err != nil {
		return false, err
	}
	value, err := s.decode(enc, text)
	if err != nil {
		return false, err
	}
	if !hashable(password) {
		return false, nil
	}
	ok, err := s.verify(value, password, user)
	if err != nil {
		return false, fmt.Errorf("scheme %s: %w", s.name, err)
	}
	return ok, nil
}

// Memory returns how many octets Verify takes to compare a password with stored,
// for those who have to keep many comparisons within the memory of the machine. It
// is 0 where that is a few KiB, and where Verify would refuse to compute.
// At most MaxMemory.
func Memory(stored string) int64 {
	s, enc, text, err := split(stored)
	if err != nil || s.memory == nil {
		return 0
	}
	value, err := s.decode(enc, text)
	if err != nil {
		return 0
	}
	return s.memory(value)
}

// MaxMemory is the most that one comparison may take, in octets.
const MaxMemory = 1 << 30

// Hash returns "{SCHEME}hash" of password with Dovecot's default cost and a
// random salt. An encoding suffix, as in "sha256.hex", is kept. Errors:
// ErrUnknownScheme, ErrPassword.
func Hash(scheme string, password []byte) (string, error) {
	return HashWith(scheme, password, Options{})
}

// HashWith is Hash with options. A further error is ErrTooCostly: the rounds are
// outside of what Verify accepts.
func HashWith(scheme string, password []byte, o Options) (string, error) {
	s, enc, explicit, err := find(scheme)
	if err != nil {
		return "", err
	}
	if !hashable(password) {
		return "", fmt.Errorf("scheme %s: %w: it holds a NUL or is too long", s.name, ErrPassword)
	}
	value, err := s.hash(password, o)
	if err != nil {
		return "", fmt.Errorf("scheme %s: %w", s.name, err)
	}
	name := s.name
	if explicit {
		name = strings.ToUpper(scheme)
	}
	switch enc {
	case inHex:
		return "{" + name + "}" + hex.EncodeToString(value), nil
	case inBase64:
		return "{" + name + "}" + base64.StdEncoding.EncodeToString(value), nil
	default:
		return "{" + name + "}" + string(value), nil
	}
}

// Known returns the names of all schemes, sorted.
func Known() []string {
	names := make([]string, 0, len(schemes))
	for name := range schemes {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Spend does the work of one verification and throws the result away, so that
// the answer for an unknown user takes as long as that for a wrong password.
// like is the name of a scheme, or a stored value whose cost is to be imitated.
// What cannot be computed costs nothing.
func Spend(like string, password []byte) {
	if !strings.HasPrefix(like, "{") {
		s, _, _, err := find(like)
		if err != nil {
			return
		}
		s.sampleOnce.Do(func() {
			s.sample, _ = HashWith(s.name, []byte("nobody"), Options{User: "nobody"})
		})
		like = s.sample
	}
	_, _ = Verify(like, password, "nobody")
}

// Locked reports whether stored is one of the hashes of Verify that are locked, which
// are never computed.
func Locked(stored string) bool {
	s, enc, text, err := split(stored)
	if err != nil || !strings.HasSuffix(s.name, "CRYPT") && s.name != "MD5" && !strings.HasPrefix(s.name, "ARGON2") {
		return false
	}
	value, err := s.decode(enc, text)
	return err == nil && locked(value)
}

func hashable(password []byte) bool {
	return len(password) <= maxPassword && !slices.Contains(password, 0)
}

// schemes is filled once, before any other code of the package runs.
var schemes = func() map[string]*spec {
	all := make(map[string]*spec)
	for _, family := range [][]*spec{plainSchemes, digestSchemes, saltedSchemes, cryptSchemes, argon2Schemes, pbkdf2Schemes, hmacSchemes, scramSchemes} {
		for _, s := range family {
			all[s.name] = s
		}
	}
	return all
}()

// find resolves "sha256.hex" to the scheme, the encoding, and whether the
// encoding was named.
func find(name string) (s *spec, enc form, explicit bool, err error) {
	base, suffix, explicit := strings.Cut(strings.ToUpper(name), ".")
	s, ok := schemes[base]
	if !ok {
		return nil, 0, false, fmt.Errorf("%w %.32q", ErrUnknownScheme, name)
	}
	if !explicit {
		return s, s.form, false, nil
	}
	switch suffix {
	case "HEX":
		return s, inHex, true, nil
	case "B64", "BASE64":
		return s, inBase64, true, nil
	default:
		return nil, 0, false, fmt.Errorf("%w %.32q", ErrUnknownScheme, name)
	}
}

// split takes the scheme off a stored value. A fixed-size digest without a
// suffix is hexadecimal where its length says so, and base64 otherwise.
func split(stored string) (s *spec, enc form, text string, err error) {
	if len(stored) > maxStored {
		return nil, 0, "", fmt.Errorf("%w: longer than %d octets", ErrMalformed, maxStored)
	}
	rest, ok := strings.CutPrefix(stored, "{")
	if !ok {
		return nil, 0, "", fmt.Errorf("%w: no {SCHEME} before the hash", ErrUnknownScheme)
	}
	name, text, ok := strings.Cut(rest, "}")
	if !ok {
		// What stands here may be a password that begins with a brace: do not show it.
		return nil, 0, "", fmt.Errorf("%w: no } after the scheme's name", ErrUnknownScheme)
	}
	s, enc, explicit, err := find(name)
	if err != nil {
		return nil, 0, "", err
	}
	if !explicit && enc != asIs && s.size > 0 {
		enc = inBase64
		if len(text) == 2*s.size {
			enc = inHex
		}
	}
	return s, enc, text, nil
}

// decode takes the encoding off. Base64 may hold blanks, as Dovecot's may.
func (s *spec) decode(enc form, text string) ([]byte, error) {
	value := []byte(text)
	var err error
	switch enc {
	case inHex:
		value, err = hex.DecodeString(text)
	case inBase64:
		value, err = base64.StdEncoding.DecodeString(blanks.Replace(text))
	}
	if err != nil {
		return nil, fmt.Errorf("scheme %s: %w: wrong encoding", s.name, ErrMalformed)
	}
	if s.size > 0 && len(value) != s.size {
		return nil, fmt.Errorf("scheme %s: %w: %d octets, want %d", s.name, ErrMalformed, len(value), s.size)
	}
	return value, nil
}

var blanks = strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "")
