package maildir

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"dovepost/lmtp"

	"golang.org/x/sys/unix"
)

// All that is made belongs to the owner, and nobody else may look at it.
func TestOwnerAndModes(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	mb := mailbox(t)
	mb.Detail = "Work"
	d := &Deliverer{SaveToDetail: true, Autocreate: true, Autosubscribe: true}
	if err := deliver(d, mb, "x\n"); err != nil {
		t.Fatal(err)
	}
	checkOwner(t, filepath.Dir(mb.Home), mb.UID, 0o700, 0o600)
}

func checkOwner(t *testing.T, dir string, uid int, dirMode, fileMode fs.FileMode) {
	t.Helper()
	if uid < 0 {
		uid = os.Geteuid()
	}
	n := 0
	err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		n++
		info, err := e.Info()
		if err != nil {
			return err
		}
		want := fileMode
		if e.IsDir() {
			want = dirMode
		}
		st := info.Sys().(*syscall.Stat_t)
		if int(st.Uid) != uid || info.Mode().Perm() != want {
			t.Errorf("%s: uid %d, mode %v; want %d, %v", p, st.Uid, info.Mode(), uid, want)
		}
		return nil
	})
	if err != nil || n < 8 {
		t.Errorf("%d files, %v", n, err)
	}
}

// What is made in a mailbox takes its mode, whatever the umask is.
func TestModesAreInherited(t *testing.T) {
	for _, mask := range []int{0, 0o77} {
		func() {
			mb := mailbox(t)
			for _, dir := range []string{"", "/cur", "/new", "/tmp"} {
				makeDirs(t, mb.Home, "Maildir"+dir)
				if err := os.Chmod(mb.Home+"/Maildir"+dir, 0o770); err != nil {
					t.Fatal(err)
				}
			}
			defer unix.Umask(unix.Umask(mask))
			mb.Detail = "Work"
			d := &Deliverer{SaveToDetail: true, Autocreate: true, Autosubscribe: true}
			if err := deliver(d, mb, "x\n"); err != nil {
				t.Fatal(err)
			}
			checkOwner(t, mb.Home+"/Maildir", mb.UID, 0o770, 0o660)
		}()
	}
}

func TestPerm(t *testing.T) {
	const own = 5000
	tests := []struct {
		name      string
		mode, gid uint32
		file, dir uint32
		grp       bool
	}{
		{"it handles private", 0o700, own, 0o600, 0o700, false},
		{"it handles a foreign group", 0o770, 6000, 0o660, 0o770, true},
		{"it handles a foreign group that others equal", 0o777, 6000, 0o666, 0o777, false},
		{"it handles the own group", 0o770, own, 0o660, 0o770, false},
		{"it handles setgid", unix.S_ISGID | 0o770, 6000, 0o660, 0o770, false},
		{"it never takes the owner's rights", 0o070, own, 0o660, 0o770, false},
	}
	for _, tt := range tests {
		p := permOf(&unix.Stat_t{Mode: tt.mode, Gid: tt.gid}, own)
		if p.file() != tt.file || p.dir() != tt.dir || p.grp != tt.grp {
			t.Errorf("%s: file %o, dir %o, group %v; want %o, %o, %v", tt.name, p.file(), p.dir(), p.grp, tt.file, tt.dir, tt.grp)
		}
	}
}

// A mailbox whose group the owner is not in cannot give it away: then the group gets nothing.
func TestForeignGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		mb := mailbox(t)
		mb.UID = 1
		if err := deliver(&Deliverer{}, mb, "x\n"); !errors.Is(err, errRights) {
			t.Errorf("delivery for another user: %v; want errRights", err)
		}
		return
	}
	mb := mailbox(t)
	makeDirs(t, mb.Home, "Maildir")
	if err := errors.Join(os.Chown(mb.Home+"/Maildir", mb.UID, 6000), os.Chmod(mb.Home+"/Maildir", 0o770)); err != nil {
		t.Fatal(err)
	}
	if err := deliver(&Deliverer{}, mb, "x\n"); err != nil {
		t.Fatal(err)
	}
	got, _ := filepath.Glob(mb.Home + "/Maildir/new/*")
	if len(got) != 1 {
		t.Fatalf("messages %q", got)
	}
	if st, _ := os.Stat(got[0]); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v; want 0600", st.Mode())
	}
}

func temporary(err error) bool {
	var st *lmtp.Status
	return errors.As(err, &st) && st.Temporary()
}

func TestRootIsRefused(t *testing.T) {
	for _, ids := range [][2]int{{0, 0}, {0, 5000}, {5000, 0}} {
		mb := mailbox(t)
		mb.UID, mb.GID = ids[0], ids[1]
		err := deliver(&Deliverer{}, mb, "x\n")
		if !temporary(err) || !strings.Contains(fmt.Sprint(err), "not permitted") {
			t.Errorf("uid %d, gid %d: %v; want not permitted", ids[0], ids[1], err)
		}
		if got := files(t, filepath.Dir(filepath.Dir(mb.Home))); len(got) != 0 {
			t.Errorf("uid %d, gid %d: left %q", ids[0], ids[1], got)
		}
	}
}

// Places where the owner may not write, and links that lead out of the mailbox, are no
// places for mail, even if this process could write there.
func TestPlacesRefused(t *testing.T) {
	base := func(mb *lmtp.Mailbox) string { return filepath.Dir(filepath.Dir(mb.Home)) }
	tests := []struct {
		name string
		prep func(mb *lmtp.Mailbox) error
	}{
		{"it refuses a home that nobody may make", func(mb *lmtp.Mailbox) error {
			return errors.Join(os.Chown(base(mb), os.Geteuid(), os.Getegid()), os.Chmod(base(mb), 0o555))
		}},
		{"it refuses a link as new", func(mb *lmtp.Mailbox) error {
			return errors.Join(os.RemoveAll(mb.Home+"/Maildir/new"), os.Symlink(mb.Home+"/out", mb.Home+"/Maildir/new"))
		}},
		{"it refuses a link as tmp", func(mb *lmtp.Mailbox) error {
			return errors.Join(os.RemoveAll(mb.Home+"/Maildir/tmp"), os.Symlink(mb.Home+"/out", mb.Home+"/Maildir/tmp"))
		}},
		{"it refuses a link as new of a folder", func(mb *lmtp.Mailbox) error {
			return errors.Join(os.RemoveAll(mb.Home+"/Maildir/.Work/new"), os.Symlink(mb.Home+"/out", mb.Home+"/Maildir/.Work/new"))
		}},
		{"it refuses a file as Maildir", func(mb *lmtp.Mailbox) error {
			return errors.Join(os.RemoveAll(mb.Home+"/Maildir"), os.WriteFile(mb.Home+"/Maildir", nil, 0o600))
		}},
		{"it refuses a home that climbs", func(mb *lmtp.Mailbox) error { mb.Home += "/../../../up"; return nil }},
		{"it refuses mbox", func(mb *lmtp.Mailbox) error { mb.Mail = "mbox:~/mail"; return nil }},
		{"it refuses no location", func(mb *lmtp.Mailbox) error { mb.Mail = ""; return nil }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mb := mailbox(t)
			mb.Detail = "Work"
			if !strings.Contains(tt.name, "may make") {
				for _, dir := range []string{"Maildir/.Work/cur", "Maildir/.Work/new", "Maildir/.Work/tmp", "Maildir/tmp", "Maildir/new", "out/new", "out/tmp", "out/cur"} {
					makeDirs(t, mb.Home, dir)
				}
				if strings.HasSuffix(tt.name, "as new") || strings.Contains(tt.name, "as tmp") {
					mb.Detail = ""
				}
			}
			b := base(mb)
			if err := tt.prep(mb); err != nil {
				t.Fatal(err)
			}
			if os.Geteuid() != 0 && strings.Contains(tt.name, "may make") {
				defer os.Chmod(b, 0o700)
			}
			before := files(t, b)
			if err := deliver(&Deliverer{SaveToDetail: true, Log: slog.New(slog.DiscardHandler)}, mb, "x\n"); !temporary(err) {
				t.Errorf("error %v; want a temporary one", err)
			}
			if got := files(t, b); len(got) != len(before) {
				t.Errorf("left %q", got)
			}
		})
	}
}

// The administrator's links are followed: a Maildir that was moved to another disk.
func TestLinkedMaildir(t *testing.T) {
	mb := mailbox(t)
	makeDirs(t, mb.Home, "disk2/alice")
	err := as(owner(), owner(), func() error { return os.Symlink(mb.Home+"/disk2/alice", mb.Home+"/Maildir") })
	if err != nil {
		t.Fatal(err)
	}
	if err := deliver(&Deliverer{}, mb, "x\n"); err != nil {
		t.Fatal(err)
	}
	if got := delivered(t, mb.Home); got["disk2/alice/new"] != 1 {
		t.Errorf("delivered to %v", got)
	}
}

// Deliveries for several users at once, some to the same new home: each is in its mailbox
// once, and each thread is itself again.
func TestConcurrent(t *testing.T) {
	var boxes []*lmtp.Mailbox
	for i := range 4 {
		mb := mailbox(t)
		if os.Geteuid() == 0 {
			mb.UID, mb.GID = 5000+i, 5000+i
			if err := os.Chown(filepath.Dir(filepath.Dir(mb.Home)), mb.UID, mb.GID); err != nil {
				t.Fatal(err)
			}
		}
		boxes = append(boxes, mb)
	}
	d := &Deliverer{SaveToDetail: true, Autocreate: true}
	const each = 40
	var wg sync.WaitGroup
	for i := range 4 * each {
		mb := *boxes[i%4]
		if i%3 == 0 {
			mb.Detail = "Work"
		}
		wg.Go(func() {
			if err := deliver(d, &mb, fmt.Sprintf("Subject: %d\n\n", i)); err != nil {
				t.Error(err)
			}
			if uid, _ := unix.SetfsuidRetUid(-1); uid != os.Geteuid() {
				t.Errorf("a thread stayed uid %d", uid)
			}
		})
	}
	wg.Wait()
	for _, mb := range boxes {
		seen := map[string]bool{}
		got, _ := messages(t, mb.Home)
		for _, name := range got {
			body, _ := os.ReadFile(filepath.Join(mb.Home, name))
			seen[string(body)] = true
		}
		if len(got) != each || len(seen) != each {
			t.Errorf("%d messages, %d different; want %d", len(got), len(seen), each)
		}
		checkOwner(t, mb.Home, mb.UID, 0o700, 0o600)
	}
}

// A reader that panics is an error of this recipient, and leaves nothing.
func TestPanic(t *testing.T) {
	mb := mailbox(t)
	err := (&Deliverer{}).Deliver(t.Context(), &lmtp.Envelope{}, []*lmtp.Mailbox{mb}, stream{panicReader{}})[0]
	if err == nil || !temporary(err) {
		t.Errorf("%v; want a temporary error", err)
	}
	if uid, _ := unix.SetfsuidRetUid(-1); uid != os.Geteuid() {
		t.Errorf("the thread stayed uid %d", uid)
	}
	if got, drafts := messages(t, mb.Home); len(got)+len(drafts) != 0 {
		t.Errorf("left %q %q", got, drafts)
	}
}

type panicReader struct{}

func (panicReader) Read([]byte) (int, error) { panic("reader") }
