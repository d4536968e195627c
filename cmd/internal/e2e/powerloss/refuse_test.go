package powerloss

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"dovepost/cmd/internal/stack/mailclient"

	"golang.org/x/sys/unix"
)

// once checks at the end of a test that all that was acknowledged is there, whole, and once.
func (s *site) once(l *ledger) {
	s.t.Helper()
	acked, open := l.count()
	f := look(s.t, s.store())
	s.check(acked, f)
	if twice := f.doubled(); len(twice) > 0 {
		s.t.Errorf("%d are there twice: %v", len(twice), twice)
	}
	if len(l.refused) > 0 {
		s.t.Errorf("refused: %q", l.refused)
	}
	s.t.Logf("%d deliveries, %d without an answer, %d drafts", len(acked), len(open), f.drafts)
	if len(acked) == 0 {
		s.t.Error("nothing was delivered")
	}
}

// answer sends a message to users and returns the replies, 0 where there was none.
func (s *site) answer(text string, to ...string) (replies []mailclient.Reply) {
	s.t.Helper()
	c, err := mailclient.DialSMTP(s.socket())
	must(s.t, err)
	defer c.Close()
	must(s.t, c.Must("LHLO client.test"))
	must(s.t, c.Must("MAIL FROM:<a@b.test>"))
	for _, user := range to {
		must(s.t, c.Must("RCPT TO:<%s>", user))
	}
	r, err := c.Data(text)
	must(s.t, err)
	replies = append(replies, r)
	for len(replies) < len(to) {
		r, err := c.ReadReply()
		must(s.t, err)
		replies = append(replies, r)
	}
	return replies
}

// TestFull fills a small disk, with the journal of deliveries on it as well and not. The clients
// are told 452, nothing is left behind, and when there is room again, for this lmtpd or for
// the next one, each message is delivered once.
func TestFull(t *testing.T) {
	for _, same := range []bool{false, true} {
		for _, killed := range []bool{false, true} {
			t.Run(fmt.Sprintf("journal on it %v, killed %v", same, killed), func(t *testing.T) { testFull(t, same, killed) })
		}
	}
}

func testFull(t *testing.T, same, killed bool) {
	s := newSite(t, 12<<20)
	journal := s.dir + "/journal"
	if same {
		journal = s.store() + "/journal"
	}
	filler := s.store() + "/filler"
	must(t, os.WriteFile(filler, make([]byte, 8<<20), 0o600))
	s.start("--journal=" + journal)
	l := newLedger()
	to := []string{"u1", "u2", "u3"}
	var again []string // ids
	for i := range 100 {
		id, size := fmt.Sprint("m", i), []int{200_000, 20_000, 2000, 10}[min(i%8, 3)]
		l.texts[id] = compose(id, size)
		for j, r := range s.answer(l.texts[id], to...) {
			if !l.note(delivery{id, to[j]}, r) {
				if r.Code != 452 {
					t.Errorf("%s to %s: %v; want 452", id, to[j], r)
				}
				l.acked[delivery{id, to[j]}] = false
				again = append(again, id)
			}
		}
	}
	if len(again) == 0 {
		t.Fatal("the disk is not full")
	}
	acked, _ := l.count()
	f := look(t, s.store())
	s.check(acked, f)
	if len(f.copies) != len(acked) || f.drafts > 0 && !same {
		t.Errorf("on the full disk: %d messages and %d drafts; want %d and none", len(f.copies), f.drafts, len(acked))
	}
	if killed {
		s.kill()
	}
	must(t, os.Remove(filler))
	for _, id := range again {
		rcpts := to // also those who have it: it is not delivered again
		if same && killed {
			// The full disk may have kept the journal from remembering them. No client sends to them again.
			rcpts = slices.DeleteFunc(slices.Clone(to), func(user string) bool { return acked[delivery{id, user}] })
		}
		for j, r := range s.answer(l.texts[id], rcpts...) {
			if !l.note(delivery{id, rcpts[j]}, r) {
				t.Errorf("with room %s to %s: %v", id, rcpts[j], r)
			}
		}
	}
	s.once(l)
}

// TestReadOnly: the disk can be read only for a while, in the middle of all.
func TestReadOnly(t *testing.T) {
	s := newSite(t, 256<<20)
	s.start("--journal=" + s.dir + "/journal")
	l, stop := s.load()
	for range 3 {
		pause()
		s.remount(unix.MS_RDONLY)
		if r := s.answer(compose("meanwhile", 10), "u1"); r[0].Code != 451 {
			t.Errorf("%v; want 451", r)
		}
		pause()
		s.remount(0)
	}
	pause()
	s.finish(l, stop)
	s.once(l)
}

func (s *site) remount(flags uintptr) {
	s.t.Helper()
	err := unix.EBUSY // while files are open for writing
	for range 30000 {
		if err, _ = unix.Mount("", s.store(), "", unix.MS_REMOUNT|flags, "").(unix.Errno); err != unix.EBUSY {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err != 0 {
		s.t.Fatal("remount:", err)
	}
}

// finish stops the clients, and sends again what has no answer.
func (s *site) finish(l *ledger, stop func()) {
	s.t.Helper()
	stop()
	_, open := l.count()
	for d := range open {
		left, c := l.send(nil, s.socket(), d.id, []string{d.user})
		if len(left) > 0 {
			s.t.Errorf("%v was not taken", d)
		}
		if c != nil {
			c.Close()
		}
	}
}

// TestDiskDies: the disk stops taking anything, and loses what was not synced. It is mounted
// again, while the machine and lmtpd go on, or lmtpd was killed; in between there is but the empty
// directory on which it was mounted.
func TestDiskDies(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprintf("killed=%v", killed), func(t *testing.T) {
			s := newSite(t, 512<<20)
			s.start("--journal=" + s.dir + "/journal")
			l, stop := s.load()
			for range 3 {
				pause()
				s.shutDown()
				if killed {
					s.kill()
				}
				pause()
				s.disk.unmount()
				pause()
				s.disk.mount(s.store(), "commit=600")
			}
			pause()
			s.finish(l, stop)
			s.once(l)
		})
	}
}

// shutDown makes the filesystem refuse everything from now on, and drop what it has not written:
// FS_IOC_SHUTDOWN with NOLOGFLUSH.
func (s *site) shutDown() {
	s.t.Helper()
	dir, err := os.Open(s.store())
	must(s.t, err)
	defer dir.Close()
	const shutdown, noLogFlush = 0x8004587d, uint32(2)
	flags := noLogFlush
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), shutdown, uintptr(unsafe.Pointer(&flags))); errno != 0 {
		s.t.Fatal("FS_IOC_SHUTDOWN:", errno)
	}
}

// TestHomeOfRoot: a home that is not the user's takes nothing, and gets nothing; when it is his, the
// message is delivered once.
func TestHomeOfRoot(t *testing.T) {
	s := newSite(t, 64<<20)
	s.start("--journal=" + s.dir + "/journal")
	home := filepath.Join(s.store(), "u1")
	must(t, os.Mkdir(home, 0o700))
	text := compose("m", 1000)
	replies := s.answer(text, "u1", "u2")
	if replies[0].Code != 451 || replies[1].Code != 250 {
		t.Errorf("%v; want 451 and 250", replies)
	}
	if strings.Contains(replies[0].Text, s.store()) {
		t.Errorf("the reply tells where: %v", replies[0])
	}
	if list, err := os.ReadDir(home); err != nil || len(list) > 0 {
		t.Errorf("it holds %v, %v; want nothing", list, err)
	}
	must(t, errors.Join(os.Chown(home, 5000, 5000)))
	for _, r := range s.answer(text, "u1", "u2") {
		if r.Code != 250 {
			t.Errorf("afterwards: %v", r)
		}
	}
	for _, user := range []string{"u1", "u2"} {
		if n := look(t, s.store()).copies[delivery{"m", user}]; n != 1 {
			t.Errorf("%s has it %d times", user, n)
		}
	}
}
