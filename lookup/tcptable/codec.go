package tcptable

import (
	"errors"
	"strings"
)

// maxLine is the longest line of the protocol, in octets, with its newline.
const maxLine = 4096

const hexDigits = "0123456789ABCDEF"

// errEncoding says that a percent sign is not followed by two hexadecimal digits.
var errEncoding = errors.New("malformed %XX")

// appendEncoded appends text with everything but printable ASCII, and the percent
// sign itself, as %XX.
func appendEncoded(dst []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c > ' ' && c < 0x7f && c != '%' {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return dst
}

// decode undoes the %XX of text in place and returns what it has become.
func decode(text []byte) ([]byte, error) {
	out := text[:0]
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '%' {
			if i+2 >= len(text) {
				return nil, errEncoding
			}
			hi, lo := unhex(text[i+1]), unhex(text[i+2])
			if hi < 0 || lo < 0 {
				return nil, errEncoding
			}
			c = byte(hi<<4 | lo)
			i += 2
		}
		out = append(out, c)
	}
	return out, nil
}

// unhex returns the value of a hexadecimal digit, or -1.
func unhex(c byte) int {
	if 'a' <= c && c <= 'f' {
		c -= 'a' - 'A'
	}
	return strings.IndexByte(hexDigits, c)
}
