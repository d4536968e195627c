package scheme

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"hash"
	"testing"
)

func TestBlockHash(t *testing.T) {
	if !stateIsDigest() {
		t.Error("this Go's states are not as blockHash reads them: logins take longer than they must")
	}
	for name, newHash := range map[string]func() hash.Hash{"SHA-256": sha256.New, "SHA-512": sha512.New} {
		fast, slow := newBlockHash(newHash()), &blockHash{Hash: newHash()}
		for n := range 600 {
			message := bytes.Repeat([]byte{byte(n), 0x80}, n)[:n]
			padded := fast.pad(bytes.Clone(message))
			if len(padded)%fast.BlockSize() != 0 || !bytes.HasPrefix(padded, message) {
				t.Fatalf("%s: %d octets are padded to %d", name, n, len(padded))
			}
			want := fast.sum(message)
			if got := fast.sumPadded(padded); !bytes.Equal(got, want) {
				t.Errorf("%s of %d octets by its state: %x, want %x", name, n, got, want)
			}
			if got := slow.sumPadded(padded); !bytes.Equal(got, want) {
				t.Errorf("%s of %d octets without it: %x, want %x", name, n, got, want)
			}
		}
	}
}
