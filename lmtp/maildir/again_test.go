package maildir

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dovepost/lmtp"
	"dovepost/lmtp/journal"

	"golang.org/x/sys/unix"
)

var quiet = slog.New(slog.DiscardHandler)

// openJournal opens a new journal, or one that another process has left.
func openJournal(t *testing.T, path string) *journal.Journal {
	t.Helper()
	j, err := journal.Open(path, journal.Options{Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// inherit copies the journal at path as it is now, for the process after the one that was killed,
// and returns the path of the copy.
func inherit(t *testing.T, path string) string {
	t.Helper()
	records, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "journal")
	if err := os.WriteFile(path, records, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// killed delivers msg with the journal at path and is killed at its call number last, before or after
// that is done. It returns the path of the journal for the next process; dead is false if there are fewer calls.
func killed(t *testing.T, path string, last int64, after bool, to []*lmtp.Mailbox, msg string) (next string, dead bool) {
	t.Helper()
	f := newDying(last, after)
	return f.run(t, &Deliverer{FS: f, Log: quiet}, path, to, msg)
}

// Each call of a transaction with three recipients fails once, in each way, and then all calls
// from one on. Who is told an error is told a temporary one; whoever is told that the message
// is there has it. What fails is sent again, by a client that may have lost the whole answer, to
// this process or to the next: each has the message once.
func TestTransactionFaults(t *testing.T) {
	for _, e := range []struct {
		err   error
		short bool
		ever  bool
	}{
		{err: unix.EIO}, {err: unix.EROFS}, {err: unix.ENOSPC}, {err: unix.ENOSPC, short: true}, {err: unix.EDQUOT},
		{err: unix.EIO, ever: true}, {err: unix.ENOSPC, ever: true},
	} {
		for _, cold := range []bool{true, false} {
			for _, restart := range []bool{false, true} {
				if (cold || restart) && (e.err == unix.EROFS || e.err == unix.EDQUOT) {
					continue // the same as EIO
				}
				t.Run(fmt.Sprintf("%v/short=%v/ever=%v/cold=%v/restart=%v", e.err, e.short, e.ever, cold, restart), func(t *testing.T) {
					for k := 1; ; k++ {
						f := &faulty{first: k, last: k, err: e.err, short: e.short}
						if e.ever {
							f.last = 1 << 30
						}
						if !faultAt(t, f, cold, restart) {
							if k < 30 {
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

// faultAt reports whether a call failed.
func faultAt(t *testing.T, f *faulty, cold, restart bool) bool {
	t.Helper()
	msg := "Subject: x\n\n" + strings.Repeat("0123456789\n", 9000) // two writes
	to, base := team(t)
	defer os.RemoveAll(filepath.Dir(base))
	if !cold {
		deliverAll(&Deliverer{}, to[:2], "first\n")
		clean(t, base)
	}
	path := filepath.Join(t.TempDir(), "journal")
	d := &Deliverer{FS: f, Journal: openJournal(t, path), Log: quiet}
	defer func() { d.Journal.Close() }()
	stored := 0
	for i, err := range deliverAll(d, to, msg) {
		switch {
		case err == nil:
			stored++
		case !temporary(err):
			t.Errorf("%q failed: %s: %v is not temporary", f.failed, to[i].Rcpt, err)
		}
	}
	check := func(when string, least, most int) {
		t.Helper()
		got, drafts := messages(t, base)
		if len(got) < least || len(got) > most {
			t.Errorf("%q failed: %s: %d messages; want %d to %d", f.failed, when, len(got), least, most)
		}
		for _, name := range got {
			if body, _ := os.ReadFile(base + "/" + name); string(body) != msg {
				t.Errorf("%q failed: %s: %d octets of %d", f.failed, when, len(body), len(msg))
			}
		}
		if len(drafts) > 0 && !slices.ContainsFunc(f.failed, func(s string) bool { return strings.HasPrefix(s, "unlink") }) {
			t.Errorf("%q failed: %s: left %q", f.failed, when, drafts)
		}
	}
	most := stored
	if len(f.failed) > 1 || slices.ContainsFunc(f.failed, func(s string) bool { return strings.HasPrefix(s, "sync") }) {
		most = 3 // what could not be taken back
	}
	check("at first", stored, most)
	f.first, f.last = 0, 0
	if restart {
		next := openJournal(t, inherit(t, path))
		d.Journal.Close()
		d.Journal = next
	}
	for i, err := range deliverAll(d, to, msg) {
		if err != nil {
			t.Errorf("%q failed: again: %s: %v", f.failed, to[i].Rcpt, err)
		}
	}
	check("again", 3, 3)
	return len(f.failed) > 0
}

// The process is killed at a call, and the next one while it takes the message again.
func TestKilledTwice(t *testing.T) {
	const msg = "Subject: x\n\nonce\n"
	for first, more := int64(1), true; more; first++ {
		for second, again := int64(1), true; again; second++ {
			to, base := team(t)
			deliverAll(&Deliverer{}, to[:2], "first\n")
			clean(t, base)
			path := filepath.Join(t.TempDir(), "journal")
			path, more = killed(t, path, first, second%2 == 0, to, msg)
			path, again = killed(t, path, second, first%2 == 0, to, msg)
			d := &Deliverer{Journal: openJournal(t, path), Log: quiet}
			for i, err := range deliverAll(d, to, msg) {
				if err != nil {
					t.Errorf("killed at %d and %d: %s: %v", first, second, to[i].Rcpt, err)
				}
			}
			if got, _ := messages(t, base); len(got) != 3 {
				t.Errorf("killed at %d and %d: %d messages; want 3", first, second, len(got))
			}
			d.Journal.Close()
			os.RemoveAll(filepath.Dir(base))
		}
	}
}

// A message whose draft could not be forgotten, because the disk of the journal is full, too, is
// not taken for one that was delivered: the draft stays for the next process.
func TestJournalCannotForget(t *testing.T) {
	mb := mailbox(t)
	deliver(&Deliverer{}, mb, "first\n")
	clean(t, mb.Home)
	path := filepath.Join(t.TempDir(), "journal")
	f := &faulty{only: "rename", err: unix.ENOSPC}
	j := openJournal(t, path)
	d := &Deliverer{FS: &spoiling{f, path, j}, Journal: j, Log: quiet}
	if err := deliverAll(d, []*lmtp.Mailbox{mb}, "x\n")[0]; !temporary(err) {
		t.Fatalf("%v; want a temporary error", err)
	}
	d = &Deliverer{Journal: openJournal(t, inherit(t, path+".x")), Log: quiet}
	if err := deliverAll(d, []*lmtp.Mailbox{mb}, "x\n")[0]; err != nil {
		t.Fatal(err)
	}
	if got, drafts := messages(t, mb.Home); len(got) != 1 || len(drafts) != 0 {
		t.Errorf("%q, drafts %q; want one message", got, drafts)
	}
}

// spoiling makes the journal at path unwritable when a rename is tried.
type spoiling struct {
	*faulty
	path string
	j    *journal.Journal
}

func (s *spoiling) Rename(dir int, name string, todir int, toname string, flags uint) error {
	done := make(chan error)
	go func() { // on a thread that has not the rights of the mailbox's owner
		done <- errors.Join(s.j.Close(), os.Rename(s.path, s.path+".x"), os.Mkdir(s.path, 0o700))
	}()
	if err := <-done; err != nil {
		return err
	}
	return s.faulty.Rename(dir, name, todir, toname, flags)
}

// What the process before had made visible and not durable is made durable before it is acknowledged,
// also where a reader has moved it by then.
func TestDurableWhenSentAgain(t *testing.T) {
	for _, read := range []bool{false, true} {
		mb := mailbox(t)
		if err := deliver(&Deliverer{}, mb, "x\n"); err != nil {
			t.Fatal(err)
		}
		got, _ := messages(t, mb.Home)
		final, synced := filepath.Join(mb.Home, got[0]), mb.Home+"/Maildir/new"
		path := filepath.Join(t.TempDir(), "journal")
		j := openJournal(t, path)
		j.Intend(journal.Move{Key: journal.KeyOf("4XYZ", mb.Rcpt, lmtp.Text("x\n").Digest()), Draft: mb.Home + "/Maildir/tmp/gone", Final: final})
		if read {
			if err := os.Rename(final, mb.Home+"/Maildir/cur/"+filepath.Base(final)+":2,S"); err != nil {
				t.Fatal(err)
			}
			synced = mb.Home + "/Maildir/cur"
		}
		for _, fail := range []bool{true, false} {
			f := &faulty{}
			if fail {
				f.only, f.err = "sync "+synced, unix.EIO
			}
			d := &Deliverer{FS: f, Journal: openJournal(t, inherit(t, path)), Log: quiet}
			err := deliverAll(d, []*lmtp.Mailbox{mb}, "x\n")[0]
			if fail && !temporary(err) || !fail && err != nil {
				t.Errorf("read=%v, sync fails=%v: %v", read, fail, err)
			}
			if !fail && !slices.Contains(f.trace, "sync "+synced) {
				t.Errorf("read=%v: acknowledged without sync of %s: %q", read, synced, f.trace)
			}
		}
		if got, _ := messages(t, mb.Home); len(got) != 1 {
			t.Errorf("read=%v: %q; want one message", read, got)
		}
	}
}

// A mailbox whose directories are gone proves nothing: the message is stored again.
func TestMailboxGone(t *testing.T) {
	mb := mailbox(t)
	j := openJournal(t, filepath.Join(t.TempDir(), "journal"))
	box := mb.Home + "/Maildir"
	j.Intend(journal.Move{Key: journal.KeyOf("4XYZ", mb.Rcpt, lmtp.Text("x\n").Digest()), Draft: box + "/tmp/gone", Final: box + "/new/gone"})
	if err := deliverAll(&Deliverer{Journal: j, Log: quiet}, []*lmtp.Mailbox{mb}, "x\n")[0]; err != nil {
		t.Fatal(err)
	}
	if got, _ := messages(t, mb.Home); len(got) != 1 {
		t.Errorf("%q; want one message", got)
	}
}

// remounted is a filesystem whose disk, at dir, is mounted at home when it has been looked for in vain.
type remounted struct {
	*faulty
	dir, home string
	err       error
}

func (r *remounted) StatAt(dir int, name string, st *unix.Stat_t) error {
	err := r.faulty.StatAt(dir, name, st)
	if exists, _ := exists(err); !exists && r.dir != "" && strings.HasPrefix(name, r.home+"/") {
		r.err = errors.Join(os.Remove(r.home), os.Rename(r.dir, r.home))
		r.dir = ""
	}
	return err
}

// A disk that is not mounted when lmtpd looks for the message, and is when it opens the mailbox, has it once.
func TestDiskComesBack(t *testing.T) {
	for _, read := range []bool{false, true} {
		mb := mailbox(t)
		if err := deliver(&Deliverer{}, mb, "x\n"); err != nil {
			t.Fatal(err)
		}
		got, _ := messages(t, mb.Home)
		final := filepath.Join(mb.Home, got[0])
		j := openJournal(t, filepath.Join(t.TempDir(), "journal"))
		j.Intend(journal.Move{Key: journal.KeyOf("4XYZ", mb.Rcpt, lmtp.Text("x\n").Digest()), Draft: mb.Home + "/Maildir/tmp/gone", Final: final})
		away := mb.Home + ".away"
		err := os.Rename(mb.Home, away)
		if err == nil {
			err = os.WriteFile(mb.Home, nil, 0o600) // nobody makes a mailbox there
		}
		if err == nil && read {
			err = os.Rename(strings.Replace(final, mb.Home, away, 1), away+"/Maildir/cur/"+filepath.Base(final)+":2,S")
		}
		if err != nil {
			t.Fatal(err)
		}
		f := &remounted{faulty: &faulty{}, dir: away, home: mb.Home}
		d := &Deliverer{FS: f, Journal: j, Log: quiet}
		for range 2 {
			if err := deliverAll(d, []*lmtp.Mailbox{mb}, "x\n")[0]; err != nil {
				t.Error(err)
			}
		}
		if got, _ := messages(t, mb.Home); len(got) != 1 || f.err != nil || f.dir != "" {
			t.Errorf("read=%v: %q, %v; want one message", read, got, f.err)
		}
	}
}

// Where the rename was a link and the draft is there as well, the message is delivered.
func TestLinkedAndKilled(t *testing.T) {
	mb := mailbox(t)
	if err := deliver(&Deliverer{}, mb, "x\n"); err != nil {
		t.Fatal(err)
	}
	got, _ := messages(t, mb.Home)
	final, draft := mb.Home+"/"+got[0], mb.Home+"/Maildir/tmp/draft"
	if err := os.Link(final, draft); err != nil {
		t.Fatal(err)
	}
	j := openJournal(t, filepath.Join(t.TempDir(), "journal"))
	j.Intend(journal.Move{Key: journal.KeyOf("4XYZ", mb.Rcpt, lmtp.Text("x\n").Digest()), Draft: draft, Final: final})
	if err := deliverAll(&Deliverer{Journal: j, Log: quiet}, []*lmtp.Mailbox{mb}, "x\n")[0]; err != nil {
		t.Fatal(err)
	}
	if got, _ := messages(t, mb.Home); len(got) != 1 {
		t.Errorf("%q; want one message", got)
	}
}

// After a power failure nothing is sure that was not synced: a message that is not to be
// found is stored again.
func TestRebooted(t *testing.T) {
	for _, tt := range []struct {
		name    string
		fsync   Fsync
		state   journal.State
		flags   string // appended to the name of the message in cur/; empty: in new/
		removed bool
		want    int // messages afterwards
	}{
		{"done", FsyncOptimized, journal.Done, "", false, 1},
		{"done and moved", FsyncOptimized, journal.Done, "", true, 0},
		{"done without sync, and lost", FsyncNever, journal.Done, "", true, 1},
		{"begun and there", FsyncOptimized, journal.Begun, "", false, 1},
		{"begun and read", FsyncOptimized, journal.Begun, ":2,S", false, 1},
		{"begun and lost", FsyncOptimized, journal.Begun, "", true, 1},
	} {
		t.Run("it handles a message that is "+tt.name, func(t *testing.T) {
			mb := mailbox(t)
			path := filepath.Join(t.TempDir(), "journal")
			const msg = "x\n"
			if err := deliver(&Deliverer{}, mb, msg); err != nil {
				t.Fatal(err)
			}
			got, _ := messages(t, mb.Home)
			final := mb.Home + "/" + got[0]
			if tt.removed {
				os.Remove(final)
			} else if tt.flags != "" {
				os.Rename(final, mb.Home+"/Maildir/cur/"+filepath.Base(final)+tt.flags)
			}
			j, err := journal.Open(path, journal.Options{})
			if err != nil {
				t.Fatal(err)
			}
			k := journal.KeyOf("4XYZ", mb.Rcpt, lmtp.Text(msg).Digest())
			j.Intend(journal.Move{Key: k, Draft: mb.Home + "/Maildir/tmp/gone", Final: final})
			if tt.state == journal.Done {
				j.Done(k)
			}
			j.Close()
			// The journal of another start of the machine.
			records, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.SplitN(string(records), "\n", 3)
			if err := os.WriteFile(path, []byte(lines[2]), 0o600); err != nil {
				t.Fatal(err)
			}
			if j, err = journal.Open(path, journal.Options{}); err != nil {
				t.Fatal(err)
			}
			defer j.Close()
			d := &Deliverer{Journal: j, Fsync: tt.fsync, Log: quiet}
			if err := deliverAll(d, []*lmtp.Mailbox{mb}, msg)[0]; err != nil {
				t.Fatal(err)
			}
			if got, _ := messages(t, mb.Home); len(got) != tt.want {
				t.Errorf("%q; want %d", got, tt.want)
			}
		})
	}
}
