package scheme

import (
	"encoding/binary"
	"math/bits"
	"sync"
)

// The sequential memory-hard part of scrypt (RFC 7914 5) and yescrypt.
//
// Blocks of 64 octets are kept as eight words of 64 bits, in the order in which
// yescrypt's S-box function wants them: word i has words 10i and 10i+5 modulo 16 of
// salsa20's state. That order is its own property of both, and saves the shuffling
// between the steps.

const (
	blockWords = 8
	sboxRounds = 6
)

// smix has the memory of one computation.
type smix struct {
	n, r, p, t uint64
	v, x, y    []uint64
	boxes      *sboxes // nil: blocks are mixed by salsa20/8
	lanes      []sboxes
	memory     *[]uint64
}

// smixMemory keeps the memory for the next hash: to get new pages from the system
// takes a quarter of the time of a hash.
var smixMemory sync.Pool

func newSmix(s *yescryptSetting) *smix {
	block := 16 * s.r
	need := int((s.n + 2) * block)
	memory, _ := smixMemory.Get().(*[]uint64)
	if memory == nil || cap(*memory) < need {
		memory = new([]uint64)
		*memory = make([]uint64, need)
	}
	words := (*memory)[:need]
	return &smix{n: s.n, r: s.r, p: s.p, t: s.t, memory: memory,
		x: words[:block], y: words[block : 2*block], v: words[2*block:]}
}

func (m *smix) free() { smixMemory.Put(m.memory) }

// writeOnce is scrypt's ROMix of each lane, with the passes that yescrypt's t adds.
func (m *smix) writeOnce(b []byte) {
	passes := m.n
	if m.t == 1 {
		passes += (passes + 1) / 2
	}
	if m.t > 0 {
		passes *= m.t
	}
	passes = roundUp(passes)
	lane := int(128 * m.r)
	for ; len(b) > 0; b = b[lane:] {
		m.fill(b[:lane], m.r, m.n, m.v, false)
		m.look(b[:lane], m.n, passes, m.v, false)
	}
}

// readWrite is yescrypt's: all lanes share the memory, each first with a part of its own.
// It returns the password's successor.
func (m *smix) readWrite(b, password []byte) []byte {
	share := m.n / m.p
	passes := share
	switch {
	case m.t == 0:
		passes = (passes + 2) / 3
	case m.t == 1:
		passes = (2*passes + 2) / 3
	default:
		passes *= m.t - 1
	}
	writing := roundUp(passes / m.p)
	passes = roundUp(passes)
	share &^= 1

	m.lanes = make([]sboxes, m.p)
	words := make([]uint64, 3*512)
	lane := int(128 * m.r)
	for i := range int(m.p) {
		mine, n := b[i*lane:][:lane], share
		first := uint64(i) * share
		if i == int(m.p)-1 {
			n = m.n - first
		}
		boxes := &m.lanes[i]
		m.boxes = nil
		m.fill(mine[:128], 1, uint64(len(words)/16), words, false)
		boxes.set(words)
		if i == 0 {
			password = hmacSHA256(mine[lane-64:], password)
		}
		m.boxes = boxes
		v := m.v[16*m.r*first:]
		m.fill(mine, m.r, n, v, true)
		m.look(mine, powerBelow(n), writing, v, true)
	}
	for i := range int(m.p) {
		m.boxes = &m.lanes[i]
		m.look(b[i*lane:][:lane], m.n, passes-writing, m.v, false)
	}
	return password
}

func roundUp(n uint64) uint64 { return (n + 1) &^ 1 }

// powerBelow returns the largest power of two that is not above n.
func powerBelow(n uint64) uint64 { return 1 << (bits.Len64(n) - 1) }

// fill writes n states of b to v, SMix1. With mixIn each also depends on one before.
func (m *smix) fill(b []byte, r, n uint64, v []uint64, mixIn bool) {
	block := 16 * r
	x := m.x[:block]
	load(x, b)
	for i := range n {
		copy(v[i*block:], x)
		if mixIn && i > 1 {
			window := powerBelow(i)
			j := m.chosen(x)&(window-1) + i - window
			xor(x, v[j*block:][:block])
		}
		m.mix(x)
	}
	store(b, x)
}

// look mixes n times a state of v into b, SMix2. With writeBack the state is changed.
func (m *smix) look(b []byte, states, n uint64, v []uint64, writeBack bool) {
	block := 16 * m.r
	x := m.x[:block]
	load(x, b)
	for range n {
		state := v[(m.chosen(x)&(states-1))*block:][:block]
		xor(x, state)
		if writeBack {
			copy(state, x)
		}
		m.mix(x)
	}
	store(b, x)
}

// chosen is Integerify: the first two words of the last block.
func (m *smix) chosen(x []uint64) uint64 {
	last := (*[blockWords]uint64)(x[len(x)-blockWords:])
	return last[0]&0xffffffff | last[6]&^0xffffffff
}

func (m *smix) mix(x []uint64) {
	if m.boxes != nil {
		m.boxes.mix(x)
		return
	}
	// BlockMix: even blocks to the front, odd ones behind.
	y := m.y[:len(x)]
	last := (*[blockWords]uint64)(x[len(x)-blockWords:])
	half := len(x) / 2
	for at := 0; at < len(x); at += blockWords {
		to := at / 2
		if at&blockWords != 0 {
			to = half + (at-blockWords)/2
		}
		out := (*[blockWords]uint64)(y[to:])
		in := (*[blockWords]uint64)(x[at:])
		for i := range out {
			out[i] = in[i] ^ last[i]
		}
		salsa20(out, 8)
		last = out
	}
	copy(x, y)
}

// sbox is one of yescrypt's three S-boxes.
type sbox [256][2]uint64

// sboxes change their places with each call.
type sboxes struct {
	boxes   [3]sbox
	a, b, c *sbox // read, read, written
	at      int   // in c
}

// set takes the words that SMix1 made.
func (s *sboxes) set(words []uint64) {
	for i := range words {
		s.boxes[i/512][i/2%256][i%2] = words[i]
	}
	s.c, s.b, s.a = &s.boxes[0], &s.boxes[1], &s.boxes[2]
}

// mix is BlockMix_pwxform.
func (s *sboxes) mix(x []uint64) {
	last := *(*[blockWords]uint64)(x[len(x)-blockWords:])
	a, b, c := s.a, s.b, s.c
	for len(x) >= blockWords {
		block := (*[blockWords]uint64)(x)
		for i := range last {
			last[i] ^= block[i]
		}
		out := (*[4 * (sboxRounds - 2)][2]uint64)(c[s.at:])
		for lane := range uint(4) {
			pwxform(a, b, out, &last, lane)
		}
		*block = last
		a, b, c = c, a, b
		s.at = (s.at + len(out)) % len(c)
		if x = x[blockWords:]; len(x) == 0 {
			salsa20(block, 2)
		}
	}
	s.a, s.b, s.c = a, b, c
}

// pwxform is what happens in one of the four lanes of two words. The lower half of the
// first word chooses from one S-box, the upper from the other. The lanes do
// not meet in here, so each goes through its rounds at once, in registers; the
// processor overlaps them.
func pwxform(a, b *sbox, out *[4 * (sboxRounds - 2)][2]uint64, x *[blockWords]uint64, lane uint) {
	lane &= 3
	lo, hi := x[2*lane], x[2*lane+1]
	lo, hi = pwxround(a, b, lo, hi)
	lo, hi = pwxround(a, b, lo, hi)
	out[lane] = [2]uint64{lo, hi}
	lo, hi = pwxround(a, b, lo, hi)
	out[4+lane] = [2]uint64{lo, hi}
	lo, hi = pwxround(a, b, lo, hi)
	out[8+lane] = [2]uint64{lo, hi}
	lo, hi = pwxround(a, b, lo, hi)
	out[12+lane] = [2]uint64{lo, hi}
	lo, hi = pwxround(a, b, lo, hi)
	x[2*lane], x[2*lane+1] = lo, hi
}

func pwxround(a, b *sbox, lo, hi uint64) (uint64, uint64) {
	p, q := &a[uint8(lo>>4)], &b[uint8(lo>>36)]
	lo = (lo>>32)*uint64(uint32(lo)) + p[0] ^ q[0]
	hi = (hi>>32)*uint64(uint32(hi)) + p[1] ^ q[1]
	return lo, hi
}

// salsa20 is the core of Salsa20 (RFC 7914 3) on a block in this file's order.
func salsa20(b *[blockWords]uint64, rounds int) {
	lo := func(i int) uint32 { return uint32(b[i]) }
	hi := func(i int) uint32 { return uint32(b[i] >> 32) }
	x0, x5, x10, x15, x4, x9, x14, x3 := lo(0), hi(0), lo(1), hi(1), lo(2), hi(2), lo(3), hi(3)
	x8, x13, x2, x7, x12, x1, x6, x11 := lo(4), hi(4), lo(5), hi(5), lo(6), hi(6), lo(7), hi(7)
	for range rounds / 2 {
		x4 ^= bits.RotateLeft32(x0+x12, 7)
		x8 ^= bits.RotateLeft32(x4+x0, 9)
		x12 ^= bits.RotateLeft32(x8+x4, 13)
		x0 ^= bits.RotateLeft32(x12+x8, 18)
		x9 ^= bits.RotateLeft32(x5+x1, 7)
		x13 ^= bits.RotateLeft32(x9+x5, 9)
		x1 ^= bits.RotateLeft32(x13+x9, 13)
		x5 ^= bits.RotateLeft32(x1+x13, 18)
		x14 ^= bits.RotateLeft32(x10+x6, 7)
		x2 ^= bits.RotateLeft32(x14+x10, 9)
		x6 ^= bits.RotateLeft32(x2+x14, 13)
		x10 ^= bits.RotateLeft32(x6+x2, 18)
		x3 ^= bits.RotateLeft32(x15+x11, 7)
		x7 ^= bits.RotateLeft32(x3+x15, 9)
		x11 ^= bits.RotateLeft32(x7+x3, 13)
		x15 ^= bits.RotateLeft32(x11+x7, 18)

		x1 ^= bits.RotateLeft32(x0+x3, 7)
		x2 ^= bits.RotateLeft32(x1+x0, 9)
		x3 ^= bits.RotateLeft32(x2+x1, 13)
		x0 ^= bits.RotateLeft32(x3+x2, 18)
		x6 ^= bits.RotateLeft32(x5+x4, 7)
		x7 ^= bits.RotateLeft32(x6+x5, 9)
		x4 ^= bits.RotateLeft32(x7+x6, 13)
		x5 ^= bits.RotateLeft32(x4+x7, 18)
		x11 ^= bits.RotateLeft32(x10+x9, 7)
		x8 ^= bits.RotateLeft32(x11+x10, 9)
		x9 ^= bits.RotateLeft32(x8+x11, 13)
		x10 ^= bits.RotateLeft32(x9+x8, 18)
		x12 ^= bits.RotateLeft32(x15+x14, 7)
		x13 ^= bits.RotateLeft32(x12+x15, 9)
		x14 ^= bits.RotateLeft32(x13+x12, 13)
		x15 ^= bits.RotateLeft32(x14+x13, 18)
	}
	add := func(i int, l, h uint32) { b[i] = uint64(lo(i)+l) | uint64(hi(i)+h)<<32 }
	add(0, x0, x5)
	add(1, x10, x15)
	add(2, x4, x9)
	add(3, x14, x3)
	add(4, x8, x13)
	add(5, x2, x7)
	add(6, x12, x1)
	add(7, x6, x11)
}

func xor(x, y []uint64) {
	for len(x) >= blockWords && len(y) >= blockWords {
		a, b := (*[blockWords]uint64)(x), (*[blockWords]uint64)(y)
		a[0], a[1], a[2], a[3] = a[0]^b[0], a[1]^b[1], a[2]^b[2], a[3]^b[3]
		a[4], a[5], a[6], a[7] = a[4]^b[4], a[5]^b[5], a[6]^b[6], a[7]^b[7]
		x, y = x[blockWords:], y[blockWords:]
	}
}

// load and store bring octets into this file's order and back.
func load(x []uint64, b []byte) {
	for i := range x {
		block, pair := b[i/blockWords*64:], i%blockWords*2
		lo, hi := pair*5%16, (pair+1)*5%16
		x[i] = uint64(binary.LittleEndian.Uint32(block[4*lo:])) | uint64(binary.LittleEndian.Uint32(block[4*hi:]))<<32
	}
}

func store(b []byte, x []uint64) {
	for i := range x {
		block, pair := b[i/blockWords*64:], i%blockWords*2
		lo, hi := pair*5%16, (pair+1)*5%16
		binary.LittleEndian.PutUint32(block[4*lo:], uint32(x[i]))
		binary.LittleEndian.PutUint32(block[4*hi:], uint32(x[i]>>32))
	}
}
