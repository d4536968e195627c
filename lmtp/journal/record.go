package journal

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"hash/crc32"
	"io"
	"os"
	"strconv"
	"time"
)

// A record is a line: a checksum of the rest, its kind, when in seconds since 1970, and
//
//	S  boot id            the process was started
//	B  key TAB draft TAB final   about to be renamed
//	D  key                done
//	F  key                failed: forget it
//
// in fields separated by tabs. A line that is not whole is no record.

const maxRecord = 16 << 10

var table = crc32.MakeTable(crc32.Castagnoli)

// appendBoot appends the record that begins a run.
func appendBoot(b []byte, now time.Time, boot string) []byte {
	return appendLine(b, 'S', now, func(b []byte) []byte { return append(b, boot...) })
}

// appendRecord appends a record about a delivery.
func appendRecord(b []byte, kind byte, now time.Time, k Key, draft, final string) []byte {
	return appendLine(b, kind, now, func(b []byte) []byte {
		b = base64.RawURLEncoding.AppendEncode(b, k[:])
		if kind == 'B' {
			b = append(append(b, '\t'), draft...)
			b = append(append(b, '\t'), final...)
		}
		return b
	})
}

func appendLine(b []byte, kind byte, now time.Time, rest func([]byte) []byte) []byte {
	start := len(b)
	b = append(b, "00000000\t"...)
	body := len(b)
	b = append(b, kind, '\t')
	b = strconv.AppendInt(b, now.Unix(), 10)
	b = append(b, '\t')
	b = rest(b)
	const digits = "0123456789abcdef"
	sum := crc32.Checksum(b[body:], table)
	for i := 7; i >= 0; i-- {
		b[start+i] = digits[sum&15]
		sum >>= 4
	}
	return append(b, '\n')
}

// line is a record.
type line struct {
	kind         byte
	when         time.Time
	key          Key
	boot         string
	draft, final string
}

// parse reads a record without its line feed.
func parse(text []byte) (l line, ok bool) {
	if len(text) < 12 || text[8] != '\t' || text[10] != '\t' {
		return l, false
	}
	sum, err := strconv.ParseUint(string(text[:8]), 16, 32)
	if err != nil || uint32(sum) != crc32.Checksum(text[9:], table) {
		return l, false
	}
	l.kind = text[9]
	fields := bytes.Split(text[11:], []byte{'\t'})
	if len(fields) < 2 {
		return l, false
	}
	seconds, err := strconv.ParseInt(string(fields[0]), 10, 64)
	if err != nil {
		return l, false
	}
	l.when = time.Unix(seconds, 0)
	if l.kind == 'S' {
		l.boot = string(fields[1])
		return l, len(fields) == 2
	}
	n, err := base64.RawURLEncoding.Decode(l.key[:], fields[1][:min(len(fields[1]), 22)])
	if err != nil || n != len(l.key) || len(fields[1]) != 22 {
		return l, false
	}
	switch {
	case l.kind == 'B' && len(fields) == 4:
		l.draft, l.final = string(fields[2]), string(fields[3])
	case (l.kind == 'D' || l.kind == 'F') && len(fields) == 2:
	default:
		return l, false
	}
	return l, true
}

// states are what the kinds of records lead to.
var states = map[byte]State{'B': Begun, 'D': Done, 'F': New}

// read reads what a file remembers, and when it was begun. The end of a record that was cut, or
// anything else that is none, is skipped.
func (j *Journal) read(path string) (g generation, begun time.Time) {
	g = newGeneration()
	file, err := os.Open(path)
	if err != nil {
		return g, begun
	}
	defer file.Close()
	boot := ""
	r := bufio.NewReaderSize(io.LimitReader(file, 8*j.maxSize+maxRecord), maxRecord)
	for {
		text, err := r.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			continue // the rest of it is no record either
		}
		if err != nil {
			return g, begun
		}
		l, ok := parse(text[:len(text)-1])
		if !ok {
			continue
		}
		if begun.IsZero() {
			begun = l.when
		}
		if l.kind == 'S' {
			boot = l.boot
			continue
		}
		g.set(l.key, Entry{State: states[l.kind], When: l.when, Draft: l.draft, Final: l.final, Rebooted: boot != j.boot || boot == unknown})
	}
}

// generation is what one file remembers. Most deliveries are done, so these are kept small.
type generation struct {
	done  map[Key]done
	begun map[Key]Entry // and failed
}

type done struct {
	seconds  int64
	rebooted bool
}

func newGeneration() generation { return generation{map[Key]done{}, map[Key]Entry{}} }

func (g generation) get(k Key) (e Entry, ok bool) {
	if d, ok := g.done[k]; ok {
		return Entry{State: Done, When: time.Unix(d.seconds, 0), Rebooted: d.rebooted}, true
	}
	e, ok = g.begun[k]
	return e, ok
}

func (g generation) set(k Key, e Entry) {
	delete(g.begun, k)
	delete(g.done, k)
	if e.State == Done {
		g.done[k] = done{e.When.Unix(), e.Rebooted}
	} else {
		g.begun[k] = e
	}
}

func (g generation) size() int { return len(g.done) + len(g.begun) }
