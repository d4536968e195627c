package powerloss

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// clients is how many there are, each over a connection of its own.
const clients = 8

// load lets the clients send until stop is called, which waits for them.
func (s *site) load() (l *ledger, stop func()) {
	l = newLedger()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() { l.work(ctx, s.socket(), fmt.Sprintf("m%d", i)) })
	}
	stop = func() { cancel(); wg.Wait() }
	s.t.Cleanup(stop)
	return l, stop
}

// kill ends lmtpd with SIGKILL and waits for its successor.
func (s *site) kill() {
	s.t.Helper()
	before := s.Starts()
	s.Signal(syscall.SIGKILL)
	for range 6000 {
		if s.Starts() > before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.t.Fatal("lmtpd does not come back")
}

// pause lets them work for a random time.
func pause() { time.Sleep(time.Duration(50+rand.IntN(250)) * time.Millisecond) }

// enough is how many acknowledged deliveries the long form wants.
const enough = 5000

// TestPowerLoss takes the power away at random instants, some of them just after lmtpd was killed.
// Nothing is lost that was acknowledged, and what is visible is whole. Then the machine starts
// again, and the clients send again all that had no answer: nothing is lost or torn, and what is
// there twice is at most what had no answer; nothing at all if the journal of deliveries was on another disk.
func TestPowerLoss(t *testing.T) {
	for _, tt := range []struct {
		name    string
		journal func(*site) string
		doubles bool // are allowed
	}{
		{"the journal of deliveries on the same disk", func(s *site) string { return s.store() + "/journal" }, true},
		{"the journal of deliveries on another disk", func(s *site) string { return s.dir + "/journal" }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			size := int64(1 << 30)
			if long {
				size = 8 << 30
			}
			s := newSite(t, size)
			journal := "--journal=" + tt.journal(s)
			s.start(journal)
			l, stop := s.load()
			failures := 0
			for more := true; more; failures++ {
				pause()
				if failures%2 == 1 {
					s.kill()
					pause()
				}
				acked := s.fail(l)
				more = failures < 2 || long && (acked < enough || failures < 12)
			}
			s.recover(l, stop, journal, tt.doubles)
			t.Logf("%d power failures, half of them after a kill", failures+1)
		})
	}
}

// fail takes the power away, looks at what there would be, and gives it back as if nothing was. It returns
// how many deliveries had been acknowledged.
func (s *site) fail(l *ledger) int {
	s.t.Helper()
	must(s.t, s.Signal(syscall.SIGSTOP))
	acked, _ := l.settled()
	after := s.disk.snapshot()
	s.Signal(syscall.SIGCONT)
	dir := filepath.Join(s.dir, "after")
	must(s.t, os.MkdirAll(dir, 0o755))
	after.mount(dir, "commit=600")
	defer after.unmount()
	s.check(acked, look(s.t, dir))
	must(s.t, os.Remove(after.image))
	return len(acked)
}

func (s *site) check(acked map[delivery]bool, f found) {
	s.t.Helper()
	if n := f.missing(acked); n > 0 || len(f.torn) > 0 {
		s.t.Errorf("%d of %d acknowledged deliveries are lost, %d torn: %.500q", n, len(acked), len(f.torn), f.torn)
	}
}

// recover takes the power away for good. The machine starts with what its disk has, and the
// clients send again what had no answer.
func (s *site) recover(l *ledger, stop func(), journal string, doubles bool) {
	s.t.Helper()
	pause()
	must(s.t, s.Signal(syscall.SIGSTOP))
	acked, _ := l.settled()
	after := s.disk.snapshot()
	s.t.Logf("%d deliveries were acknowledged", len(acked))
	must(s.t, s.Kill()) // nobody answers any more
	stop()
	acked, open := l.count()
	s.disk.unmount()
	s.disk = after
	s.disk.mount(s.store(), "commit=600")
	s.boot()
	s.check(acked, look(s.t, s.store()))
	s.start(journal)
	for d := range open {
		left, c := l.send(nil, s.socket(), d.id, []string{d.user})
		if len(left) > 0 {
			s.t.Errorf("%v was not taken after the start", d)
		}
		if c != nil {
			c.Close()
		}
	}
	acked, _ = l.count()
	f := look(s.t, s.store())
	s.check(acked, f)
	twice := f.doubled()
	for _, d := range twice {
		if !doubles || !open[d] {
			s.t.Errorf("%v is there %d times", d, f.copies[d])
		}
	}
	if len(l.refused) > 0 {
		s.t.Errorf("refused: %q", l.refused)
	}
	s.t.Logf("%d were without an answer, %d of them are there twice", len(open), len(twice))
}

// boot gives the machine another boot id.
func (s *site) boot() {
	s.t.Helper()
	const id = "/proc/sys/kernel/random/boot_id"
	path := filepath.Join(s.dir, "boot_id")
	must(s.t, os.WriteFile(path, fmt.Appendf(nil, "00000000-0000-4000-8000-%012x\n", rand.IntN(1<<40)), 0o444))
	must(s.t, unix.Mount(path, id, "", unix.MS_BIND, ""))
	s.t.Cleanup(func() { must(s.t, unix.Unmount(id, 0)) })
}

// TestNeverLoses: with mail_fsync = never the same failures lose acknowledged messages. So the
// test above would see it.
func TestNeverLoses(t *testing.T) {
	s := newSite(t, 1<<30)
	s.start("--mail_fsync=never", "--journal=none")
	l, stop := s.load()
	for end := time.Now().Add(time.Minute); ; {
		pause()
		if acked, _ := l.count(); len(acked) > 100 || time.Now().After(end) {
			break
		}
	}
	must(t, s.Signal(syscall.SIGSTOP))
	acked, _ := l.settled()
	after := s.disk.snapshot()
	must(t, s.Kill())
	stop()
	dir := filepath.Join(s.dir, "after")
	must(t, os.Mkdir(dir, 0o755))
	after.mount(dir, "commit=600")
	defer after.unmount()
	f := look(t, dir)
	t.Logf("%d of %d acknowledged deliveries are lost, %d torn", f.missing(acked), len(acked), len(f.torn))
	if f.missing(acked) == 0 {
		t.Error("without fsync nothing was lost: this test sees nothing")
	}
}
