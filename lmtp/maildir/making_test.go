package maildir

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dovepost/lmtp"
)

// hanging is a filesystem on which fsync of a directory waits.
type hanging struct {
	kernel
	path    string        // that of the directory
	hangs   chan struct{} // gets a value when somebody waits
	goes    chan struct{} // closed when it shall wait no longer
	einval  bool          // directories cannot be synced
	refused int
}

func (h *hanging) Sync(fd int) error {
	if path := linkOf(fd); path == h.path {
		select {
		case h.hangs <- struct{}{}:
		default: // one is enough
		}
		<-h.goes
	}
	var st unix.Stat_t
	if h.einval && unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		h.refused++
		return unix.EINVAL
	}
	return h.kernel.Sync(fd)
}

// A disk that hangs while it makes the mailbox of one user stops no other user. Who gets
// mail for the same mailbox meanwhile waits: its directories are not durable yet.
func TestMakingHangs(t *testing.T) {
	slow, there, other := mailbox(t), mailbox(t), mailbox(t)
	h := &hanging{hangs: make(chan struct{}, 1), goes: make(chan struct{})}
	d := &Deliverer{FS: h}
	if err := deliver(d, there, "Subject: before\n\n"); err != nil {
		t.Fatal(err)
	}
	h.path = slow.Home + "/Maildir"
	results := make(chan error, 2)
	go func() { results <- deliver(d, slow, "Subject: first\n\n") }()
	<-h.hangs
	for _, mb := range []*lmtp.Mailbox{there, other} {
		if err := deliver(d, mb, "Subject: x\n\n"); err != nil {
			t.Error(err)
		}
	}
	go func() { results <- deliver(d, slow, "Subject: second\n\n") }()
	// Nothing tells that the second delivery waits but that it does not come to its end
	// before what comes after it does.
	if err := deliver(d, other, "Subject: y\n\n"); err != nil {
		t.Error(err)
	}
	select {
	case err := <-results:
		t.Errorf("a delivery ended, %v, before the mailbox was durable", err)
	default:
	}
	close(h.goes)
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	for mb, want := range map[*lmtp.Mailbox]int{slow: 2, there: 2, other: 2} {
		if got, _ := messages(t, mb.Home); len(got) != want {
			t.Errorf("%q; want %d messages", got, want)
		}
	}
	if n := d.making.n.Load(); n != 0 || len(d.making.names) != 0 {
		t.Errorf("%d names are still being made: %v", n, d.making.names)
	}
}

// CIFS syncs files and no directories.
func TestDirectoriesThatCannotBeSynced(t *testing.T) {
	mb := mailbox(t)
	h := &hanging{einval: true}
	if err := deliver(&Deliverer{FS: h}, mb, "Subject: x\n\n"); err != nil {
		t.Error(err)
	}
	if got, _ := messages(t, mb.Home); len(got) != 1 || h.refused == 0 || !strings.Contains(got[0], "new/") {
		t.Errorf("stored %q, %d times refused; want one message", got, h.refused)
	}
}
