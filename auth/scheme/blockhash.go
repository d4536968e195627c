package scheme

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding"
	"encoding/binary"
	"hash"
	"sync"
)

// blockHash is SHA-256 or SHA-512 for those who hash short messages thousands of times.
//
// The hash functions of the standard library pad the message themselves, in a copy of
// their state: with a message of one block that is a seventh of the time of SHA-512, and a third
// of SHA-256's. A message that is padded already needs none of it, because the digest
// is then the state behind its last block. The state is what AppendBinary gives: four
// octets that name the function, the digest, and more.
type blockHash struct {
	hash.Hash
	state encoding.BinaryAppender // nil: it does not give the digest
	buf   []byte
}

// stateName is how many octets come before the digest in a state.
const stateName = 4

// stateIsDigest is whether the states of this Go are as blockHash reads them; their form is
// Go's own affair.
var stateIsDigest = sync.OnceValue(func() bool {
	message := bytes.Repeat([]byte("0123456789"), 10)
	for _, newHash := range []func() hash.Hash{sha256.New, sha512.New} {
		h := &blockHash{Hash: newHash()}
		var ok bool
		if h.state, ok = h.Hash.(encoding.BinaryAppender); !ok || !bytes.Equal(h.sumPadded(h.pad(message)), h.sum(message)) {
			return false
		}
	}
	return true
})

func newBlockHash(h hash.Hash) *blockHash {
	b := &blockHash{Hash: h}
	if stateIsDigest() {
		b.state = h.(encoding.BinaryAppender)
	}
	return b
}

// sum returns the digest of the parts of a message.
func (b *blockHash) sum(parts ...[]byte) []byte {
	b.Reset()
	for _, part := range parts {
		b.Write(part)
	}
	return b.Sum(nil)
}

// pad completes a message to whole blocks, as FIPS 180-4, 5.1 has it: a one bit, zeros, and
// the number of bits in an eighth of a block.
func (b *blockHash) pad(message []byte) []byte {
	size := b.BlockSize()
	bits := uint64(len(message)) * 8
	message = append(message, 0x80)
	length := size / 8
	used := (len(message) + length) % size
	message = append(message, make([]byte, (size-used)%size+length-8)...)
	return binary.BigEndian.AppendUint64(message, bits)
}

// sumPadded returns the digest of a message that pad has completed. It is valid until
// the next call.
func (b *blockHash) sumPadded(blocks []byte) []byte {
	b.Reset()
	if b.state == nil {
		bits := binary.BigEndian.Uint64(blocks[len(blocks)-8:])
		b.Write(blocks[:bits/8])
		b.buf = b.Sum(b.buf[:0])
		return b.buf
	}
	b.Write(blocks)
	b.buf, _ = b.state.AppendBinary(b.buf[:0]) // never fails
	return b.buf[stateName:][:b.Size()]
}
