package session

import (
	"bufio"
	"bytes"
	"io"
)

// A sink takes the octets of a message. It keeps its first error to itself, so
// that a section is read to its end whatever became of what was in it.
type sink interface{ add(p []byte) }

// state is what a decoder must know of the octets behind it.
type state byte

const (
	atLineStart state = iota // after CRLF, or nothing was read yet
	inLine
	afterCR      // in a line, one CR is held back
	afterDot     // after a line start and "."; the dot is held back
	afterDotCR   // after a line start and "." CR; both are held back
	afterLastDot // the section is over
)

// A decoder turns a message on the wire into the message on disk: CRLF becomes
// LF; bare CR, bare LF, NUL and octets above 127 stay. Only CRLF ends a line: a
// dot after a bare LF or a bare CR neither ends the message nor is it removed, or
// two servers in a row could see two different messages.
type decoder struct{ state state }

// data decodes octets of a DATA section, RFC 5321 4.5.2, and returns how many of
// p belong to it; d.state is afterLastDot when the section has ended. It may
// change p, and it works through p line by line, not octet by octet.
func (d *decoder) data(p []byte, to sink) (n int) {
	for n < len(p) && d.state != afterLastDot {
		switch c := p[n]; d.state {
		case atLineStart:
			if c == '.' {
				d.state = afterDot
				n++
				break
			}
			d.state = inLine
		case inLine, afterCR:
			n += d.line(p[n:], to)
		case afterDot:
			if c == '\r' {
				d.state = afterDotCR
				n++
				break
			}
			d.state = inLine // the dot was stuffing
		case afterDotCR:
			if c == '\n' {
				d.state = afterLastDot
				n++
				break
			}
			d.state = afterCR // the dot was stuffing, the CR was not
		}
	}
	return n
}

// chunk decodes octets of a BDAT chunk: RFC 3030 2.
func (d *decoder) chunk(p []byte, to sink) {
	for len(p) > 0 {
		if d.state == atLineStart {
			d.state = inLine
		}
		p = p[d.line(p, to):]
	}
}

// end hands over what is held back when no more octets follow.
func (d *decoder) end(to sink) {
	if d.state == afterCR {
		to.add([]byte{'\r'})
	}
	d.state = inLine
}

// line decodes octets up to the end of a line or of p and returns how many. The
// state is inLine or afterCR.
func (d *decoder) line(p []byte, to sink) (n int) {
	if d.state == afterCR {
		if p[0] == '\n' {
			d.state = atLineStart
			to.add(p[:1])
			return 1
		}
		d.state = inLine
		to.add([]byte{'\r'})
	}
	i := bytes.IndexByte(p, '\n')
	switch {
	case i > 0 && p[i-1] == '\r':
		d.state = atLineStart
		p[i-1] = '\n'
		to.add(p[:i])
		return i + 1
	case i >= 0:
		to.add(p[:i+1])
		return i + 1
	case p[len(p)-1] == '\r':
		d.state = afterCR
		to.add(p[:len(p)-1])
	default:
		to.add(p)
	}
	return len(p)
}

// readData reads one DATA section from r, CRLF "." CRLF included and not an octet
// more. It returns what r returned, io.ErrUnexpectedEOF for its end.
func readData(r *bufio.Reader, to sink) error {
	var d decoder
	for d.state != afterLastDot {
		p, err := buffered(r)
		if err != nil {
			return err
		}
		r.Discard(d.data(p, to))
	}
	return nil
}

// readChunk reads a BDAT chunk of size octets from r. Errors as of readData.
func readChunk(r *bufio.Reader, size int64, d *decoder, to sink) error {
	for size > 0 {
		p, err := buffered(r)
		if err != nil {
			return err
		}
		p = p[:min(size, int64(len(p)))]
		d.chunk(p, to)
		size -= int64(len(p))
		r.Discard(len(p))
	}
	return nil
}

// buffered returns what r has, at least one octet.
func buffered(r *bufio.Reader) ([]byte, error) {
	if r.Buffered() == 0 {
		if _, err := r.Peek(1); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return r.Peek(r.Buffered())
}
