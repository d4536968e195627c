package scheme

import (
	"crypto/subtle"
	"fmt"
	"math/bits"
	"sync"
)

// The crypt(3) of Unix: two characters of salt and eleven of hash. The first
// eight octets of the password are, with seven bits each, the key of a DES whose
// expansion the salt disturbs, so crypto/des cannot serve. bigcrypt hashes each eight
// octets so, with the hash before as the salt; BSDi's takes passwords
// of any length, and a count and a salt of four characters each. They are here
// because old rows have them; nobody should make new ones.

const (
	desCount      = 25
	desText       = 11
	bigcryptParts = 16      // of eight octets
	bsdiMaxCount  = 1 << 22 // about two seconds; crypt(5) itself would allow 16,777,215
	bsdiLen       = 1 + 4 + 4 + desText
)

func verifyDES(value, password []byte) (bool, error) {
	letters := value
	if value[0] == '_' {
		letters = value[1:]
	}
	for _, c := range letters {
		if cryptDigit(c) < 0 {
			return false, fmt.Errorf("%w: character", ErrMalformed)
		}
	}
	var got []byte
	switch parts := (len(value) - 2) / desText; {
	case value[0] == '_' && len(value) == bsdiLen:
		in := &little64{text: value[1:]}
		count, salt := in.fixed(24), in.fixed(24)
		if count > bsdiMaxCount {
			return false, fmt.Errorf("%w: count %d, limit %d", ErrTooCostly, count, bsdiMaxCount)
		}
		got = append(got, value[:9]...)
		got = appendDES(got, bsdiKey(password), uint32(salt), int(max(count, 1)))
	case len(value) == 2+desText:
		got = desCrypt(password[:min(len(password), 8)], value[:2])
	case len(value) == 2+parts*desText && parts <= bigcryptParts:
		got = desCrypt(password[:min(len(password), 8*bigcryptParts)], value[:2])
	default:
		return false, fmt.Errorf("%w: crypt(3) format not known", ErrMalformed)
	}
	return subtle.ConstantTimeCompare(got, value) == 1, nil
}

func hashDES(password []byte, _ Options) ([]byte, error) {
	if len(password) > maxCryptPassword {
		return nil, fmt.Errorf("%w: longer than %d octets", ErrPassword, maxCryptPassword)
	}
	return desCrypt(password[:min(len(password), 8)], []byte(cryptSalt(2))), nil
}

// desCrypt returns salt and hash: 13 characters, and 11 more for each further eight
// octets of the password. salt is two of cryptAlphabet.
func desCrypt(password, salt []byte) []byte {
	text := append(make([]byte, 0, 2+desText), salt...)
	for {
		part := password[:min(len(password), 8)]
		text = appendDES(text, desKey(0, part), uint32((&little64{text: salt}).fixed(12)), desCount)
		if password = password[len(part):]; len(password) == 0 {
			return text
		}
		salt = text[len(text)-desText:][:2]
	}
}

// desKey mixes up to eight octets of a password into a key.
func desKey(key uint64, part []byte) uint64 {
	for i, c := range part {
		key ^= uint64(c<<1) << (56 - 8*i) // the lowest bit is DES's parity
	}
	return key
}

// bsdiKey encrypts the key with itself before each further eight octets.
func bsdiKey(password []byte) uint64 {
	key := desKey(0, password[:min(len(password), 8)])
	for len(password) > 8 {
		password = password[8:]
		key = desKey(desEncrypt(key, key, 0, 1), password[:min(len(password), 8)])
	}
	return key
}

// appendDES appends the eleven characters of a block of zeros, encrypted count times.
func appendDES(dst []byte, key uint64, salt uint32, count int) []byte {
	block := desEncrypt(key, 0, salt, count)
	for shift := 58; shift >= -2; shift -= 6 {
		sextet := block << 2
		if shift >= 0 {
			sextet = block >> shift
		}
		dst = append(dst, cryptAlphabet[sextet&0x3f])
	}
	return dst
}

// desEncrypt encrypts block count times. The initial and the final permutation
// between two times undo each other.
func desEncrypt(key, block uint64, salt uint32, count int) uint64 {
	keys := desKeys(key)
	// Bit i of the salt swaps bits i and i+24 of the expansion, counted from its front.
	swap := bits.Reverse32(salt) >> 8
	boxes := desBoxes()
	block = permute(block, 64, desInitial[:])
	left, right := uint32(block>>32), uint32(block)
	for range count {
		for _, k := range keys {
			left, right = right, left^desRound(boxes, right, swap, k)
		}
		left, right = right, left
	}
	return permute(uint64(left)<<32|uint64(right), 64, desFinal[:])
}

// desRound is DES's function f; the expansion stands in two halves of 24 bits.
func desRound(boxes *[8][64]uint32, right, swap uint32, key [2]uint32) uint32 {
	var half [2]uint32
	for box := range 8 {
		sextet := bits.RotateLeft32(right, 4*box-1) >> 26
		half[box/4] = half[box/4]<<6 | sextet
	}
	exchanged := (half[0] ^ half[1]) & swap
	half[0] ^= exchanged ^ key[0]
	half[1] ^= exchanged ^ key[1]
	var out uint32
	for box := range 8 {
		out |= boxes[box][half[box/4]>>(18-6*(box%4))&0x3f]
	}
	return out
}

// desKeys returns the sixteen round keys, in halves of 24 bits.
func desKeys(key uint64) (keys [16][2]uint32) {
	chosen := permute(key, 64, desChoice1[:])
	c, d := uint32(chosen>>28), uint32(chosen&0xfffffff)
	for i, shift := range desShifts {
		c = (c<<shift | c>>(28-shift)) & 0xfffffff
		d = (d<<shift | d>>(28-shift)) & 0xfffffff
		k := permute(uint64(c)<<28|uint64(d), 56, desChoice2[:])
		keys[i] = [2]uint32{uint32(k >> 24), uint32(k & 0xffffff)}
	}
	return keys
}

// permute picks bits of v, which is width bits wide; tables count from 1 at the front.
func permute(v uint64, width int, table []uint8) (out uint64) {
	for _, from := range table {
		out = out<<1 | v>>(width-int(from))&1
	}
	return out
}

func inverse(table [64]uint8) (inv [64]uint8) {
	for to, from := range table {
		inv[from-1] = uint8(to + 1)
	}
	return inv
}

// desBoxes returns the substitution boxes with the permutation P already done.
var desBoxes = sync.OnceValue(func() *[8][64]uint32 {
	var boxes [8][64]uint32
	for box := range 8 {
		for in := range 64 {
			row, column := in>>4&2|in&1, in>>1&15
			nibble := uint64(desSubstitution[box][16*row+column])
			boxes[box][in] = uint32(permute(nibble<<(28-4*box), 32, desP[:]))
		}
	}
	return &boxes
})

// The tables of FIPS 46-3.
var (
	desShifts  = [16]int{1, 1, 2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 1}
	desChoice1 = [56]uint8{
		57, 49, 41, 33, 25, 17, 9, 1, 58, 50, 42, 34, 26, 18, 10, 2, 59, 51, 43, 35, 27, 19, 11, 3, 60, 52, 44, 36,
		63, 55, 47, 39, 31, 23, 15, 7, 62, 54, 46, 38, 30, 22, 14, 6, 61, 53, 45, 37, 29, 21, 13, 5, 28, 20, 12, 4,
	}
	desChoice2 = [48]uint8{
		14, 17, 11, 24, 1, 5, 3, 28, 15, 6, 21, 10, 23, 19, 12, 4, 26, 8, 16, 7, 27, 20, 13, 2,
		41, 52, 31, 37, 47, 55, 30, 40, 51, 45, 33, 48, 44, 49, 39, 56, 34, 53, 46, 42, 50, 36, 29, 32,
	}
	desP = [32]uint8{
		16, 7, 20, 21, 29, 12, 28, 17, 1, 15, 23, 26, 5, 18, 31, 10,
		2, 8, 24, 14, 32, 27, 3, 9, 19, 13, 30, 6, 22, 11, 4, 25,
	}
	desInitial = inverse(desFinal)
	desFinal   = [64]uint8{
		40, 8, 48, 16, 56, 24, 64, 32, 39, 7, 47, 15, 55, 23, 63, 31, 38, 6, 46, 14, 54, 22, 62, 30, 37, 5, 45, 13, 53, 21, 61, 29,
		36, 4, 44, 12, 52, 20, 60, 28, 35, 3, 43, 11, 51, 19, 59, 27, 34, 2, 42, 10, 50, 18, 58, 26, 33, 1, 41, 9, 49, 17, 57, 25,
	}
	desSubstitution = [8][64]uint8{
		{
			14, 4, 13, 1, 2, 15, 11, 8, 3, 10, 6, 12, 5, 9, 0, 7, 0, 15, 7, 4, 14, 2, 13, 1, 10, 6, 12, 11, 9, 5, 3, 8,
			4, 1, 14, 8, 13, 6, 2, 11, 15, 12, 9, 7, 3, 10, 5, 0, 15, 12, 8, 2, 4, 9, 1, 7, 5, 11, 3, 14, 10, 0, 6, 13,
		},
		{
			15, 1, 8, 14, 6, 11, 3, 4, 9, 7, 2, 13, 12, 0, 5, 10, 3, 13, 4, 7, 15, 2, 8, 14, 12, 0, 1, 10, 6, 9, 11, 5,
			0, 14, 7, 11, 10, 4, 13, 1, 5, 8, 12, 6, 9, 3, 2, 15, 13, 8, 10, 1, 3, 15, 4, 2, 11, 6, 7, 12, 0, 5, 14, 9,
		},
		{
			10, 0, 9, 14, 6, 3, 15, 5, 1, 13, 12, 7, 11, 4, 2, 8, 13, 7, 0, 9, 3, 4, 6, 10, 2, 8, 5, 14, 12, 11, 15, 1,
			13, 6, 4, 9, 8, 15, 3, 0, 11, 1, 2, 12, 5, 10, 14, 7, 1, 10, 13, 0, 6, 9, 8, 7, 4, 15, 14, 3, 11, 5, 2, 12,
		},
		{
			7, 13, 14, 3, 0, 6, 9, 10, 1, 2, 8, 5, 11, 12, 4, 15, 13, 8, 11, 5, 6, 15, 0, 3, 4, 7, 2, 12, 1, 10, 14, 9,
			10, 6, 9, 0, 12, 11, 7, 13, 15, 1, 3, 14, 5, 2, 8, 4, 3, 15, 0, 6, 10, 1, 13, 8, 9, 4, 5, 11, 12, 7, 2, 14,
		},
		{
			2, 12, 4, 1, 7, 10, 11, 6, 8, 5, 3, 15, 13, 0, 14, 9, 14, 11, 2, 12, 4, 7, 13, 1, 5, 0, 15, 10, 3, 9, 8, 6,
			4, 2, 1, 11, 10, 13, 7, 8, 15, 9, 12, 5, 6, 3, 0, 14, 11, 8, 12, 7, 1, 14, 2, 13, 6, 15, 0, 9, 10, 4, 5, 3,
		},
		{
			12, 1, 10, 15, 9, 2, 6, 8, 0, 13, 3, 4, 14, 7, 5, 11, 10, 15, 4, 2, 7, 12, 9, 5, 6, 1, 13, 14, 0, 11, 3, 8,
			9, 14, 15, 5, 2, 8, 12, 3, 7, 0, 4, 10, 1, 13, 11, 6, 4, 3, 2, 12, 9, 5, 15, 10, 11, 14, 1, 7, 6, 0, 8, 13,
		},
		{
			4, 11, 2, 14, 15, 0, 8, 13, 3, 12, 9, 7, 5, 10, 6, 1, 13, 0, 11, 7, 4, 9, 1, 10, 14, 3, 5, 12, 2, 15, 8, 6,
			1, 4, 11, 13, 12, 3, 7, 14, 10, 15, 6, 8, 0, 5, 9, 2, 6, 11, 13, 8, 1, 4, 10, 7, 9, 5, 0, 15, 14, 2, 3, 12,
		},
		{
			13, 2, 8, 4, 6, 15, 11, 1, 10, 9, 3, 14, 5, 0, 12, 7, 1, 15, 13, 8, 10, 3, 7, 4, 12, 5, 6, 11, 0, 14, 9, 2,
			7, 11, 4, 1, 9, 12, 14, 2, 0, 6, 10, 13, 15, 3, 5, 8, 2, 1, 14, 7, 4, 10, 8, 13, 15, 12, 9, 0, 3, 5, 6, 11,
		},
	}
)
