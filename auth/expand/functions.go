package expand

import (
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"os"
	"strconv"
	"strings"

	//lint:ignore SA1019 %{md4:user} is defined by it
	"golang.org/x/crypto/md4"
)

const (
	maxNesting = 8       // of variables in %{if}
	maxRounds  = 1 << 17 // of a hash: a lookup has to end
	pkcs5Size  = 336     // octets that %{pkcs5} derives, however Dovecot came to it
)

// digests are the functions that hash, by name; size is one of Dovecot's.
var digests = map[string]func() hash.Hash{
	"md4": md4.New, "md5": md5.New, "sha1": sha1.New, "sha256": sha256.New, "sha384": sha512.New384, "sha512": sha512.New,
	"sha3-256": func() hash.Hash { return sha3.New256() }, "sha3-512": func() hash.Hash { return sha3.New512() },
	"size": func() hash.Hash { return new(sizeHash) },
}

// long reads what stands between braces: a name, env:NAME, passdb:FIELD[:default],
// userdb:FIELD[:default], HASH[;options]:name, if;a;op;b;then[;else].
func long(name string, depth int) (*Variable, error) {
	if s, ok := find(name); ok {
		return s.variable(), nil
	}
	key, data, _ := strings.Cut(name, ":")
	function, _, _ := strings.Cut(key, ";")
	switch {
	case function == "if":
		return conditional(name, depth)
	case key == "env":
		return &Variable{trusted: true, value: func(Values) (string, error) { return os.Getenv(data), nil }}, nil
	case key == "passdb", key == "userdb":
		field, fallback, _ := strings.Cut(data, ":")
		return rowField(key, field, fallback), nil
	case function == "pkcs5", digests[function] != nil:
		return digest(key, data, depth)
	}
	return nil, fmt.Errorf("unknown variable %%{%s}", name)
}

// rowField is %{passdb:name:default} or %{userdb:name:default}.
func rowField(database, name, fallback string) *Variable {
	return &Variable{value: func(in Values) (string, error) {
		value, ok := field(in.Request, database, name)
		if !ok {
			value = fallback
		}
		return in.escape(value), nil
	}}
}

// hashing are the options of a hash.
type hashing struct {
	new      func() hash.Hash
	pkcs5    bool
	rounds   int
	truncate int // bits; 0: all
	salt     Template
	base64   bool
}

// digest reads key, "sha256;rounds=2,truncate=32,format=base64,salt=x", over the
// variable name.
func digest(key, name string, depth int) (*Variable, error) {
	of, ok := find(name)
	if !ok {
		return nil, fmt.Errorf("unknown variable %%{%s:%s}", key, name)
	}
	algorithm, options, _ := strings.Cut(key, ";")
	h := hashing{new: digests[algorithm], rounds: 1}
	if algorithm == "pkcs5" {
		h = hashing{new: sha256.New, pkcs5: true, rounds: 2048, salt: Template{{text: name}}}
	}
	for option := range strings.SplitSeq(options, ",") {
		if err := h.option(option, depth); err != nil {
			return nil, fmt.Errorf("%%{%s:%s}: %w", key, name, err)
		}
		if strings.HasPrefix(option, "salt=") {
			break // as in Dovecot
		}
	}
	return &Variable{secret: of.secret, fallible: h.salt.fallible(), value: func(in Values) (string, error) {
		salt, err := h.salt.Expand(in)
		if err != nil {
			return "", err
		}
		return h.sum(of.value(in), salt), nil
	}}, nil
}

func (h *hashing) option(option string, depth int) (err error) {
	name, value, ok := strings.Cut(option, "=")
	if !ok {
		return nil
	}
	switch name {
	case "rounds":
		if h.rounds, err = strconv.Atoi(value); err != nil || h.rounds < 1 || h.rounds > maxRounds {
			return fmt.Errorf("rounds=%s is not between 1 and %d", value, maxRounds)
		}
	case "truncate":
		if h.truncate, err = strconv.Atoi(value); err != nil || h.truncate < 0 {
			return fmt.Errorf("truncate=%s is no number", value)
		}
		h.truncate = min(h.truncate, h.new().Size()*8)
	case "salt":
		h.salt, err = Parse(value, func(s string) (*Variable, int, error) { return scan(s, depth+1) })
	case "format":
		if h.base64 = value == "base64"; !h.base64 && value != "hex" && value != "hexuc" {
			return fmt.Errorf("format=%s is not hex, hexuc or base64", value)
		}
	}
	return err
}

// octets hashes value as often as asked for.
func (h *hashing) octets(value, salt string) []byte {
	sum := []byte(value)
	if h.pkcs5 {
		sum, _ = pbkdf2.Key(h.new, value, []byte(salt), h.rounds, pkcs5Size)
	} else {
		for range h.rounds {
			d := h.new()
			d.Write([]byte(salt))
			d.Write(sum)
			sum = d.Sum(nil)
		}
	}
	return sum
}

// sum is octets as a text. hexuc is in small letters, too.
func (h *hashing) sum(value, salt string) string {
	sum := h.octets(value, salt)
	if h.truncate > 0 {
		sum = truncate(sum, h.truncate)
	}
	if h.base64 {
		return base64.StdEncoding.EncodeToString(sum)
	}
	return hex.EncodeToString(sum)
}

// truncate keeps the first bits of sum, as a number.
func truncate(sum []byte, bits int) []byte {
	if bits >= len(sum)*8 {
		return sum
	}
	sum = sum[:(bits+7)/8]
	shift := (8 - bits%8) % 8
	for i := len(sum) - 1; i >= 0 && shift > 0; i-- {
		sum[i] >>= shift
		if i > 0 {
			sum[i] |= sum[i-1] << (8 - shift)
		}
	}
	return sum
}

// sizeHash counts octets.
type sizeHash uint64

func (s *sizeHash) Write(p []byte) (int, error) { *s += sizeHash(len(p)); return len(p), nil }
func (s *sizeHash) Sum(b []byte) []byte         { return binary.BigEndian.AppendUint64(b, uint64(*s)) }
func (s *sizeHash) Reset()                      { *s = 0 }
func (s *sizeHash) Size() int                   { return 8 }
func (s *sizeHash) BlockSize() int              { return 1 }
