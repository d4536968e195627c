package quota

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dovepost/lmtp"
	"dovepost/lmtp/maildir"

	"golang.org/x/sys/unix"
)

// What the tests put into a mailbox others can read, whatever the umask is.
func TestMain(m *testing.M) {
	unix.Umask(0o022)
	os.Exit(m.Run())
}

// site is a user's mailbox and what delivers to it.
type site struct {
	t  testing.TB
	d  *maildir.Deliverer
	mb lmtp.Mailbox
}

func newSite(t testing.TB, root *Root, rules ...string) *site {
	t.Helper()
	scratch := ""
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		scratch = "/dev/shm"
	}
	home, err := os.MkdirTemp(scratch, "quota")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	id := -1
	if os.Geteuid() == 0 { // root may not have mail, but may become somebody who may
		id = 5000
		if err := os.Chown(home, id, id); err != nil {
			t.Fatal(err)
		}
	}
	return &site{
		t:  t,
		d:  &maildir.Deliverer{SaveToDetail: true, Autocreate: true, Quota: root, Log: slog.New(slog.DiscardHandler)},
		mb: lmtp.Mailbox{User: "alice@example.com", Home: home, Mail: "maildir:~/Maildir", UID: id, GID: id, Quota: rules},
	}
}

// short is a message that is longer than it says.
type short struct{ lmtp.Text }

func (short) Size() int64 { return 10 }

// deliver stores a message of size octets in the mailbox box.
func (s *site) deliver(box string, size int) error {
	mb := s.mb
	mb.Detail = box
	msg := strings.Repeat("x", size)
	return s.d.Deliver(context.Background(), &lmtp.Envelope{}, []*lmtp.Mailbox{&mb}, lmtp.Text(msg))[0]
}

// stored sums up what is in the mailbox.
func (s *site) stored() (u usage) {
	s.t.Helper()
	err := filepath.WalkDir(s.mb.Home, func(p string, e os.DirEntry, err error) error {
		if dir := filepath.Base(filepath.Dir(p)); err == nil && e.Type().IsRegular() && (dir == "new" || dir == "cur") {
			info, err := e.Info()
			if err != nil {
				return err
			}
			u.bytes += info.Size()
			u.messages++
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return u
}

func (s *site) path() string { return s.mb.Home + "/Maildir/" + sizeName }

// file reads maildirsize.
func (s *site) file() sizeFile {
	s.t.Helper()
	data, err := os.ReadFile(s.path())
	if err != nil {
		s.t.Fatal(err)
	}
	f, err := parseSizeFile(data)
	if err != nil {
		s.t.Fatalf("maildirsize %q: %v", data, err)
	}
	return f
}

func (s *site) check() {
	s.t.Helper()
	if f, want := s.file(), s.stored(); f.used != want {
		s.t.Errorf("maildirsize tells %+v; want %+v", f.used, want)
	}
}

// The decisions are those that Dovecot's own LMTP server made in a test that sent it the same.
func TestDecisions(t *testing.T) {
	type step struct {
		box  string
		size int
		fits bool
	}
	tests := []struct {
		name  string
		rules []string
		steps []step
	}{
		{"it grants a grace below the limit, once", []string{"*:storage=20K"},
			[]step{{"", 20479, true}, {"", 2050, false}, {"", 2049, true}, {"", 1, false}, {"", 0, false}}},
		{"it grants none at the limit", []string{"*:storage=20K"},
			[]step{{"", 20480, true}, {"", 1, false}, {"", 0, true}}},
		{"it refuses what is larger than limit and grace", []string{"*:storage=20K"},
			[]step{{"", 22529, false}, {"", 22528, true}}},
		{"it bounds messages without a grace", []string{"*:messages=2"},
			[]step{{"", 100, true}, {"", 100, true}, {"", 100, false}}},
		{"it gives Trash more", []string{"*:storage=10000b", "Trash:storage=+1000b"},
			[]step{{"", 10000, true}, {"", 1, false}, {"Trash", 2001, false}, {"Trash", 2000, true}, {"Trash", 1, false}}},
		{"it does not count what is ignored", []string{"*:storage=1000b", "Spam:ignore"},
			[]step{{"Spam", 5000, true}, {"", 1000, true}, {"Spam", 5000, true}, {"", 1, false}}},
		{"it bounds nothing without a limit", []string{"*:storage=0"},
			[]step{{"", 100000, true}, {"", 100000, true}}},
	}
	for _, tt := range tests {
		for _, backend := range []Backend{Maildir, Count} {
			t.Run(fmt.Sprintf("%s/%d", tt.name, backend), func(t *testing.T) {
				s := newSite(t, &Root{Backend: backend, Grace: Grace{Percent: 10}}, tt.rules...)
				for i, step := range tt.steps {
					err := s.deliver(step.box, step.size)
					if step.fits && err != nil || !step.fits && !errors.Is(err, lmtp.ErrOverQuota) {
						t.Errorf("step %d, %d octets to %q: %v", i, step.size, step.box, err)
					}
				}
				if backend == Count {
					if _, err := os.Stat(s.path()); err == nil {
						t.Error("count writes maildirsize")
					}
				}
			})
		}
	}
}

func TestTempFail(t *testing.T) {
	s := newSite(t, &Root{Backend: Maildir, TempFail: true}, "*:bytes=10")
	var st *lmtp.Status
	if err := s.deliver("", 11); !errors.As(err, &st) || st.Code != 452 || st.Enhanced != "4.2.2" {
		t.Errorf("over quota: %v; want 452 4.2.2", err)
	}
}

func TestBadRule(t *testing.T) {
	s := newSite(t, &Root{Backend: Maildir}, "*:storage=lots")
	var st *lmtp.Status
	if err := s.deliver("", 11); !errors.As(err, &st) || !st.Temporary() {
		t.Errorf("bad rule: %v; want a temporary error", err)
	}
	if got := s.stored(); got.messages != 0 {
		t.Errorf("stored %+v", got)
	}
}

// The message turns out larger than announced: the second look refuses it.
func TestLargerThanAnnounced(t *testing.T) {
	s := newSite(t, &Root{Backend: Maildir}, "*:bytes=100")
	err := s.d.Deliver(context.Background(), &lmtp.Envelope{}, []*lmtp.Mailbox{&s.mb}, short{lmtp.Text(strings.Repeat("x", 101))})[0]
	if !errors.Is(err, lmtp.ErrOverQuota) {
		t.Errorf("%v; want ErrOverQuota", err)
	}
	if got, _ := filepath.Glob(s.mb.Home + "/Maildir/*/*"); len(got) != 0 {
		t.Errorf("left %q", got)
	}
}

func TestSizeFileIsKept(t *testing.T) {
	const rule = "*:storage=1M"
	old := time.Now().Add(-time.Hour)
	tests := []struct {
		name, before string // the file before the second delivery; "-": none
		rules        []string
		mtime        time.Time
		want         string
	}{
		{"it appends", "1048576S\n1000 1\n", []string{rule}, time.Time{}, "1048576S\n1000 1\n500 1\n"},
		{"it appends to what it cannot know better", "1048576S\n7 7\n", []string{rule}, old, "1048576S\n7 7\n500 1\n"},
		{"it counts without a file", "-", []string{rule}, time.Time{}, "1048576S\n1000 1\n500 1\n"},
		{"it counts if the limit is another", "20S\n7 7\n", []string{rule}, time.Time{}, "1048576S\n1000 1\n500 1\n"},
		{"it counts if there is a new limit", "1048576S\n7 7\n", []string{rule, "*:messages=9"}, time.Time{}, "1048576S,9C\n1000 1\n500 1\n"},
		{"it counts if the file is damaged", "1048576S\n7 seven\n", []string{rule}, time.Time{}, "1048576S\n1000 1\n500 1\n"},
		{"it counts if the file is empty", "", []string{rule}, time.Time{}, "1048576S\n1000 1\n500 1\n"},
		{"it counts if the file is long", "1048576S\n" + strings.Repeat("1 1\n", 1300), []string{rule}, time.Time{}, "1048576S\n1000 1\n500 1\n"},
		{"it counts if over the limit in several lines", "1048576S\n1048576 1\n1 1\n", []string{rule}, time.Time{}, "1048576S\n1000 1\n500 1\n"},
		{"it counts if over the limit for long", "1048576S\n1048577 1\n", []string{rule}, old, "1048576S\n1000 1\n500 1\n"},
		{"it believes that it is over the limit", "1048576S\n1048577 1\n", []string{rule}, time.Time{}, "1048576S\n1048577 1\n"},
		{"it takes the limit from the file without a rule", "1200S\n1000 1\n", nil, time.Time{}, "1200S\n1000 1\n"},
		{"it keeps the file without a limit", "0S\n1000 1\n", []string{"*:storage=0"}, time.Time{}, "0S\n1000 1\n500 1\n"},
		{"it makes a file without a rule", "-", nil, time.Time{}, "0S\n1000 1\n500 1\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, &Root{Backend: Maildir}, tt.rules...)
			if err := s.deliver("", 1000); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(s.path()); err != nil {
				t.Fatal(err)
			}
			if tt.before != "-" {
				if err := os.WriteFile(s.path(), []byte(tt.before), 0o666); err != nil {
					t.Fatal(err)
				}
				if err := os.Chown(s.path(), s.mb.UID, s.mb.GID); err != nil {
					t.Fatal(err)
				}
				if !tt.mtime.IsZero() {
					if err := os.Chtimes(s.path(), tt.mtime, tt.mtime); err != nil {
						t.Fatal(err)
					}
				}
			}
			err := s.deliver("", 500)
			if err != nil && !errors.Is(err, lmtp.ErrOverQuota) {
				t.Error(err)
			}
			if got, _ := os.ReadFile(s.path()); string(got) != tt.want {
				t.Errorf("maildirsize %.60q; want %q", got, tt.want)
			}
		})
	}
}

// Many deliveries at once, while the file vanishes now and then: together they do not
// exceed limit and grace, and each stored message is counted once.
// TestOddSizeFile: whatever a user has put in the place of maildirsize, the message is
// delivered, what the user's link points to stays as it is, and nobody waits.
func TestOddSizeFile(t *testing.T) {
	tests := []struct {
		name string
		make func(path, elsewhere string) error
	}{
		{"a FIFO", func(path, _ string) error { return unix.Mkfifo(path, 0o666) }},
		{"a link to a file", func(path, elsewhere string) error { return os.Symlink(elsewhere, path) }},
		{"a link to nothing", func(path, _ string) error { return os.Symlink("nowhere", path) }},
		{"a socket", func(path, _ string) error { return unix.Mknod(path, unix.S_IFSOCK|0o666, 0) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, &Root{Backend: Maildir}, "*:bytes=1000")
			if err := s.deliver("", 100); err != nil {
				t.Fatal(err)
			}
			elsewhere := s.mb.Home + "/elsewhere"
			const foreign = "1000S\n0 0\n"
			if err := errors.Join(os.Remove(s.path()), os.WriteFile(elsewhere, []byte(foreign), 0o666), tt.make(s.path(), elsewhere)); err != nil {
				t.Fatal(err)
			}
			if err := s.deliver("", 200); err != nil {
				t.Error(err)
			}
			s.check()
			if data, err := os.ReadFile(elsewhere); err != nil || string(data) != foreign {
				t.Errorf("the other file says %q, %v; want it untouched", data, err)
			}
		})
	}
}

func TestConcurrent(t *testing.T) {
	for _, backend := range []Backend{Maildir, Count} {
		const limit, size = 100_000, 700
		s := newSite(t, &Root{Backend: backend, Grace: Grace{Percent: 10}}, fmt.Sprintf("*:bytes=%d", limit))
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for range 16 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if err := s.deliver("", size); errors.Is(err, lmtp.ErrOverQuota) {
						return
					} else if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		var gone sync.WaitGroup
		gone.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
					_ = os.Remove(s.path())
				}
			}
		})
		wg.Wait()
		close(stop)
		gone.Wait()
		// The first to be refused may have been so because of others' reservations.
		for s.deliver("", size) == nil {
		}
		got := s.stored().bytes
		if got < limit || got > limit+limit/10 {
			t.Errorf("backend %d: stored %d octets; want %d to %d", backend, got, limit, limit+limit/10)
		}
		if backend == Maildir {
			s.check()
		}
		if n := len(s.d.Quota.(*Root).accounts); n != 0 {
			t.Errorf("%d accounts left", n)
		}
	}
}

// Folders count, in either layout; so do messages whose names do not tell the size. INBOX counts
// once, also where it stands among the folders.
func TestCounting(t *testing.T) {
	for location, inbox := range map[string]string{
		"maildir:~/Maildir": "Maildir", "maildir:~/Maildir:LAYOUT=fs": "Maildir", "maildir:~/Mail:INBOX=~/Maildir:CONTROL=~/Maildir": "Maildir",
		"maildir:~/Mail:INBOX=~/Mail/.INBOX:CONTROL=~/Maildir": "Mail/.INBOX", "maildir:~/Mail:LAYOUT=fs:INBOX=~/Mail/INBOX:CONTROL=~/Maildir": "Mail/INBOX",
	} {
		for _, backend := range []Backend{Maildir, Count} {
			s := newSite(t, &Root{Backend: backend}, "*:bytes=1000")
			s.mb.Mail = location
			for _, box := range []string{"", "Work", "Café"} {
				if err := s.deliver(box, 100); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(s.mb.Home, inbox, "cur/1.x.y:2,S"), make([]byte, 300), 0o644); err != nil {
				t.Fatal(err)
			}
			_ = os.Remove(s.path())
			s.d.Quota = &Root{Backend: backend} // as after a restart
			if err := s.deliver("", 401); !errors.Is(err, lmtp.ErrOverQuota) {
				t.Errorf("%s, backend %d: 401 octets more than 600: %v", location, backend, err)
			}
			if err := s.deliver("", 400); err != nil {
				t.Errorf("%s, backend %d: 400 octets more than 600: %v", location, backend, err)
			}
		}
	}
}

// Rules have the names that clients see.
func TestPrefix(t *testing.T) {
	for _, backend := range []Backend{Maildir, Count} {
		s := newSite(t, &Root{Backend: backend}, "*:bytes=1000", "INBOX.Spam:ignore")
		s.d.Prefix = "INBOX."
		for _, box := range []string{"Spam", "INBOX.Spam", "", "inbox"} {
			if err := s.deliver(box, 400); err != nil {
				t.Fatal(err)
			}
		}
		_ = os.Remove(s.path())
		s.d.Quota = &Root{Backend: backend}
		if err := s.deliver("", 201); !errors.Is(err, lmtp.ErrOverQuota) {
			t.Errorf("backend %d: 201 octets more than 800: %v", backend, err)
		}
		if err := s.deliver("INBOX", 200); err != nil {
			t.Errorf("backend %d: 200 octets more than 800: %v", backend, err)
		}
	}
}

// What the user deletes makes room at once where the usage is near the limit.
func TestCountSeesDeletions(t *testing.T) {
	s := newSite(t, &Root{Backend: Count}, "*:bytes=1000")
	if err := s.deliver("", 1000); err != nil {
		t.Fatal(err)
	}
	if err := s.deliver("", 1); !errors.Is(err, lmtp.ErrOverQuota) {
		t.Fatal(err)
	}
	got, _ := filepath.Glob(s.mb.Home + "/Maildir/new/*")
	if len(got) != 1 || os.Remove(got[0]) != nil {
		t.Fatalf("messages %q", got)
	}
	if err := s.deliver("", 900); err != nil {
		t.Error(err)
	}
}
