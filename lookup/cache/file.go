package cache

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// The file that lets answers survive the process:
//
//	magic
//	time of writing, Unix nanoseconds, 8 octets
//	number of maps, and of each the SHA-256 of its name
//	answers: number of the map from 1, key, age in milliseconds,
//	         number of values shifted by one, with "asked again" as the lowest bit, values
//	0
//	SHA-256 of all that
//
// Numbers are unsigned varints, strings come after their length.
const magic = "dovepost cache 1\n"

// Bounds of what is read. Postfix takes no reply longer than 100,000 octets.
const (
	maxMaps   = 1 << 12
	maxString = 1 << 20
	maxValues = 1 << 17
	maxFile   = 4 << 30
	maxAge    = 1 << 38 // milliseconds, more than eight years
)

// maxSkew is how far in the future a file may have been written: clocks are set back a bit.
const maxSkew = time.Minute

// WriteFile writes all answers that could still stand in for one, to a file that is
// complete and durable before it takes the place of the old one. It is only for the
// process's own user. Answers of private maps are left out.
func (c *Cache) WriteFile(path string) (err error) {
	tmp := path + ".tmp"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(tmp)
		}
	}()
	if err := c.write(f); err != nil {
		return fmt.Errorf("%s: %w", tmp, err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// encoder writes the parts of a file. The first error ends it all.
type encoder struct {
	w   *bufio.Writer
	buf []byte
}

func (e *encoder) number(n uint64) {
	e.buf = binary.AppendUvarint(e.buf[:0], n)
	e.w.Write(e.buf)
}

func (e *encoder) text(s string) {
	e.number(uint64(len(s)))
	e.w.WriteString(s)
}

func (c *Cache) write(w io.Writer) error {
	sum := sha256.New()
	e := &encoder{w: bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10)}
	e.w.WriteString(magic)
	e.w.Write(binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano())))

	numbers := map[*space]uint64{}
	var names [][sha256.Size]byte
	c.mu.Lock()
	for _, s := range c.maps {
		if !s.private.Load() && len(names) < maxMaps {
			names = append(names, sha256.Sum256([]byte(s.name)))
			numbers[s] = uint64(len(names))
		}
	}
	c.mu.Unlock()
	e.number(uint64(len(names)))
	for _, name := range names {
		e.w.Write(name[:])
	}
	for i := range c.shards {
		now := c.now()
		for _, entry := range c.shards[i].snapshot() {
			n := numbers[entry.id.space]
			if n == 0 || entry.asked <= now-c.Stale || len(entry.id.key) > maxString || len(entry.values) > maxValues {
				continue
			}
			e.number(n)
			e.text(entry.id.key)
			e.number(uint64(max(now-entry.asked, 0) / time.Millisecond))
			count := uint64(len(entry.values)) << 1
			if entry.again {
				count |= 1
			}
			e.number(count)
			for _, v := range entry.values {
				e.text(v)
			}
		}
	}
	e.number(0)
	if err := e.w.Flush(); err != nil {
		return err
	}
	_, err := w.Write(sum.Sum(nil))
	return err
}

// snapshot returns all entries, those not used for the longest time first. Nothing
// in an entry changes but its neighbours, so they can be read without the lock.
func (s *shard) snapshot() []*entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*entry, 0, len(s.entries))
	for _, l := range []*list{&s.once, &s.again} {
		for e := l.oldest; e != nil; e = e.newer {
			all = append(all, e)
		}
	}
	return all
}

// ReadFile takes the answers of a file that WriteFile has written. Only maps that
// the cache has at this time get theirs back. An answer has aged by the time that has
// passed since, on the wall clock, and is not fresh, however young it is.
//
// Errors: that of opening the file; and a file that is not ours alone to write, is
// damaged, or was written in the future. Then no answer is taken, unless the checksum
// is right and the damage was done by the writer.
func (c *Cache) ReadFile(path string) (answers int, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := ours(f); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	if answers, err = c.read(f); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return answers, nil
}

// ours refuses a file that anybody else could have written.
func ours(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular() || !ok:
		return errors.New("not a regular file")
	case int64(stat.Uid) != int64(os.Geteuid()):
		return fmt.Errorf("belongs to user %d", stat.Uid)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("others can write to it: mode %v", info.Mode())
	}
	return nil
}

var errDamaged = errors.New("damaged")

// read takes the answers from r, which is read twice: nothing is taken before the
// checksum is right.
func (c *Cache) read(r io.ReadSeeker) (answers int, err error) {
	size, err := r.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	size -= sha256.Size
	if size < int64(len(magic)) || size > maxFile {
		return 0, errDamaged
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	if err := checkSum(r, size, sha256.New()); err != nil {
		return 0, err
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	d := &decoder{r: bufio.NewReaderSize(io.LimitReader(r, size), 64<<10)}
	return c.decode(d, time.Now())
}

func checkSum(r io.Reader, size int64, sum hash.Hash) error {
	if _, err := io.CopyN(sum, r, size); err != nil {
		return err
	}
	var want [sha256.Size]byte
	if _, err := io.ReadFull(r, want[:]); err != nil {
		return err
	}
	if string(sum.Sum(nil)) != string(want[:]) {
		return errDamaged
	}
	return nil
}

// decoder reads the parts of a file. After an error everything is empty.
type decoder struct {
	r   *bufio.Reader
	err error
}

func (d *decoder) octets(n int) []byte {
	b := make([]byte, n)
	if d.err == nil {
		_, d.err = io.ReadFull(d.r, b)
	}
	return b
}

func (d *decoder) number(most uint64) uint64 {
	if d.err != nil {
		return 0
	}
	n, err := binary.ReadUvarint(d.r)
	if err == nil && n > most {
		err = errDamaged
	}
	if d.err = err; err != nil {
		return 0
	}
	return n
}

func (d *decoder) text() string { return string(d.octets(int(d.number(maxString)))) }

// decode takes the answers of a file whose checksum is right, as of now.
func (c *Cache) decode(d *decoder, now time.Time) (answers int, err error) {
	if string(d.octets(len(magic))) != magic {
		return 0, errors.New("not a cache, or of another version")
	}
	passed := now.Sub(time.Unix(0, int64(binary.BigEndian.Uint64(d.octets(8)))))
	if passed < -maxSkew {
		return 0, errors.New("written in the future: the clock has been set back")
	}
	if passed = max(passed, 0); passed >= c.Stale {
		return 0, nil
	}

	spaces := make([]*space, d.number(maxMaps))
	byName := map[[sha256.Size]byte]*space{}
	c.mu.Lock()
	for _, s := range c.maps {
		if !s.private.Load() {
			byName[sha256.Sum256([]byte(s.name))] = s
		}
	}
	c.mu.Unlock()
	for i := range spaces {
		spaces[i] = byName[[sha256.Size]byte(d.octets(sha256.Size))]
	}
	for {
		n := d.number(uint64(len(spaces)))
		if d.err != nil || n == 0 {
			return answers, d.err
		}
		e := &entry{id: id{spaces[n-1], d.text()}}
		age := time.Duration(d.number(maxAge)) * time.Millisecond
		count := d.number(maxValues<<1 | 1)
		e.again = count&1 != 0
		for range count >> 1 {
			e.values = append(e.values, d.text())
		}
		if age += passed; d.err != nil || e.id.space == nil || age >= c.Stale {
			continue
		}
		e.asked = c.now() - max(age, c.fresh)
		if c.restore(e) {
			answers++
		}
	}
}

// restore adds an answer of a file, unless there is one already.
func (c *Cache) restore(e *entry) bool {
	s := c.shard(e.id.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries[e.id] != nil {
		return false
	}
	s.add(e)
	return true
}
