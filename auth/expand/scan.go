package expand

import (
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// cut is what stands before the name of a variable of 2.3:
// [<offset>.]<width>[<modifiers>]<name>.
type cut struct {
	modifiers string
	offset    int // negative: from the end
	width     int // 0: all; negative: all but so many
	zero      bool
}

// maxModifiers is how many letters Dovecot takes for modifiers.
const maxModifiers = 10

// Scan is the Scanner of Dovecot 2.3's variables.
func Scan(s string) (*Variable, int, error) { return scan(s, 0) }

func scan(s string, depth int) (*Variable, int, error) {
	if depth > maxNesting {
		return nil, 0, fmt.Errorf("variables too deep in one another")
	}
	var c cut
	i := c.size(s, 1)
	start := i
	for i < len(s) && strings.IndexByte("LUEXRHNMDT", s[i]) >= 0 && i < start+maxModifiers {
		i++
	}
	c.modifiers = s[start:i]
	if i == len(s) {
		return nil, 0, fmt.Errorf("variable without name: %.20q", s)
	}
	letter := s[i]
	i++
	v := &Variable{}
	switch {
	case letter == '%':
		if i == 2 {
			return nil, 2, nil
		}
		v.value, v.trusted = func(Values) (string, error) { return "%", nil }, true
	case letter == '{':
		end := closing(s[i:])
		if end < 0 {
			return nil, 0, fmt.Errorf("variable without }: %.20q", s)
		}
		var err error
		if v, err = long(s[i:i+end], depth); err != nil {
			return nil, 0, err
		}
		i += end + 1
	case letters[letter] != "":
		v = sources[letters[letter]].variable()
	default:
		return nil, 0, fmt.Errorf("unknown variable %%%c", letter)
	}
	if c == (cut{}) {
		return v, i, nil
	}
	whole := *v
	v.plain = false
	v.value = func(in Values) (string, error) {
		value, err := whole.value(in)
		if err != nil {
			return "", err
		}
		return c.apply(value), nil
	}
	return v, i, nil
}

// variable is the source as a variable without anything before its name.
func (s source) variable() *Variable {
	return &Variable{plain: true, trusted: s.trusted, secret: s.secret,
		value: func(in Values) (string, error) { return s.value(in), nil }}
}

// closing returns where the brace is that closes the one before s; or -1.
func closing(s string) int {
	depth := 1
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// size reads [-][0]<digits>[.[0][-]<digits>] of s from i on and returns where it ends.
func (c *cut) size(s string, i int) int {
	digits := func() (n int) {
		for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
			n = min(n*10+int(s[i]-'0'), 1<<16)
		}
		return n
	}
	accept := func(b byte) bool {
		if i < len(s) && s[i] == b {
			i++
			return true
		}
		return false
	}
	negative := accept('-')
	c.zero = accept('0')
	c.width = digits()
	if !accept('.') {
		return i
	}
	if c.offset = c.width; negative {
		c.offset = -c.offset
	}
	c.zero = accept('0')
	negative = accept('-')
	if c.width = digits(); negative {
		c.width = -c.width
	}
	return i
}

// apply changes a value with the modifiers, one after the other, and cuts it.
func (c cut) apply(s string) string {
	offset, width := c.offset, c.width
	for i := range len(c.modifiers) {
		switch m := c.modifiers[i]; m {
		case 'H', 'N':
			s = hashed(s, m, offset, width)
			offset, width = 0, 0
		default:
			s = modify(s, m)
		}
	}
	if offset < 0 {
		s = s[max(0, len(s)+offset):]
	} else {
		s = s[min(offset, len(s)):]
	}
	switch {
	case c.zero && width > 0:
		return strings.Repeat("0", max(0, width-len(s))) + s
	case c.zero || width == 0:
		return s
	case width < 0 && len(s)+width >= 0:
		return s[:len(s)+width]
	case width < 0:
		return s
	}
	return s[:min(width, len(s))]
}

// modify applies one of Dovecot's modifiers.
func modify(s string, modifier byte) string {
	switch modifier {
	case 'L':
		return Lower(s)
	case 'U':
		return Upper(s)
	case 'E':
		return strings.NewReplacer(`"`, `\"`, `\`, `\\`, `'`, `\'`).Replace(s)
	case 'X':
		n, _ := strconv.ParseUint(s, 10, 64)
		return strconv.FormatUint(n, 16)
	case 'R':
		return reverse(s)
	case 'M':
		sum := md5.Sum([]byte(s))
		return hex.EncodeToString(sum[:])
	case 'D':
		return strings.ReplaceAll(s, ".", ",dc=")
	}
	return strings.TrimRight(s, " \t\r\n\v\f") // 'T'
}

// Lower and Upper fold ASCII letters alone, as %L and %U do.
func Lower(s string) string { return fold(s, 'A') }
func Upper(s string) string { return fold(s, 'a') }

func fold(s string, first byte) string {
	b := []byte(s)
	for i, c := range b {
		if c >= first && c < first+26 {
			b[i] = c ^ 0x20
		}
	}
	return string(b)
}

func reverse(s string) string {
	b := []byte(s)
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return string(b)
}

// hashed is %H, the PJW hash, or %N, the head of an MD5 sum: modulo width, in
// hexadecimal, with zeros up to offset digits.
func hashed(s string, modifier byte, offset, width int) string {
	var n uint64
	if modifier == 'H' {
		var h uint32
		for i := range len(s) {
			h = h<<4 + uint32(s[i])
			if g := h & 0xf0000000; g != 0 {
				h ^= g >> 24
				h ^= g
			}
		}
		n = uint64(h)
	} else {
		sum := md5.Sum([]byte(s))
		n = binary.BigEndian.Uint64(sum[:])
	}
	if width > 0 {
		n %= uint64(width)
	}
	text := strconv.FormatUint(uint64(uint32(n)), 16)
	return strings.Repeat("0", max(0, offset-len(text))) + text
}
