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
		size, line, ok1 := number(line, math.MaxInt64/2)
		count, _, ok2 := number(line, math.MaxInt32)
		if !ok1 || !ok2 {
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

// number reads the word that line begins with, a number from -limit to limit, and returns what
// follows. By that, hundreds of lines are read for each delivery.
func number(line []byte, limit int64) (n int64, rest []byte, ok bool) {
	i := 0
	for i < len(line) && isBlank(line[i]) {
		i++
	}
	negative := i < len(line) && line[i] == '-'
	if negative || i < len(line) && line[i] == '+' {
		i++
	}
	start := i
	for ; i < len(line) && '0' <= line[i] && line[i] <= '9'; i++ {
		if n > limit/10 {
			return 0, nil, false
		}
		n = 10*n + int64(line[i]-'0')
	}
	if i == start || n > limit || i < len(line) && !isBlank(line[i]) {
		return 0, nil, false
	}
	if negative {
		n = -n
	}
	return n, line[i:], true
}

func isBlank(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

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
