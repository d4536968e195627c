package dovecot

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Bounds of a line with its LF.
const (
	maxLine  = 16384 // auth-client both ways, and what we read from a master
	maxReply = 8192  // what imap, pop3, lmtp and doveadm read from a master: "too long line" otherwise
)

var errLineTooLong = errors.New("line too long")

// escape is the octet that introduces an escaped one.
const escape = '\x01'

// appendEscaped appends s so that it is one field of one line, whatever it holds.
func appendEscaped(dst []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; c {
		case 0:
			dst = append(dst, escape, '0')
		case escape:
			dst = append(dst, escape, '1')
		case '\t':
			dst = append(dst, escape, 't')
		case '\r':
			dst = append(dst, escape, 'r')
		case '\n':
			dst = append(dst, escape, 'n')
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// unescape is the inverse of appendEscaped. An unknown escape stands for its
// second octet; a lone escape at the end is dropped, as Dovecot does.
func unescape(s string) string {
	if strings.IndexByte(s, escape) < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == escape {
			if i++; i == len(s) {
				break
			}
			switch c = s[i]; c {
			case '0':
				c = 0
			case '1':
				c = escape
			case 't':
				c = '\t'
			case 'r':
				c = '\r'
			case 'n':
				c = '\n'
			}
		}
		b = append(b, c)
	}
	return string(b)
}

// splitLine returns the unescaped fields of a line without its LF.
func splitLine(line string) []string {
	fields := strings.Split(line, "\t")
	for i, f := range fields {
		fields[i] = unescape(f)
	}
	return fields
}

// appendCommand appends the first fields of a line: a word and an id.
func appendCommand(dst []byte, word string, id uint32) []byte {
	dst = append(dst, word...)
	dst = append(dst, '\t')
	return strconv.AppendUint(dst, uint64(id), 10)
}

// appendPair appends a parameter name=value. The name is escaped too, because
// names of userdb fields come from a database.
func appendPair(dst []byte, name, value string) []byte {
	dst = append(dst, '\t')
	dst = appendEscaped(dst, name)
	dst = append(dst, '=')
	return appendEscaped(dst, value)
}

// readLine reads one line of at most maxLine octets, without its LF. r's buffer may
// be smaller: thousands of connections have nothing to say, and few lines are long.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	var long []byte
	for errors.Is(err, bufio.ErrBufferFull) && len(long)+len(line) < maxLine {
		long = append(long, line...)
		line, err = r.ReadSlice('\n')
	}
	if long != nil {
		line = append(long, line...)
	}
	switch {
	case errors.Is(err, bufio.ErrBufferFull) || len(line) > maxLine:
		return "", errLineTooLong
	case err == nil:
		return string(line[:len(line)-1]), nil
	case err == io.EOF && len(line) > 0:
		return "", io.ErrUnexpectedEOF
	default:
		return "", err
	}
}

// clean returns what counts of a line: a CR at its end is no part of it (2.4.5
// sends it), and a raw NUL ends it, as it ends a string in Dovecot.
func clean(line string) string {
	line = strings.TrimSuffix(line, "\r")
	if i := strings.IndexByte(line, 0); i >= 0 {
		line = line[:i]
	}
	return line
}

// parseNumber reads a decimal number of 32 bits.
func parseNumber(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("bad number %.20q", s)
	}
	return uint32(n), nil
}

// parseID reads the id of a new request, which is never 0.
func parseID(s string) (uint32, error) {
	n, err := parseNumber(s)
	if err == nil && n == 0 {
		err = errors.New("id 0")
	}
	return n, err
}

// parseVersion reads the fields of a VERSION line. The major version has to be 1.
func parseVersion(fields []string) (minor int, err error) {
	if len(fields) < 3 || fields[0] != "VERSION" {
		return 0, errors.New("the first line is not VERSION")
	}
	if fields[1] != "1" {
		return 0, fmt.Errorf("unsupported major version %.20q", fields[1])
	}
	minor, err = strconv.Atoi(fields[2])
	if err != nil || minor < 0 {
		return 0, fmt.Errorf("bad minor version %.20q", fields[2])
	}
	return minor, nil
}
