package maildir

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"dovepost/lmtp"

	"golang.org/x/sys/unix"
)

// team are three recipients with two mailbox trees: alice is reached twice.
func team(t testing.TB) (to []*lmtp.Mailbox, base string) {
	alice := mailbox(t)
	bob := *alice
	bob.Rcpt, bob.User, bob.Home = "bob@example.com", "bob@example.com", filepath.Dir(alice.Home)+"/bob"
	again := *alice
	again.Rcpt = "postmaster@example.com"
	return []*lmtp.Mailbox{alice, &bob, &again}, filepath.Dir(alice.Home)
}

func deliverAll(d *Deliverer, to []*lmtp.Mailbox, msg string) []error {
	return d.Deliver(context.Background(), &lmtp.Envelope{Queue: "4XYZ"}, to, lmtp.Text(msg))
}

func inode(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st
}

// One file serves all mailboxes of an owner; nobody sees more than one copy of it. It is synced once, when it has all
// its names in tmp/, or a disk that fails later could lose some of them.
func TestOneInode(t *testing.T) {
	to, base := team(t)
	f := &faulty{}
	for i, err := range deliverAll(&Deliverer{FS: f}, to, "Subject: x\n\ntext\n") {
		if err != nil {
			t.Fatalf("%s: %v", to[i].Rcpt, err)
		}
	}
	got, drafts := messages(t, base)
	if len(got) != 3 || len(drafts) != 0 {
		t.Fatalf("messages %q, drafts %q; want three and none", got, drafts)
	}
	shared := map[uint64]int{}
	for _, name := range got {
		shared[inode(t, base+"/"+name).Ino]++
	}
	if len(shared) != 2 { // the second one for alice comes in a round of its own
		t.Errorf("inodes %v; want two", shared)
	}
	var order []string
	for _, call := range f.trace {
		op, path, _ := strings.Cut(call, " ")
		if op == "link" || op == "sync" && strings.Contains(path, "/tmp/") || op == "rename" {
			order = append(order, op)
		}
	}
	if got, want := strings.Join(order, " "), "link sync rename rename sync rename"; got != want {
		t.Errorf("order %q; want %q", got, want)
	}
}

// Where a second link is not to be had, there is a copy.
func TestNoLink(t *testing.T) {
	for _, err := range []error{unix.EXDEV, unix.EMLINK, unix.EPERM, unix.EACCES} {
		to, base := team(t)
		f := &faulty{only: "link", err: err}
		for _, err := range deliverAll(&Deliverer{FS: f}, to[:2], "x\n") {
			if err != nil {
				t.Errorf("%v: %v", f.err, err)
			}
		}
		if got, _ := messages(t, base); len(got) != 2 || len(f.failed) != 1 {
			t.Errorf("%v: %q, failed %q", err, got, f.failed)
		}
	}
}

// One recipient whose directory cannot be synced has no message, the others have theirs.
func TestSyncOfOneFails(t *testing.T) {
	to, base := team(t)
	deliverAll(&Deliverer{}, to[:2], "first\n")
	fail := &failingSync{path: base + "/bob/Maildir/new"}
	errs := deliverAll(&Deliverer{FS: fail}, to, "second\n")
	if errs[0] != nil || errs[1] == nil || errs[2] != nil || !temporary(errs[1]) {
		t.Errorf("%v; want an error of bob alone", errs)
	}
	if got, drafts := messages(t, base); len(got) != 4 || len(drafts) != 0 {
		t.Errorf("%q %q; want four messages", got, drafts)
	}
}

type failingSync struct {
	kernel
	path string
}

func (f *failingSync) Sync(fd int) error {
	if linkOf(fd) == f.path {
		return unix.EIO
	}
	return f.kernel.Sync(fd)
}

// dying is the kernel, until the process is killed at its last call, before or after it is done.
type dying struct {
	kernel
	last   int64
	after  bool // that call is done
	calls  atomic.Int64
	dead   chan struct{} // closed at the last call
	buried chan struct{} // closed when the next process has what this one leaves
}

func newDying(last int64, after bool) *dying {
	return &dying{last: last, after: after, dead: make(chan struct{}), buried: make(chan struct{})}
}

// die does not return before the funeral when it is the last call or one after it. Then it does nothing and
// fails, so that the descriptors and threads are given back that the end of a process gives back.
func (f *dying) die(call func() error) error {
	n := f.calls.Add(1)
	if n < f.last {
		return call()
	}
	if n == f.last {
		if f.after {
			_ = call()
		}
		close(f.dead)
	}
	<-f.buried
	return unix.EIO
}

// over reports whether the last call has come.
func (f *dying) over() bool { return f.calls.Load() >= f.last }

// run has d, on f, deliver msg with the journal at path. It returns the path of the journal for the next
// process, and whether this one was killed; else the reply got lost.
func (f *dying) run(t *testing.T, d *Deliverer, path string, to []*lmtp.Mailbox, msg string) (next string, dead bool) {
	t.Helper()
	d.Journal = openJournal(t, path)
	done := make(chan []error, 1)
	go func() { done <- deliverAll(d, to, msg) }()
	select {
	case <-f.dead:
		next = inherit(t, path)
		close(f.buried)
		<-done
		dead = true
	case <-done:
		next = inherit(t, path)
	}
	d.Journal.Close()
	return next, dead
}

func (f *dying) Open(dir int, name string, flags int, mode uint32) (fd int, err error) {
	fd = -1
	err = f.die(func() (err error) {
		fd, err = f.kernel.Open(dir, name, flags, mode)
		return err
	})
	if err != nil && fd >= 0 { // the last call, done
		f.kernel.Close(fd)
		fd = -1
	}
	return fd, err
}

func (f *dying) Write(fd int, p []byte) (n int, err error) {
	err = f.die(func() (err error) {
		n, err = f.kernel.Write(fd, p)
		return err
	})
	return n, err
}

func (f *dying) Sync(fd int) error {
	return f.die(func() error { return f.kernel.Sync(fd) })
}

func (f *dying) Mkdir(dir int, name string, mode uint32) error {
	return f.die(func() error { return f.kernel.Mkdir(dir, name, mode) })
}

func (f *dying) Rename(dir int, name string, todir int, toname string, flags uint) error {
	return f.die(func() error { return f.kernel.Rename(dir, name, todir, toname, flags) })
}

func (f *dying) Link(dir int, name string, todir int, toname string) error {
	return f.die(func() error { return f.kernel.Link(dir, name, todir, toname) })
}

func (f *dying) Unlink(dir int, name string, flags int) error {
	return f.die(func() error { return f.kernel.Unlink(dir, name, flags) })
}

// Nobody is killed at these, and they do nothing after the end.

func (f *dying) Chown(fd, uid, gid int) error {
	if f.over() {
		return unix.EIO
	}
	return f.kernel.Chown(fd, uid, gid)
}

func (f *dying) Chmod(fd int, mode uint32) error {
	if f.over() {
		return unix.EIO
	}
	return f.kernel.Chmod(fd, mode)
}

func (f *dying) SetTime(dir int, name string, mtime int64) error {
	if f.over() {
		return unix.EIO
	}
	return f.kernel.SetTime(dir, name, mtime)
}

// The process is killed at each call that changes something, and the client sends the message
// again: each recipient has it once. So it is when a reader has moved the message by
// then: it is not brought back.
func TestKilled(t *testing.T) {
	const msg = "Subject: x\n\nonce\n"
	for _, cold := range []bool{true, false} {
		for _, after := range []bool{false, true} {
			for _, moved := range []bool{false, true} {
				last := int64(1)
				for killAt(t, last, cold, after, moved, msg) {
					last++
				}
				if last < 10 {
					t.Errorf("only %d calls", last)
				}
			}
		}
	}
}

// killAt reports whether there was such a call.
func killAt(t *testing.T, last int64, cold, after, moved bool, msg string) bool {
	t.Helper()
	to, base := team(t)
	defer os.RemoveAll(filepath.Dir(base))
	if !cold {
		deliverAll(&Deliverer{}, to[:2], "first\n")
		clean(t, base)
	}
	path := filepath.Join(t.TempDir(), "journal")
	next, more := killed(t, path, last, after, to, msg)
	visible, _ := messages(t, base)
	gone := 0
	if moved {
		gone = len(visible)
		clean(t, base)
	}
	what := fmt.Sprintf("cold=%v after=%v moved=%v call %d", cold, after, moved, last)

	d := &Deliverer{Journal: openJournal(t, next), Log: quiet}
	defer d.Journal.Close()
	for i, err := range deliverAll(d, to, msg) {
		if err != nil {
			t.Fatalf("%s: again: %s: %v", what, to[i].Rcpt, err)
		}
	}
	got, _ := messages(t, base)
	if len(got)+gone != 3 {
		t.Errorf("%s: %d copies and %d that were moved; want 3", what, len(got), gone)
	}
	return more
}

// clean takes all messages away, as a reader may.
func clean(t *testing.T, base string) {
	t.Helper()
	got, _ := messages(t, base)
	for _, name := range got {
		if err := os.Remove(base + "/" + name); err != nil {
			t.Fatal(err)
		}
	}
}
