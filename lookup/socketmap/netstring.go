package socketmap

import (
	"bufio"
	"errors"
	"io"
	"strconv"
)

const (
	// maxKey is the longest key that is looked up, in octets (socketmap_max_query_size of Postfix 3.12).
	maxKey = 10_000
	// maxRequest bounds the payload of a request: a key, and room for the name of a map.
	maxRequest = maxKey + 1_000
	// maxReply bounds the payload of a reply (socketmap_max_reply_size of Postfix).
	maxReply = 100_000
	// maxSkip is the longest netstring that is read and thrown away for the sake of the framing.
	maxSkip = 1 << 20
)

var (
	// errSyntax says that the peer does not speak netstrings, or that it lost the framing.
	errSyntax = errors.New("malformed netstring")
	// errTooLong says that one netstring was over-size and has been skipped: the next one can be read.
	errTooLong = errors.New("netstring too long")
)

// appendNetstring appends payload as a netstring, "LENGTH:payload,".
func appendNetstring(dst []byte, payload string) []byte {
	dst = strconv.AppendInt(dst, int64(len(payload)), 10)
	dst = append(dst, ':')
	dst = append(dst, payload...)
	return append(dst, ',')
}

// readNetstring reads one netstring of at most limit octets of payload. The
// payload is good until the next read from r: it lies in r's own buffer, unless
// it is larger than that. Leading zeros in the length are fine, as in Postfix.
//
// Errors: io.EOF before the first octet, io.ErrUnexpectedEOF after it,
// errTooLong, errSyntax, or what r says.
func readNetstring(r *bufio.Reader, limit int) ([]byte, error) {
	n, err := readLength(r)
	if err != nil {
		return nil, err
	}
	if n > limit {
		if err := skip(r, n+1); err != nil {
			return nil, err
		}
		return nil, errTooLong
	}
	var b []byte
	if n+1 <= r.Size() {
		b, err = r.Peek(n + 1)
		r.Discard(len(b))
	} else {
		b = make([]byte, n+1)
		_, err = io.ReadFull(r, b)
	}
	if err != nil {
		return nil, unexpected(err)
	}
	if b[n] != ',' {
		return nil, errSyntax
	}
	return b[:n], nil
}

// readLength reads the digits of a netstring's length and the colon.
func readLength(r *bufio.Reader) (int, error) {
	n := 0
	for digits := 0; ; digits++ {
		c, err := r.ReadByte()
		switch {
		case err != nil && digits == 0:
			return 0, err
		case err != nil:
			return 0, unexpected(err)
		case c == ':' && digits > 0:
			return n, nil
		case c < '0' || c > '9' || digits >= 16:
			return 0, errSyntax
		}
		if n = 10*n + int(c-'0'); n > maxSkip {
			return 0, errSyntax
		}
	}
}

// skip throws n octets away, the last of which must be the comma.
func skip(r *bufio.Reader, n int) error {
	if _, err := r.Discard(n - 1); err != nil {
		return unexpected(err)
	}
	switch c, err := r.ReadByte(); {
	case err != nil:
		return unexpected(err)
	case c != ',':
		return errSyntax
	}
	return nil
}

// unexpected turns the end of the stream into an end in the middle.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
