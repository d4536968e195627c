// Package journal remembers deliveries, so that a message whose acknowledgement got
// lost is not stored twice when the client sends it again.
//
// A delivery is named by what stays the same when it is sent again: the client's queue
// id, the recipient and the digest of the message. Right before a message becomes
// visible the journal is told where from and where to (Intend), and afterwards that it is
// there (Done). When the process dies between the two, these places tell, after its restart, whether
// the message had become visible: a rename takes the draft away.
//
// The records are written, but not synced: they outlive the process, whatever kills it,
// and mostly a power failure. Without its journal a message may come twice; it is never
// lost for the journal's sake. What the disk refuses is logged and forgotten.
package journal

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Defaults of Options. Postfix sends a message again for maximal_queue_lifetime, five days.
const (
	DefaultMaxSize = 64 << 20 // 200,000 deliveries and more
	DefaultMaxAge  = 6 * 24 * time.Hour
)

// Options say how much is kept. The zero value has the defaults.
type Options struct {
	MaxSize int64         // octets of the journal, in two files; 0: DefaultMaxSize
	MaxAge  time.Duration // of a delivery; 0: DefaultMaxAge
	Log     *slog.Logger  // nil: slog.Default()

	boot  string // the boot id of the machine; empty: the kernel's
	clock func() time.Time
}

// Key names one delivery.
type Key [16]byte

// KeyOf makes the name of the delivery of a message to a recipient. queue is the
// client's name for the message, and may be empty.
func KeyOf(queue, recipient string, digest uint64) (k Key) {
	b := make([]byte, 0, 512) // on the stack, and enough for most
	for _, s := range [...]string{queue, recipient} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	sum := sha256.Sum256(binary.LittleEndian.AppendUint64(b, digest))
	copy(k[:], sum[:])
	return k
}

// State is what is known of a delivery.
type State byte

const (
	New   State = iota // nothing
	Begun              // it was about to become visible when the process died
	Done               // it is in the mailbox
)

// Entry is what the journal knows of a delivery.
type Entry struct {
	State State
	When  time.Time
	// Draft is the path of the file that was to be renamed to Final; empty if Begun and not known.
	Draft, Final string
	// Rebooted says that the machine was started again since then, or may have been: of what was not
	// synced nothing is sure.
	Rebooted bool
}

// Move is a message that is about to become visible.
type Move struct {
	Key          Key
	Draft, Final string // absolute paths
}

// Journal is the journal of one process. A nil Journal knows nothing and keeps nothing.
// It is safe for concurrent use.
type Journal struct {
	path    string
	maxSize int64 // of each of the two files
	maxAge  time.Duration
	boot    string
	now     func() time.Time
	log     *slog.Logger

	mu      sync.Mutex // guards what follows
	file    *os.File   // nil: closed, or it could not be opened and the next record tries again
	size    int64
	since   time.Time // when file was begun
	young   generation
	old     generation // of the file before
	claimed map[Key]bool
	failing bool
	buf     []byte
	closed  bool
	later   []byte      // records that go with the next one
	flush   *time.Timer // writes them if none comes
}

// Open reads the journal at path and of path.old, if there are any, and goes on with it. What
// cannot be read is skipped. Errors: the place cannot be written to, or another process has
// the journal (syscall.EWOULDBLOCK).
func Open(path string, o Options) (*Journal, error) {
	j := &Journal{path: path, maxSize: o.MaxSize / 2, maxAge: o.MaxAge, boot: o.boot, now: o.clock, log: o.Log,
		young: newGeneration(), claimed: map[Key]bool{}}
	if o.MaxSize <= 0 {
		j.maxSize = DefaultMaxSize / 2
	}
	if o.MaxAge <= 0 {
		j.maxAge = DefaultMaxAge
	}
	if j.boot == "" {
		j.boot = bootID()
	}
	if j.now == nil {
		j.now = time.Now
	}
	if j.log == nil {
		j.log = slog.Default()
	}
	j.old, _ = j.read(path + ".old")
	if err := j.open(); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return j, nil
}

// bootID is another one after each start of the machine, or unknown.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return unknown
	}
	return strings.TrimSpace(string(id))
}

// unknown is a boot id that is the same as no other.
const unknown = "unknown"

// open opens the file at path, to which all that follows is appended, and reads it.
func (j *Journal) open() error {
	if err := j.attach(j.path); err != nil {
		return err
	}
	j.since = j.now()
	if j.size > 0 {
		var begun time.Time
		if j.young, begun = j.read(j.path); !begun.IsZero() {
			j.since = begun
		}
	}
	return j.begin()
}

// attach opens the file at path and locks it.
func (j *Journal) attach(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		var info os.FileInfo
		if info, err = file.Stat(); err == nil {
			j.file, j.size = file, info.Size()
			return nil
		}
	}
	file.Close()
	return fmt.Errorf("%s: %w", path, err)
}

// begin writes the record of this start of the machine. What somebody has left half written ends
// before it.
func (j *Journal) begin() error { return j.append(appendBoot([]byte{'\n'}, j.now(), j.boot)) }

// Claim asks for the right to deliver, and what is known of that delivery. ok is false while
// somebody else has it: the client has sent the message again before it had an
// answer. What was claimed must be released.
func (j *Journal) Claim(k Key) (e Entry, ok bool) {
	if j == nil {
		return e, true
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.claimed[k] {
		return e, false
	}
	j.claimed[k] = true
	found, known := j.young.get(k)
	if !known {
		found, known = j.old.get(k)
	}
	if known && j.now().Sub(found.When) < j.maxAge {
		e = found
	}
	return e, true
}

// Release ends a claim.
func (j *Journal) Release(k Key) {
	if j == nil {
		return
	}
	j.mu.Lock()
	delete(j.claimed, k)
	j.mu.Unlock()
}

// Intend notes that moves are about to be made.
func (j *Journal) Intend(moves ...Move) {
	if j == nil || len(moves) == 0 {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.now()
	b := j.buf[:0]
	for _, m := range moves {
		if strings.ContainsAny(m.Draft, "\t\n") || strings.ContainsAny(m.Final, "\t\n") {
			m.Draft, m.Final = "", "" // it may come twice
		}
		j.young.set(m.Key, Entry{State: Begun, When: now, Draft: m.Draft, Final: m.Final})
		b = appendRecord(b, 'B', now, m.Key, m.Draft, m.Final)
	}
	_ = j.write(b)
}

// Done notes that the messages are in their mailboxes, or elsewhere, for good.
func (j *Journal) Done(keys ...Key) { _ = j.note('D', keys) }

// Moved is Done for what Intend has named. It writes nothing by itself: until it is written, with
// what comes next or after flushDelay, the places tell the same.
func (j *Journal) Moved(keys ...Key) {
	if j == nil || len(keys) == 0 {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.now()
	for _, k := range keys {
		j.young.set(k, Entry{State: Done, When: now})
		j.later = appendRecord(j.later, 'D', now, k, "", "")
	}
	if len(j.later) > maxLater {
		_ = j.write(j.buf[:0])
	} else if j.flush == nil {
		j.flush = time.AfterFunc(flushDelay, j.writeLater)
	}
}

const (
	flushDelay = time.Second
	maxLater   = 16 << 10
)

// writeLater writes what nothing has come after.
func (j *Journal) writeLater() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.flush = nil
	if len(j.later) > 0 && !j.closed {
		_ = j.write(j.buf[:0])
	}
}

// Forget notes that deliveries have failed. On error the next process will not know it, and as
// it takes a draft that is gone for a message that became visible, the drafts must stay.
func (j *Journal) Forget(keys ...Key) error { return j.note('F', keys) }

func (j *Journal) note(what byte, keys []Key) error {
	if j == nil || len(keys) == 0 {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.now()
	b := j.buf[:0]
	for _, k := range keys {
		j.young.set(k, Entry{State: states[what], When: now})
		b = appendRecord(b, what, now, k, "", "")
	}
	return j.write(b)
}

// write appends b to the file, and begins another file when this one is full. j.mu is held.
func (j *Journal) write(b []byte) error {
	all := append(j.later, b...)
	j.buf, j.later = b[:0], all[:0]
	err := j.ready()
	if err == nil {
		err = j.append(all)
	}
	if err != nil {
		j.fail(err)
		return err
	}
	j.failing = false
	return nil
}

// ready sees to it that there is a file with room.
func (j *Journal) ready() error {
	switch {
	case j.file == nil:
		// What this process knows is in memory, and the file may have less of it.
		if err := j.attach(j.path); err != nil {
			return err
		}
		return j.begin()
	case j.size > j.maxSize || j.now().Sub(j.since) > j.maxAge:
		return j.turn()
	}
	return nil
}

// append writes b. After an error, when the end of the file may be half a record, the file is opened anew.
func (j *Journal) append(b []byte) error {
	n, err := j.file.Write(b)
	j.size += int64(n)
	if err != nil {
		return errors.Join(err, j.shut())
	}
	return nil
}

// turn begins a new file. The one before it becomes the old one, unless the new one cannot be
// written: what is known stays where it is.
func (j *Journal) turn() error {
	full, size := j.file, j.size
	fresh := j.path + ".new"
	_ = os.Remove(fresh)
	err := j.attach(fresh)
	if err == nil {
		err = j.begin()
	}
	if err == nil {
		if err = os.Rename(j.path, j.path+".old"); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	if err == nil {
		err = os.Rename(fresh, j.path)
	}
	if err != nil {
		if j.file != full {
			err = errors.Join(err, j.shut())
		}
		_ = os.Remove(fresh)
		j.file, j.size = full, size
		return err
	}
	j.since = j.now()
	// What the caller is about to write is in young already, which becomes old.
	j.old, j.young = j.young, newGeneration()
	return full.Close()
}

func (j *Journal) shut() error {
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}

// fail tells the log, once, that nothing can be written.
func (j *Journal) fail(err error) {
	if !j.failing {
		j.log.Warn("the journal of deliveries cannot be written: a message that is sent again may come twice", "err", err)
	}
	j.failing = true
	if j.young.size() > maxUnwritten {
		j.old, j.young = j.young, newGeneration()
	}
}

// maxUnwritten bounds what is kept in memory alone.
const maxUnwritten = 100_000

// Stats returns how many deliveries are remembered, and the size of the newer file.
func (j *Journal) Stats() (entries int, octets int64) {
	if j == nil {
		return 0, 0
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.young.size() + j.old.size(), j.size
}

// Close closes the journal; nothing is lost without it.
func (j *Journal) Close() error {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed = true; len(j.later) > 0 {
		_ = j.write(j.buf[:0])
	}
	return j.shut()
}
