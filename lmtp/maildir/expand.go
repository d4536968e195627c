package maildir

import (
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"dovepost/lmtp"
)

// expand replaces the variables in a path: %[-][0][offset.][width][modifiers]variable
// as Dovecot 2.3 has them. A value that is empty or that could change the directory
// ("/", "..") is an error: names of users come from the net.
func expand(s string, mb *lmtp.Mailbox) (string, error) {
	if strings.IndexByte(s, '%') < 0 {
		return s, nil
	}
	var out strings.Builder
	for {
		text, rest, ok := strings.Cut(s, "%")
		out.WriteString(text)
		if !ok {
			return out.String(), nil
		}
		value, tail, err := expandOne(rest, mb)
		if err != nil {
			return "", fmt.Errorf("variable %%%s: %w", rest[:len(rest)-len(tail)], err)
		}
		out.WriteString(value)
		s = tail
	}
}

// variable is one occurrence: its field widths are used up by the modifiers that need them.
type variable struct {
	offset, width int
	zero          bool
}

// expandOne expands what stands after a percent sign and returns what follows.
func expandOne(s string, mb *lmtp.Mailbox) (value, tail string, err error) {
	var v variable
	sign := 1
	if s, err = v.number(s, &sign); err != nil {
		return "", s, err
	}
	if strings.HasPrefix(s, ".") {
		v.offset, v.width, v.zero = sign*v.width, 0, false
		if s, err = v.number(s[1:], &sign); err != nil {
			return "", s, err
		}
		v.width *= sign
	}
	var mods []byte
	for s != "" && strings.IndexByte("LUXRTDHNM", s[0]) >= 0 {
		mods, s = append(mods, s[0]), s[1:]
	}
	if s == "" {
		return "", s, errors.New("no variable")
	}
	key, tail := s[:1], s[1:]
	if key == "{" {
		end := strings.IndexByte(s, '}')
		if end < 0 {
			return "", "", errors.New("no }")
		}
		key, tail = s[1:end], s[end+1:]
	}
	if key == "%" {
		return "%", tail, nil
	}
	value, ok := lookupVariable(key, mb)
	if !ok {
		return "", tail, errors.New("unknown")
	}
	for _, m := range mods {
		if value, err = v.modify(m, value); err != nil {
			return "", tail, err
		}
	}
	value = v.cut(value)
	if isHome := key == "h" || key == "home"; value == "" || value == "." || value == ".." ||
		strings.ContainsAny(value, "/\x00") && !isHome {
		return "", tail, fmt.Errorf("value %q does not fit a path", value)
	}
	return value, tail, nil
}

// number reads [-][0]digits into width and sign. Four digits are more than any path needs,
// but the modulus of a hash may be larger.
func (v *variable) number(s string, sign *int) (string, error) {
	*sign = 1
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '-' && i == 0:
			*sign = -1
		case c == '0' && v.width == 0:
			v.zero = true
		case c >= '0' && c <= '9':
			if v.width = v.width*10 + int(c-'0'); v.width > 1e6 {
				return s[i:], errors.New("number too large")
			}
		default:
			return s[i:], nil
		}
	}
	return "", nil
}

func lookupVariable(key string, mb *lmtp.Mailbox) (string, bool) {
	local, domain, _ := strings.Cut(mb.User, "@")
	switch key {
	case "u", "user":
		return mb.User, true
	case "n", "username":
		return local, true
	case "d", "domain":
		return domain, true
	case "h", "home":
		return mb.Home, true
	case "s", "service":
		return "lmtp", true
	}
	return "", false
}

// modify applies one modifier letter.
func (v *variable) modify(m byte, s string) (string, error) {
	switch m {
	case 'L':
		return asciiMap(s, 'A', 'Z'), nil
	case 'U':
		return asciiMap(s, 'a', 'z'), nil
	case 'R':
		b := []byte(s)
		slices.Reverse(b)
		return string(b), nil
	case 'T':
		return strings.TrimRight(s, " \t"), nil
	case 'D':
		return strings.ReplaceAll(s, ".", ",dc="), nil
	case 'X':
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			n = 0
		}
		return strconv.FormatUint(n, 16), nil
	case 'H':
		return v.hash(uint64(strHash(s))), nil
	case 'N':
		sum := md5.Sum([]byte(s))
		return v.hash(binary.BigEndian.Uint64(sum[:8])), nil
	case 'M':
		sum := md5.Sum([]byte(s))
		return hex.EncodeToString(sum[:]), nil
	}
	return "", fmt.Errorf("modifier %c is not supported", m)
}

// asciiMap turns the case of the letters from..to.
func asciiMap(s string, from, to byte) string {
	b := []byte(s)
	for i, c := range b {
		if c >= from && c <= to {
			b[i] = c ^ 0x20
		}
	}
	return string(b)
}

// hash writes a hash in hexadecimal: the width is its modulus, the offset its least length.
func (v *variable) hash(h uint64) string {
	if v.width > 0 {
		h %= uint64(v.width)
	}
	s := strconv.FormatUint(h&0xffffffff, 16)
	s = strings.Repeat("0", max(0, min(v.offset, 255)-len(s))) + s
	v.width, v.offset = 0, 0
	return s
}

// strHash is the string hash of Dovecot's %H, which is that of P. J. Weinberger.
func strHash(s string) (h uint32) {
	for i := 0; i < len(s); i++ {
		h = h<<4 + uint32(s[i])
		if g := h & 0xf0000000; g != 0 {
			h ^= g >> 24
			h ^= g
		}
	}
	return h
}

// cut applies offset and width: a negative offset counts from the end, a negative
// width leaves out that much there, a width with a zero before it pads.
func (v *variable) cut(s string) string {
	if v.offset < 0 {
		s = s[max(0, len(s)+v.offset):]
	} else {
		s = s[min(v.offset, len(s)):]
	}
	switch {
	case v.width == 0:
		return s
	case v.zero:
		return strings.Repeat("0", max(0, min(v.width, 255)-len(s))) + s
	case v.width < 0:
		return s[:max(0, len(s)+v.width)]
	}
	return s[:min(v.width, len(s))]
}
