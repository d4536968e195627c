package sasl

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"time"

	"dovepost/auth"
)

// cram is CRAM-MD5, RFC 2195. It is computed from the two MD5 states of the scheme
// CRAM-MD5 or from the clear password.
type cram struct{ hostname string }

func (cram) Name() string    { return "CRAM-MD5" }
func (cram) Flags() []string { return []string{"dictionary", "active"} }

func (m cram) Start(r *auth.Request, v auth.Verifier) auth.Exchange {
	var nonce [8]byte
	rand.Read(nonce[:])
	challenge := fmt.Sprintf("<%d.%d@%s>", binary.BigEndian.Uint64(nonce[:]), time.Now().Unix(), m.hostname)
	return &cramExchange{r: r, v: v, challenge: []byte(challenge)}
}

type cramExchange struct {
	r         *auth.Request
	v         auth.Verifier
	challenge []byte
	asked     bool
}

// Next sends the challenge, also to a client that has something to say before, as
// Dovecot does; then it takes the name, a blank, and HMAC-MD5 of the challenge in
// hexadecimal. Names may have blanks. Errors: auth.ErrMalformed, the verifier's.
func (x *cramExchange) Next(ctx context.Context, response []byte) ([]byte, *auth.Credentials, error) {
	if !x.asked {
		x.asked = true
		return x.challenge, nil, nil
	}
	blank := bytes.LastIndexByte(response, ' ')
	if blank < 1 || hasNUL(response) {
		return nil, nil, auth.ErrMalformed
	}
	claim(x.r, string(response[:blank]), "")
	digest, err := hex.DecodeString(string(response[blank+1:]))
	if err != nil || len(digest) != md5.Size {
		return nil, nil, auth.ErrMalformed
	}
	row, err := x.v.LookupCredentials(ctx, x.r, "CRAM-MD5")
	if err != nil {
		return nil, nil, err
	}
	want, err := cramDigest(row, x.challenge)
	if err != nil {
		return nil, nil, err
	}
	if !hmac.Equal(digest, want) {
		return nil, nil, auth.ErrPasswordMismatch
	}
	return nil, proven(row), nil
}

// cramDigest is HMAC-MD5 of challenge with the row's secret as key.
func cramDigest(row *auth.Credentials, challenge []byte) ([]byte, error) {
	scheme, value := secret(row)
	if scheme == "PLAIN" {
		mac := hmac.New(md5.New, []byte(value))
		mac.Write(challenge)
		return mac.Sum(nil), nil
	}
	if len(value) != 2*md5.Size {
		return nil, fmt.Errorf("%w: the stored %s has %d octets", auth.ErrPasswordMismatch, scheme, len(value))
	}
	inner, err := resumeMD5(value[md5.Size:])
	if err != nil {
		return nil, err
	}
	outer, err := resumeMD5(value[:md5.Size])
	if err != nil {
		return nil, err
	}
	inner.Write(challenge)
	outer.Write(inner.Sum(nil))
	return outer.Sum(nil), nil
}

// resumeMD5 goes on from the state, four little-endian words, that MD5 had after
// one block. The standard library takes it in its marshalled form: a magic, the
// words in big-endian order, an empty block, and the number of octets so far.
func resumeMD5(state string) (hash.Hash, error) {
	b := []byte("md5\x01")
	for i := 0; i < md5.Size; i += 4 {
		b = binary.BigEndian.AppendUint32(b, binary.LittleEndian.Uint32([]byte(state[i:i+4])))
	}
	b = append(b, make([]byte, md5.BlockSize)...)
	b = binary.BigEndian.AppendUint64(b, md5.BlockSize)
	h := md5.New()
	return h, h.(encoding.BinaryUnmarshaler).UnmarshalBinary(b)
}
