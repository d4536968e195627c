package scheme

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
)

// The schemes of crypt(3). As in Dovecot, where these go through crypt(), the
// identifier in the value decides and not the name of the scheme; but BLF-CRYPT
// takes bcrypt only, and MD5-CRYPT md5-crypt only.
var cryptSchemes = []*spec{
	{name: "CRYPT", verify: verifyCrypt, memory: cryptMemory, hash: hashBcrypt},
	{name: "BLF-CRYPT", verify: verifyBlfCrypt, hash: hashBcrypt},
	{name: "SHA512-CRYPT", verify: verifyCrypt, memory: cryptMemory, hash: sha512Crypt.hash},
	{name: "SHA256-CRYPT", verify: verifyCrypt, memory: cryptMemory, hash: sha256Crypt.hash},
	{name: "MD5-CRYPT", verify: verifyMD5Only, hash: hashMD5Crypt},
	{name: "MD5", verify: verifyMD5, hash: hashMD5Crypt},
	{name: "DES-CRYPT", verify: verifyCrypt, memory: cryptMemory, hash: hashDES},
}

// maxCryptPassword is the longest password of crypt(3): libxcrypt refuses 512
// octets and more, so no hash of such a password exists. It also bounds the work,
// which grows with the length in each of the rounds.
const maxCryptPassword = 511

// cryptAlphabet is crypt(3)'s base64. bcrypt uses the same characters in another order.
const cryptAlphabet = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func verifyCrypt(value, password []byte, user string) (bool, error) {
	if locked(value) || len(password) > maxCryptPassword {
		return false, nil
	}
	id := ""
	if value[0] == '$' {
		if end := bytes.IndexByte(value[1:], '$'); end >= 0 {
			id = string(value[1 : end+1])
		}
	}
	switch id {
	case "6":
		return sha512Crypt.verify(value, password)
	case "5":
		return sha256Crypt.verify(value, password)
	case "1":
		return verifyMD5Crypt(value, password)
	case "2a", "2b", "2x", "2y":
		return verifyBcrypt(value, password)
	case "y", "7":
		return verifyYescrypt(value, password)
	case "3":
		return verifyNT(value, password)
	case "sha1":
		return verifySHA1Crypt(value, password)
	case "":
		return verifyDES(value, password)
	}
	if id == "md5" || strings.HasPrefix(id, "md5,") {
		return verifySunMD5(value, password)
	}
	return false, fmt.Errorf("%w: crypt(3) format not known", ErrMalformed)
}

// cryptMemory: of all formats of crypt(3) two take memory.
func cryptMemory(value []byte) int64 {
	if bytes.HasPrefix(value, []byte("$y$")) || bytes.HasPrefix(value, []byte("$7$")) {
		return yescryptMemory(value)
	}
	return 0
}

func verifyBlfCrypt(value, password []byte, user string) (bool, error) {
	if !locked(value) && !bytes.HasPrefix(value, []byte("$2")) {
		return false, fmt.Errorf("%w: not a bcrypt hash", ErrMalformed)
	}
	return verifyCrypt(value, password, user)
}

// locked tells the ways of passwd(5) to say that no password is right.
func locked(value []byte) bool {
	return len(value) == 0 || value[0] == '!' || value[0] == '*'
}

// cryptDigit returns the value of a character of crypt(3)'s alphabet, or -1.
func cryptDigit(c byte) int { return strings.IndexByte(cryptAlphabet, c) }

// cryptSalt returns n random characters of crypt(3)'s alphabet.
func cryptSalt(n int) string {
	salt := make([]byte, n)
	rand.Read(salt)
	for i := range salt {
		salt[i] = cryptAlphabet[salt[i]&0x3f]
	}
	return string(salt)
}

// appendCrypt64 appends the n lowest sextets of v, the lowest first.
func appendCrypt64(dst []byte, v uint32, n int) []byte {
	for ; n > 0; n-- {
		dst = append(dst, cryptAlphabet[v&0x3f])
		v >>= 6
	}
	return dst
}

// cryptSaltAllowed tells the salts that libxcrypt takes: printable, and none of
// the characters that passwd(5) or crypt(5) have a use for.
func cryptSaltAllowed(salt string) bool {
	for i := range len(salt) {
		if salt[i] <= ' ' || salt[i] > '~' || strings.IndexByte("!*:;\\$", salt[i]) >= 0 {
			return false
		}
	}
	return true
}

// parseCount reads a decimal number between low and high as crypt(5) writes it:
// digits only, no leading zero. Errors: ErrMalformed, and ErrTooCostly above high.
func parseCount(digits string, low, high int) (int, error) {
	n, err := strconv.Atoi(digits)
	if err != nil || n < low || strconv.Itoa(n) != digits {
		return 0, fmt.Errorf("%w: cost", ErrMalformed)
	}
	if n > high {
		return 0, fmt.Errorf("%w: cost %d, limit %d", ErrTooCostly, n, high)
	}
	return n, nil
}

// chooseCount returns the cost for a new hash.
func chooseCount(asked, usual, low, high int) (int, error) {
	switch {
	case asked == 0:
		return usual, nil
	case asked < low || asked > high:
		return 0, fmt.Errorf("%w: cost %d, allowed %d to %d", ErrTooCostly, asked, low, high)
	default:
		return asked, nil
	}
}
