package maildir

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"dovepost/lmtp"

	"golang.org/x/sys/unix"
)

// faulty is the kernel, but for the calls from number first to number last, which fail.
type faulty struct {
	kernel
	first, last int
	err         error
	short       bool   // a write that is to fail stores half of its octets, and does not
	only        string // if set, calls fail that begin so, whatever their number

	mu     sync.Mutex // guards the rest
	calls  int
	failed []string // what failed
	trace  []string // what succeeded, of the calls that matter to durability
}

func (f *faulty) fail(call string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.only == "" && (f.calls < f.first || f.calls > f.last) || !strings.HasPrefix(call, f.only) {
		return nil
	}
	f.failed = append(f.failed, call)
	return f.err
}

func (f *faulty) done(call string, err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.trace = append(f.trace, call)
	}
	return err
}

func (f *faulty) Open(dir int, name string, flags int, mode uint32) (int, error) {
	if err := f.fail("open " + name); err != nil {
		return -1, err
	}
	return f.kernel.Open(dir, name, flags, mode)
}

func (f *faulty) Write(fd int, p []byte) (int, error) {
	if err := f.fail("write"); err != nil {
		if f.short && len(p) > 1 {
			return f.kernel.Write(fd, p[:len(p)/2])
		}
		return 0, err
	}
	n, err := f.kernel.Write(fd, p)
	return n, f.done("write "+linkOf(fd), err)
}

func (f *faulty) Read(fd int, p []byte) (int, error) {
	if err := f.fail("read"); err != nil {
		return 0, err
	}
	return f.kernel.Read(fd, p)
}

// linkOf is the path that the descriptor was opened as.
func linkOf(fd int) string {
	s, _ := os.Readlink(fmt.Sprintf("/proc/thread-self/fd/%d", fd))
	return s
}

func (f *faulty) Sync(fd int) error {
	if err := f.fail("sync " + linkOf(fd)); err != nil {
		return err
	}
	return f.done("sync "+linkOf(fd), f.kernel.Sync(fd))
}

func (f *faulty) Close(fd int) error {
	err := f.fail("close " + linkOf(fd))
	return errors.Join(f.kernel.Close(fd), err)
}

func (f *faulty) Stat(fd int, st *unix.Stat_t) error {
	if err := f.fail("stat"); err != nil {
		return err
	}
	return f.kernel.Stat(fd, st)
}

func (f *faulty) StatAt(dir int, name string, st *unix.Stat_t) error {
	if err := f.fail("statat " + name); err != nil {
		return err
	}
	return f.kernel.StatAt(dir, name, st)
}

func (f *faulty) Chown(fd, uid, gid int) error {
	if err := f.fail("chown"); err != nil {
		return err
	}
	return f.kernel.Chown(fd, uid, gid)
}

func (f *faulty) Chmod(fd int, mode uint32) error {
	if err := f.fail("chmod"); err != nil {
		return err
	}
	return f.kernel.Chmod(fd, mode)
}

func (f *faulty) Mkdir(dir int, name string, mode uint32) error {
	if err := f.fail("mkdir " + name); err != nil {
		return err
	}
	return f.done("mkdir "+linkOf(dir)+"/"+name, f.kernel.Mkdir(dir, name, mode))
}

func (f *faulty) Rename(dir int, name string, todir int, toname string, flags uint) error {
	if err := f.fail("rename"); err != nil {
		return err
	}
	return f.done("rename "+linkOf(todir), f.kernel.Rename(dir, name, todir, toname, flags))
}

func (f *faulty) Link(dir int, name string, todir int, toname string) error {
	if err := f.fail("link"); err != nil {
		return err
	}
	return f.done("link "+linkOf(todir), f.kernel.Link(dir, name, todir, toname))
}

func (f *faulty) Unlink(dir int, name string, flags int) error {
	if err := f.fail("unlink " + name); err != nil {
		return err
	}
	return f.kernel.Unlink(dir, name, flags)
}

func (f *faulty) ReadDir(fd int, buf []byte) (int, error) {
	if err := f.fail("readdir"); err != nil {
		return 0, err
	}
	return f.kernel.ReadDir(fd, buf)
}

// messages are the files in new/ and cur/ of any mailbox below dir, drafts those in tmp/.
func messages(t *testing.T, dir string) (messages, drafts []string) {
	t.Helper()
	for _, f := range files(t, dir) {
		switch filepath.Base(filepath.Dir(f)) {
		case "new", "cur":
			messages = append(messages, f)
		case "tmp":
			drafts = append(drafts, f)
		}
	}
	return messages, drafts
}

// Each call of a delivery fails once, in each way. Then the client is told to come
// again and nothing is left; or it was none that mattered, and the message is there.
// After that all calls from one on fail, which is also what a crash looks like on disk.
func TestDeliverFaults(t *testing.T) {
	scenarios := []struct {
		name   string
		warm   bool // the mailbox exists
		detail string
	}{
		{"a new home", false, ""},
		{"an existing mailbox", true, ""},
		{"a new folder", true, "Work"},
		{"a new home and folder", false, "Work"},
	}
	errs := []struct {
		err    error
		short  bool
		status lmtp.Status // without the text
	}{
		{err: unix.EIO, status: lmtp.Status{Code: 451, Enhanced: "4.2.0"}},
		{err: unix.EROFS, status: lmtp.Status{Code: 451, Enhanced: "4.2.0"}},
		{err: unix.ENOSPC, status: lmtp.Status{Code: 452, Enhanced: "4.3.1"}},
		{err: unix.ENOSPC, short: true, status: lmtp.Status{Code: 452, Enhanced: "4.3.1"}},
		{err: unix.EDQUOT, status: lmtp.Status{Code: 452, Enhanced: "4.2.2"}},
	}
	msg := "Subject: x\n\n" + strings.Repeat("0123456789\n", 9000) // two writes
	open := descriptors(t)
	defer func() {
		if n := descriptors(t); n > open {
			t.Errorf("%d descriptors are open; were %d", n, open)
		}
	}()
	for _, sc := range scenarios {
		for _, e := range errs {
			for _, ever := range []bool{false, true} {
				if ever && e.err != unix.EIO {
					continue
				}
				t.Run(fmt.Sprintf("%s/%v/short=%v/ever=%v", sc.name, e.err, e.short, ever), func(t *testing.T) {
					for k := 1; ; k++ {
						f := &faulty{first: k, last: k, err: e.err, short: e.short}
						if ever {
							f.last = 1 << 30
						}
						d := &Deliverer{FS: f, SaveToDetail: true, Autocreate: true, Autosubscribe: true, Log: slog.New(slog.DiscardHandler)}
						mb := mailbox(t)
						mb.Detail = sc.detail
						before := 0
						if sc.warm {
							plain := *mb
							plain.Detail = ""
							if err := deliver(&Deliverer{}, &plain, "first\n"); err != nil {
								t.Fatal(err)
							}
							before = 1
						}
						err := deliver(d, mb, msg)
						checkFault(t, f, err, mb, before, msg, &e.status)
						f.first, f.last = 0, 0
						if err != nil {
							if err := deliver(d, mb, msg); err != nil {
								t.Fatalf("call %d failed (%q): again: %v", k, f.failed, err)
							}
						}
						os.RemoveAll(filepath.Dir(filepath.Dir(mb.Home)))
						if len(f.failed) == 0 {
							if k < 8 {
								t.Errorf("only %d calls go through the filesystem", k)
							}
							return
						}
					}
				})
			}
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// checkFault checks what is left of a delivery that answered err.
func checkFault(t *testing.T, f *faulty, err error, mb *lmtp.Mailbox, before int, msg string, status *lmtp.Status) {
	t.Helper()
	got, drafts := messages(t, mb.Home)
	failed := strings.Join(f.failed, ", ")
	if err == nil {
		if len(got) != before+1 {
			t.Fatalf("%s failed: delivered, but %d messages", failed, len(got)-before)
		}
		want := false
		for _, name := range got {
			body, _ := os.ReadFile(filepath.Join(mb.Home, name))
			size, _ := Sizes(name)
			want = want || string(body) == msg && size == int64(len(msg))
		}
		if !want {
			t.Fatalf("%s failed: delivered, but not what came", failed)
		}
		checkDurable(t, f.trace)
		return
	}
	var st *lmtp.Status
	if !errors.As(err, &st) || !st.Temporary() {
		t.Fatalf("%s failed: error %v is not temporary", failed, err)
	}
	if st.Code != status.Code || st.Enhanced != status.Enhanced {
		t.Errorf("%s failed: %v; want %d %s", failed, st, status.Code, status.Enhanced)
	}
	if _, err := os.Stat(mb.Home + "/Maildir/subscriptions.lock"); err == nil && !strings.Contains(failed, "unlink") {
		t.Errorf("%s failed: left the lock of the subscriptions", failed)
	}
	if !strings.Contains(failed, "unlink") && (len(got) != before || len(drafts) != 0) {
		t.Errorf("%s failed: %v, but left %q %q", failed, err, got, drafts)
	}
	for _, name := range got { // what is visible is whole in any case
		if body, _ := os.ReadFile(filepath.Join(mb.Home, name)); string(body) != msg && string(body) != "first\n" {
			t.Errorf("%s failed: torn message of %d octets", failed, len(body))
		}
	}
}

// checkDurable checks the order: all writes of the message, its sync, rename, sync of new/;
// and that after each mkdir of a name its directory was synced.
func checkDurable(t *testing.T, trace []string) {
	t.Helper()
	want := []string{"write tmp", "sync tmp", "rename new", "sync new"}
	i := -1
	for j, call := range trace {
		op, path, _ := strings.Cut(call, " ")
		if op == "mkdir" && !slices.Contains(trace[j:], "sync "+filepath.Dir(path)) {
			t.Errorf("%q without sync: %q", call, trace)
		}
		switch {
		case !strings.Contains(path, "/Maildir/") || op == "mkdir":
			continue
		case filepath.Base(path) == "new":
			op += " new"
		case filepath.Base(filepath.Dir(path)) == "tmp":
			op += " tmp"
		default:
			continue
		}
		if i >= 0 && op == want[i] && i == 0 {
			continue // one more write
		}
		if i++; i == len(want) || op != want[i] {
			t.Fatalf("%q out of order in %q", call, trace)
		}
	}
	if i != len(want)-1 {
		t.Errorf("not durable: %q", trace)
	}
}

// A filesystem that cannot rename without replacing gets the message by link(2).
type oldFS struct{ *faulty }

func (o oldFS) Rename(dir int, name string, todir int, toname string, flags uint) error {
	if flags != 0 {
		return unix.EINVAL
	}
	return o.faulty.Rename(dir, name, todir, toname, flags)
}

func TestDeliverWithoutNoReplace(t *testing.T) {
	for _, fail := range []bool{false, true} {
		mb := mailbox(t)
		f := new(faulty)
		d := &Deliverer{FS: oldFS{f}}
		if err := deliver(d, mb, "one\n"); err != nil {
			t.Fatal(err)
		}
		want := 2
		if fail {
			f.only, f.err = "link", unix.EIO
			want = 1
		}
		err := deliver(d, mb, "two\n")
		if (err != nil) != fail {
			t.Errorf("fail=%v: %v", fail, err)
		}
		if got, _ := messages(t, mb.Home); len(got) != want {
			t.Errorf("fail=%v: messages %q; want %d (%q)", fail, got, want, f.failed)
		}
	}
}
