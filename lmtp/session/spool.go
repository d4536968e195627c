package session

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

const (
	smallBuffer = 32 << 10  // what every message starts with
	largeBuffer = 256 << 10 // what it gets more of, one at a time, while the budget lasts
	maxMemory   = 2 << 20   // what a message may keep in memory
)

var (
	errTooLarge = errors.New("message is larger than message_size_limit")
	errBusy     = errors.New("too much is written at a time")
	errNoSpace  = errors.New("the spools of all sessions together are at their limit")
)

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

// usage counts what the spools of all sessions of a Handler hold.
type usage struct {
	memory atomic.Int64 // octets of large buffers
	disk   budget       // octets of files
	work   budget       // files that are worked on
}

// take adds n to c unless that goes beyond limit; limit 0 is none.
func take(c *atomic.Int64, n, limit int64) bool {
	if c.Add(n) > limit && limit > 0 {
		c.Add(-n)
		return false
	}
	return true
}

// A spool holds one message until it is delivered: in memory up to maxMemory,
// beyond it in a file without a name, which ends with the process. The first
// error is kept in err, and what is added after it is dropped.
type spool struct {
	h    *Handler
	stop <-chan struct{} // when it is closed nothing is waited for
	max  int64           // octets that may be added; 0: no limit
	size int64           // octets added
	own  int64           // of them: the session's headers, which come first
	err  error

	buf    []byte // the end of what is not in file, in small or the last of large
	small  *[smallBuffer]byte
	large  []*[largeBuffer]byte // all but the last are full
	memory int64                // octets of h.usage.memory that are held for large
	file   *os.File
	onDisk int64 // octets in file
	disk   int64 // octets of h.usage.disk that are held for file
}

func newSpool(h *Handler, stop <-chan struct{}) *spool {
	s := &spool{h: h, stop: stop, small: smallBuffers.Get().(*[smallBuffer]byte)}
	s.buf = s.small[:0]
	return s
}

// begin adds the session's headers.
func (s *spool) begin(headers []byte) {
	s.own = int64(len(headers))
	s.add(headers)
}

// add appends p.
func (s *spool) add(p []byte) {
	if s.err != nil {
		return
	}
	s.size += int64(len(p))
	if s.max > 0 && s.size > s.max {
		s.fail(errTooLarge)
		return
	}
	for len(p) > cap(s.buf)-len(s.buf) {
		n := cap(s.buf) - len(s.buf)
		s.buf = append(s.buf, p[:n]...)
		p = p[n:]
		if s.grow() {
			continue
		}
		if err := s.flush(); err != nil {
			s.fail(err)
			return
		}
	}
	s.buf = append(s.buf, p...)
}

// grow gives the message a large buffer more. It reports false when it is to go to a file, which has but
// one: it is long, or memory is short.
func (s *spool) grow() bool {
	has := int64(len(s.large)) * largeBuffer
	if s.file != nil || s.disk > 0 && has > 0 || has == maxMemory {
		return false
	}
	if has == s.memory {
		if !take(&s.h.usage.memory, largeBuffer, s.h.SpoolMemory) {
			return false
		}
		s.memory += largeBuffer
	}
	next := largeBuffers.Get().(*[largeBuffer]byte)
	if s.small != nil {
		s.buf = append(next[:0], s.buf...)
		smallBuffers.Put(s.small)
		s.small = nil
	} else {
		s.buf = next[:0]
	}
	s.large = append(s.large, next)
	return true
}

// pieces are what is not in file, one behind the other. The first has all of the session's headers, unless
// there is a file.
func (s *spool) pieces() net.Buffers {
	var all net.Buffers
	for _, full := range s.large[:max(len(s.large)-1, 0)] {
		all = append(all, full[:])
	}
	return append(all, s.buf)
}

// flush moves what is in memory to the file, and keeps one buffer.
func (s *spool) flush() error {
	n := int64(len(s.buf))
	if full := len(s.large) - 1; full > 0 {
		n += int64(full) * largeBuffer
	}
	if err := s.hold(s.onDisk + n); err != nil {
		return err
	}
	if !s.h.enterDisk(1, s.stop) {
		return errBusy
	}
	defer s.h.leaveDisk(1)
	if s.file == nil {
		file, err := os.CreateTemp(s.h.SpoolDir, "lmtp")
		if err != nil {
			return fmt.Errorf("spool: %w", err)
		}
		s.file = file
		if err := os.Remove(file.Name()); err != nil {
			return fmt.Errorf("spool: %w", err)
		}
	}
	s.onDisk += n
	for _, piece := range s.pieces() {
		if _, err := s.file.Write(piece); err != nil {
			return fmt.Errorf("spool: %w", err)
		}
	}
	if len(s.large) > 0 {
		s.keep(1)
	}
	s.buf = s.buf[:0]
	return nil
}

// keep gives large buffers back, and their memory, until the last n are left.
func (s *spool) keep(n int) {
	for _, b := range s.large[:len(s.large)-n] {
		largeBuffers.Put(b)
	}
	s.large = s.large[len(s.large)-n:]
	s.h.usage.memory.Add(int64(n)*largeBuffer - s.memory)
	s.memory = int64(n) * largeBuffer
}

// reserve takes the memory for a message of size octets, or else waits until there is room on disk.
// Errors: errNoSpace.
func (s *spool) reserve(size int64) error {
	need := size + s.size
	if s.err != nil || need <= largeBuffer {
		return s.err
	}
	if need <= maxMemory {
		n := (need + largeBuffer - 1) / largeBuffer * largeBuffer
		if take(&s.h.usage.memory, n-s.memory, s.h.SpoolMemory) {
			s.memory = n
			return nil
		}
	}
	return s.hold(size)
}

// hold sees to it that n octets of the budget are held, and waits for them while others
// hold them. What no end of another message can make room for is not waited for.
func (s *spool) hold(n int64) error {
	n -= s.disk
	if n <= 0 {
		return nil
	}
	if !s.h.usage.disk.take(n, s.disk, s.h.SpoolDisk, cmp.Or(s.h.SpoolWait, DefaultSpoolWait), s.stop) {
		return errNoSpace
	}
	s.disk += n
	return nil
}

// fail keeps err and gives the room back: what follows is only read past.
func (s *spool) fail(err error) {
	s.release()
	s.err = err
}

// finish ends the message. After it, Open may be called as often as needed.
func (s *spool) finish() error {
	if s.err == nil && s.file != nil {
		if err := s.flush(); err != nil {
			s.fail(err)
		}
		s.releaseBuffers()
	}
	if unused := s.disk - s.onDisk; s.err == nil && unused > 0 {
		s.h.usage.disk.give(unused)
		s.disk = s.onDisk
	}
	return s.err
}

// Open is lmtp.Message's. The reader is an *io.SectionReader, or an io.WriterTo that writes few pieces.
func (s *spool) Open() io.Reader { return s.from(0) }

// Size is lmtp.Message's.
func (s *spool) Size() int64 { return s.size }

// Digest is lmtp.Message's. It reads the message.
func (s *spool) Digest() uint64 {
	h := xxhash.New()
	if _, err := io.Copy(h, s.from(s.own)); err != nil {
		// The file cannot be read, which the delivery will find out, too. Nothing else has this digest.
		return rand.Uint64()
	}
	return h.Sum64()
}

// head returns up to n octets of what the client sent, as long as they can be read. They are the spool's.
func (s *spool) head(n int64) []byte {
	if s.file == nil {
		own := s.pieces()[0][s.own:]
		return own[:min(n, int64(len(own)))]
	}
	head, _ := io.ReadAll(io.LimitReader(s.from(s.own), n))
	return head
}

// from returns a reader of what begins at an offset.
func (s *spool) from(offset int64) io.Reader {
	if s.file != nil {
		return io.NewSectionReader(s.file, offset, s.size-offset)
	}
	all := s.pieces()
	all[0] = all[0][offset:]
	if len(all) == 1 {
		return bytes.NewReader(all[0])
	}
	return &all
}

// release gives everything back. It may be called more than once.
func (s *spool) release() {
	s.releaseBuffers()
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
	if s.disk > 0 {
		s.h.usage.disk.give(s.disk)
		s.disk = 0
	}
}

func (s *spool) releaseBuffers() {
	s.buf = nil
	if s.small != nil {
		smallBuffers.Put(s.small)
		s.small = nil
	}
	s.keep(0)
}
