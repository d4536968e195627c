package quota

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dovepost/lmtp"
	"dovepost/lmtp/maildir"
)

// viewer is what asks a View about the same mailboxes.
func (s *site) viewer(root *Root, fresh time.Duration) *maildir.Deliverer {
	return &maildir.Deliverer{SaveToDetail: true, Quota: NewView(root, fresh), Log: s.d.Log}
}

// tree tells all that is below the home, with times.
func (s *site) tree() string {
	var b strings.Builder
	err := filepath.WalkDir(s.mb.Home, func(p string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		fmt.Fprintln(&b, p, info.Mode(), info.Size(), info.ModTime())
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return b.String()
}

// Whatever was delivered, and whatever became of maildirsize, a View says what the Root says, and
// leaves everything as it was.
func TestAViewDecidesAsTheRoot(t *testing.T) {
	for _, backend := range []Backend{Maildir, Count} {
		for name, rules := range map[string][]string{
			"storage": {"*:storage=20K"}, "messages": {"*:messages=3"}, "Trash": {"*:storage=10000b", "Trash:storage=+1000b"},
			"ignored": {"*:storage=1000b", "Spam:ignore"}, "nothing": {"*:storage=0"}, "the file's": nil, "none": nil,
		} {
			t.Run(fmt.Sprintf("%s/%d", name, backend), func(t *testing.T) {
				root := &Root{Backend: backend, Grace: Grace{Percent: 10}, MaxMail: 30_000}
				s := newSite(t, root, rules...)
				view := s.viewer(&Root{Backend: backend, Grace: Grace{Percent: 10}, MaxMail: 30_000}, 1)
				check := func(when string) {
					t.Helper()
					for _, box := range []string{"", "Trash", "Spam"} {
						for _, size := range []int64{0, 1, 1000, 5000, 25_000, 45_000, 70_000} {
							mb := s.mb
							mb.Detail = box
							before := s.tree()
							got := view.HasRoom(context.Background(), &mb, size)
							if after := s.tree(); after != before {
								t.Fatalf("%s: it has changed\n%s\nto\n%s", when, before, after)
							}
							if want := s.d.HasRoom(context.Background(), &mb, size); fmt.Sprint(got) != fmt.Sprint(want) {
								t.Errorf("%s: %d octets for %q: %v, want %v", when, size, box, got, want)
							}
						}
					}
				}
				check("at first")
				for i, step := range []struct {
					box  string
					size int
				}{{"", 600}, {"Spam", 5000}, {"", 600}, {"Trash", 9000}, {"", 8000}, {"Trash", 900}, {"", 5000}} {
					_ = s.deliver(step.box, step.size)
					if name == "the file's" && i == 1 {
						if err := os.WriteFile(s.path(), []byte("6000S,9C\n600 1\n"), 0o666); err != nil && backend == Maildir {
							t.Fatal(err)
						}
					}
					check(fmt.Sprintf("step %d", i))
				}
				for when, change := range map[string]func() error{
					"without maildirsize": func() error { return os.RemoveAll(s.path()) },
					"damaged":             func() error { return os.WriteFile(s.path(), []byte("x\n"), 0o666) },
					"old":                 func() error { return os.Chtimes(s.path(), time.Now(), time.Now().Add(-time.Hour)) },
				} {
					if err := change(); err != nil && backend == Maildir {
						t.Fatal(err)
					}
					check(when)
				}
			})
		}
	}
}

func TestAViewRemembersForAMoment(t *testing.T) {
	root := &Root{Backend: Maildir}
	s := newSite(t, root, "*:storage=1000b")
	long, short := s.viewer(root, time.Hour), s.viewer(root, 1)
	has := func(d *maildir.Deliverer) bool { return d.HasRoom(t.Context(), &s.mb, 500) == nil }
	if !has(long) || !has(short) {
		t.Error("no room in an empty mailbox")
	}
	if err := s.deliver("", 1000); err != nil {
		t.Fatal(err)
	}
	if !has(long) || has(short) {
		t.Error("a full mailbox: want room in the view of an hour ago alone")
	}
}

func TestNobodyDeliversThroughAView(t *testing.T) {
	root := &Root{Backend: Maildir}
	s := newSite(t, root, "*:storage=1000b")
	d := s.viewer(root, 1)
	if err := d.Deliver(t.Context(), &lmtp.Envelope{}, []*lmtp.Mailbox{&s.mb}, lmtp.Text("x"))[0]; err == nil {
		t.Error("delivered")
	}
}
