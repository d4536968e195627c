package quota

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// maxSizeFile is the length at which a maildirsize file is written anew.
const maxSizeFile = 5120

// usage is what a user has.
type usage struct {
	bytes, messages int64
}

// add adds n times what o is.
func (u *usage) add(o usage, n int64) {
	u.bytes += n * o.bytes
	u.messages += n * o.messages
}

// sizeFile is a maildirsize file: a line of limits, then lines "<octets> <messages>"
// whose sum is the usage.
type sizeFile struct {
	limits Limits
	used   usage
	lines  int           // after the header
	age    time.Duration // 0: not known
}

// counted reports whether the usage was added up not long ago.
func (s sizeFile) counted() bool { return s.lines == 1 && s.age <= stale }

var errSizeFile = errors.New("bad maildirsize file")

// parseSizeFile reads a whole maildirsize file. A last line without its line end is being
// written, or was never finished, and does not count. Anything odd is errSizeFile: the
// file can be computed again.
func parseSizeFile(data []byte) (s sizeFile, err error) {
	if len(data) >= maxSizeFile || bytes.IndexByte(data, 0) >= 0 {
		return s, errSizeFile
	}
	data = data[:bytes.LastIndexByte(data, '\n')+1]
	header, rest, ok := bytes.Cut(data, []byte{'\n'})
	if !ok {
		return s, errSizeFile
	}
	// Older programs write limits of a kind that we do not know: what is not understood is 0.
	_ = s.limits.parseHeader(string(header))
	for line := range bytes.Lines(rest) {
		first, second := twoFields(line)
		size, err1 := strconv.ParseInt(string(first), 10, 64)
		count, err2 := strconv.ParseInt(string(second), 10, 32)
		if err1 != nil || err2 != nil || size > math.MaxInt64/2 || size < math.MinInt64/2 {
			return s, errSizeFile
		}
		s.used.bytes += size
		s.used.messages += count
		s.lines++
		if s.used.bytes > math.MaxInt64/2 || s.used.bytes < math.MinInt64/2 {
			return s, errSizeFile
		}
	}
	if s.lines == 0 || s.used.bytes < 0 || s.used.messages < 0 {
		return s, errSizeFile
	}
	return s, nil
}

// twoFields returns the first two words of a line, empty if there are not so many.
func twoFields(line []byte) (first, second []byte) {
	first = bytes.TrimLeft(line, blanks)
	if i := bytes.IndexAny(first, blanks); i >= 0 {
		first, second = first[:i], bytes.TrimLeft(first[i:], blanks)
	}
	if i := bytes.IndexAny(second, blanks); i >= 0 {
		second = second[:i]
	}
	return first, second
}

const blanks = " \t\n\v\f\r"

// parseHeader reads "1000000S,1000C". On error it keeps what it understood.
func (l *Limits) parseHeader(header string) (err error) {
	*l = Limits{}
	if header == "NOQUOTA" {
		return nil
	}
	for limit := range strings.SplitSeq(header, ",") {
		if limit == "" {
			err = errSizeFile
			continue
		}
		n, e := strconv.ParseUint(limit[:len(limit)-1], 10, 64)
		if e != nil {
			err = errSizeFile
			continue
		}
		switch limit[len(limit)-1] {
		case 'S':
			l.Bytes = int64(min(n, math.MaxInt64))
		case 'C':
			l.Messages = int64(min(n, math.MaxInt64))
		default:
			err = errSizeFile
		}
	}
	return err
}

// append writes the file as it is after a new count: header and one line.
func (s sizeFile) append(dst []byte) []byte {
	if s.limits.Bytes != 0 || s.limits.Messages == 0 {
		dst = append(strconv.AppendInt(dst, s.limits.Bytes, 10), 'S')
	}
	if s.limits.Messages != 0 {
		if s.limits.Bytes != 0 {
			dst = append(dst, ',')
		}
		dst = append(strconv.AppendInt(dst, s.limits.Messages, 10), 'C')
	}
	return s.used.append(append(dst, '\n'))
}

// append writes one line of the file.
func (u usage) append(dst []byte) []byte {
	dst = append(strconv.AppendInt(dst, u.bytes, 10), ' ')
	return append(strconv.AppendInt(dst, u.messages, 10), '\n')
}

// over reports whether u is more than l allows.
func (u usage) over(l Limits) bool {
	return l.Bytes != 0 && u.bytes > l.Bytes || l.Messages != 0 && u.messages > l.Messages
}
