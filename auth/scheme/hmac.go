package scheme

import (
	"crypto/md5"
	"crypto/subtle"
	"encoding"
	"encoding/binary"
)

// CRAM-MD5, also called HMAC-MD5: the two MD5 states that HMAC (RFC 2104) reaches
// with this key before any message, outer first, as eight little-endian words. Who
// has them can answer CRAM-MD5 challenges.
var hmacSchemes = []*spec{
	{name: "CRAM-MD5", form: inHex, size: 2 * md5.Size, verify: verifyCRAM, hash: hashCRAM},
	{name: "HMAC-MD5", form: inHex, size: 2 * md5.Size, verify: verifyCRAM, hash: hashCRAM},
}

func verifyCRAM(value, password []byte, _ string) (bool, error) {
	return subtle.ConstantTimeCompare(cramStates(password), value) == 1, nil
}

func hashCRAM(password []byte, _ Options) ([]byte, error) { return cramStates(password), nil }

func cramStates(password []byte) []byte {
	if len(password) > md5.BlockSize {
		sum := md5.Sum(password)
		password = sum[:]
	}
	states := make([]byte, 0, 2*md5.Size)
	for _, pad := range []byte{0x5c, 0x36} {
		var block [md5.BlockSize]byte
		copy(block[:], password)
		for i := range block {
			block[i] ^= pad
		}
		states = appendMD5State(states, block[:])
	}
	return states
}

// appendMD5State appends the four state words after one block. The standard
// library shows them in its marshalled form: the magic "md5\x01", then the words
// in big-endian order.
func appendMD5State(dst, block []byte) []byte {
	h := md5.New()
	h.Write(block)
	marshalled, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		panic("md5 state: " + err.Error()) // it has no way to fail
	}
	for i := range 4 {
		word := binary.BigEndian.Uint32(marshalled[4+4*i:])
		dst = binary.LittleEndian.AppendUint32(dst, word)
	}
	return dst
}
