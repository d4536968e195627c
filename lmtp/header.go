package lmtp

import (
	"bufio"
	"bytes"
	"io"
	"iter"
)

const (
	// maxHeader is how much of a message is looked at for its header.
	maxHeader = 256 << 10
	// maxField bounds a field, unfolded: what is longer is cut.
	maxField = 16 << 10
)

// Header yields the fields of a message's header in their order: the name as it is written, and
// the value without line ends and without blanks around it. A line that is no field
// ends the header, as an empty line does. At most 256 KiB are looked at. A message that cannot be
// read has a header that ends there: who stores it will find out.
func Header(msg Message) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		r := bufio.NewReaderSize(io.LimitReader(msg.Open(), maxHeader), 4<<10)
		var name string
		var value []byte
		for {
			line, folded, err := headerLine(r)
			if folded && name != "" {
				value = append(value, line[:min(len(line), max(0, maxField-len(value)))]...)
			} else {
				if name != "" && !yield(name, string(bytes.TrimSpace(value))) {
					return
				}
				n, v, ok := bytes.Cut(line, []byte{':'})
				n = bytes.TrimRight(n, " \t")
				if folded || !ok || len(n) == 0 || bytes.ContainsAny(n, " \t") {
					return
				}
				name, value = string(n), append(value[:0], v...)
			}
			if err != nil {
				if name != "" {
					yield(name, string(bytes.TrimSpace(value)))
				}
				return
			}
		}
	}
}

// headerLine reads a line without its end, at most maxField octets of it. folded says that it
// goes on with the field before.
func headerLine(r *bufio.Reader) (line []byte, folded bool, err error) {
	for {
		var part []byte
		part, err = r.ReadSlice('\n')
		line = append(line, part[:min(len(part), maxField-len(line))]...)
		if err != bufio.ErrBufferFull {
			break
		}
	}
	line = bytes.TrimRight(line, "\r\n")
	return line, len(line) > 0 && (line[0] == ' ' || line[0] == '\t'), err
}
