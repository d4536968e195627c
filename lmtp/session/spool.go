package session

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
)

const (
	smallBuffer = 32 << 10  // what every message starts with
	largeBuffer = 256 << 10 // what a message may keep in memory while the budget lasts
)

var (
	errTooLarge = errors.New("message is larger than message_size_limit")
	errNoSpace  = errors.New("the spools of all sessions together are at their limit")
)

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

// usage counts what the spools of all sessions of a Handler hold.
type usage struct {
	memory atomic.Int64 // octets of large buffers
	disk   atomic.Int64 // octets of files
}

// take adds n to c unless that goes beyond limit; limit 0 is none.
func take(c *atomic.Int64, n, limit int64) bool {
	if c.Add(n) > limit && limit > 0 {
		c.Add(-n)
		return false
	}
	return true
}

// A spool holds one message until it is delivered: in memory up to largeBuffer,
// beyond it in a file without a name, which ends with the process. The first
// error is kept in err, and what is added after it is dropped.
type spool struct {
	h    *Handler
	max  int64 // octets that may be added; 0: no limit
	size int64 // octets added
	err  error

	buf   []byte // what is not in file
	small *[smallBuffer]byte
	large *[largeBuffer]byte
	file  *os.File
	disk  int64 // octets of file
}

func newSpool(h *Handler) *spool {
	s := &spool{h: h, small: smallBuffers.Get().(*[smallBuffer]byte)}
	s.buf = s.small[:0]
	return s
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

// grow exchanges the small buffer for a large one. It reports false when that was
// done before, or when memory is short: then a file it is.
func (s *spool) grow() bool {
	if s.large != nil || s.file != nil || !take(&s.h.usage.memory, largeBuffer, s.h.SpoolMemory) {
		return false
	}
	s.large = largeBuffers.Get().(*[largeBuffer]byte)
	s.buf = append(s.large[:0], s.buf...)
	smallBuffers.Put(s.small)
	s.small = nil
	return true
}

// flush moves the buffer to the file.
func (s *spool) flush() error {
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
	n := int64(len(s.buf))
	if !take(&s.h.usage.disk, n, s.h.SpoolDisk) {
		return errNoSpace
	}
	s.disk += n
	if _, err := s.file.Write(s.buf); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	s.buf = s.buf[:0]
	return nil
}

// fail keeps err and gives the room back: what follows is only read past.
func (s *spool) fail(err error) {
	s.release()
	s.err = err
}

// finish ends the message. After it, open may be called as often as needed.
func (s *spool) finish() error {
	if s.err == nil && s.file != nil {
		if err := s.flush(); err != nil {
			s.fail(err)
		}
		s.releaseBuffers()
	}
	return s.err
}

// open returns a reader of the whole message: a *bytes.Reader or an
// *io.SectionReader, so that whoever reads it can ask for its Size.
func (s *spool) open() io.Reader {
	if s.file != nil {
		return io.NewSectionReader(s.file, 0, s.size)
	}
	return bytes.NewReader(s.buf)
}

// release gives everything back. It may be called more than once.
func (s *spool) release() {
	s.releaseBuffers()
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
	s.h.usage.disk.Add(-s.disk)
	s.disk = 0
}

func (s *spool) releaseBuffers() {
	s.buf = nil
	if s.small != nil {
		smallBuffers.Put(s.small)
		s.small = nil
	}
	if s.large != nil {
		largeBuffers.Put(s.large)
		s.large = nil
		s.h.usage.memory.Add(-largeBuffer)
	}
}
