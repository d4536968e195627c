package quota

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"dovepost/lmtp"
	"dovepost/lmtp/maildir"

	"golang.org/x/sys/unix"
)

// faulty is the system, but for call number k, which fails.
type faulty struct {
	maildir.FS
	k, calls int
	failed   string
}

func (f *faulty) fail(call string) error {
	if f.calls++; f.calls != f.k {
		return nil
	}
	f.failed = call
	return unix.EIO
}

func (f *faulty) Open(dir int, name string, flags int, mode uint32) (int, error) {
	if err := f.fail("open " + name); err != nil {
		return -1, err
	}
	return f.FS.Open(dir, name, flags, mode)
}

func (f *faulty) Read(fd int, p []byte) (int, error) {
	if err := f.fail("read"); err != nil {
		return 0, err
	}
	return f.FS.Read(fd, p)
}

// Write stores half of what it is given before it fails.
func (f *faulty) Write(fd int, p []byte) (int, error) {
	if err := f.fail("write"); err != nil {
		_, _ = f.FS.Write(fd, p[:len(p)/2])
		return 0, err
	}
	return f.FS.Write(fd, p)
}

func (f *faulty) Close(fd int) error {
	return errors.Join(f.FS.Close(fd), f.fail("close"))
}

func (f *faulty) Stat(fd int, st *unix.Stat_t) error {
	return errors.Join(f.fail("stat"), f.FS.Stat(fd, st))
}

func (f *faulty) StatAt(dir int, name string, st *unix.Stat_t) error {
	return errors.Join(f.fail("stat "+name), f.FS.StatAt(dir, name, st))
}

func (f *faulty) Rename(dir int, name string, todir int, toname string, flags uint) error {
	if err := f.fail("rename to " + toname); err != nil {
		return err
	}
	return f.FS.Rename(dir, name, todir, toname, flags)
}

func (f *faulty) Unlink(dir int, name string, flags int) error {
	if err := f.fail("unlink " + name); err != nil {
		return err
	}
	return f.FS.Unlink(dir, name, flags)
}

func (f *faulty) ReadDir(fd int, buf []byte) (int, error) {
	if err := f.fail("readdir"); err != nil {
		return 0, err
	}
	return f.FS.ReadDir(fd, buf)
}

// Each call of a delivery fails once. The message is delivered, or refused for now and
// gone; and the usage that the next delivery finds is the right one.
func TestFaults(t *testing.T) {
	for _, backend := range []Backend{Maildir, Count} {
		for _, before := range []string{"new", "kept", "missing", "damaged"} {
			t.Run(fmt.Sprintf("%d/%s", backend, before), func(t *testing.T) {
				for k := 1; faultAt(t, backend, before, k); k++ {
				}
			})
		}
	}
}

// faultAt reports whether there is a call number k.
func faultAt(t *testing.T, backend Backend, before string, k int) bool {
	f := &faulty{FS: maildir.System}
	s := newSite(t, &Root{Backend: backend}, "*:bytes=10000")
	defer os.RemoveAll(s.mb.Home)
	s.d.FS = f
	if before != "new" {
		if err := s.deliver("Work", 100); err != nil {
			t.Fatal(err)
		}
	}
	if before == "missing" || before == "damaged" {
		_ = os.Remove(s.path())
	}
	if before == "damaged" {
		if err := errors.Join(os.WriteFile(s.path(), []byte("x"), 0o600), os.Chown(s.path(), s.mb.UID, s.mb.GID)); err != nil {
			t.Fatal(err)
		}
	}
	had := s.stored()
	f.k, f.calls = k, 0
	err := s.deliver("", 1000)
	f.k = 0
	if f.failed == "" {
		return false
	}
	want := had
	if err == nil {
		want.bytes += 1000
		want.messages++
	}
	if got := s.stored(); got != want {
		t.Errorf("%s failed: %v, and %+v is stored; want %+v", f.failed, err, got, want)
	}
	var st *lmtp.Status
	if err != nil && (!errors.As(err, &st) || !st.Temporary()) {
		t.Errorf("%s failed: %v; want a temporary error", f.failed, err)
	}
	if backend == Maildir {
		// What cannot be removed stays, whatever it holds.
		entries, _ := os.ReadDir(s.mb.Home + "/Maildir")
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), sizeName+".") && !strings.Contains(f.failed, "unlink") {
				t.Errorf("%s failed: left %s", f.failed, e.Name())
			}
		}
	}
	if err := s.deliver("", 10); err != nil {
		t.Fatalf("%s failed: then %v", f.failed, err)
	}
	if backend == Maildir {
		s.check()
	} else if s.deliver("", 10001-int(s.stored().bytes)) == nil || s.deliver("", 10000-int(s.stored().bytes)) != nil {
		t.Errorf("%s failed: the limit is another", f.failed)
	}
	return true
}
