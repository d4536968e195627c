package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dovepost/lmtp"

	"golang.org/x/sys/unix"
)

// says is a filter that always says the same.
type says lmtp.Verdict

func (s says) Filter(context.Context, *lmtp.Envelope, *lmtp.Mailbox, lmtp.Message) (lmtp.Verdict, error) {
	return lmtp.Verdict(s), nil
}

func into(boxes ...string) (all []lmtp.Filing) {
	for _, box := range boxes {
		all = append(all, lmtp.Filing{Mailbox: box, Create: true})
	}
	return all
}

// post is a Sender that keeps what it gets.
type post struct {
	sent []string
	err  error
}

func (p *post) Send(_ context.Context, sender, to string, msg lmtp.Message) error {
	text, err := io.ReadAll(msg.Open())
	if err == nil && int64(len(text)) != msg.Size() {
		err = fmt.Errorf("%d octets are announced as %d", len(text), msg.Size())
	}
	if err = errors.Join(err, p.err); err == nil {
		p.sent = append(p.sent, sender+" "+to+" "+string(text))
	}
	return err
}

// places are the mailboxes and flags of the messages below home, without their names.
func places(t *testing.T, home string) (all []string) {
	t.Helper()
	got, drafts := messages(t, home)
	if len(drafts) > 0 {
		t.Errorf("drafts %q", drafts)
	}
	for _, name := range got {
		_, flags, _ := strings.Cut(filepath.Base(name), ":2,")
		all = append(all, strings.TrimSuffix(strings.TrimPrefix(filepath.Dir(name), "Maildir/")+" "+flags, " "))
	}
	slices.Sort(all)
	return all
}

func TestVerdicts(t *testing.T) {
	refusal := &lmtp.Status{Code: 550, Enhanced: "5.7.1", Text: "No"}
	const msg = "Return-Path: <x@y>\nDelivered-To: alice@example.com\nReceived: here\nSubject: x\n\ntext\n"
	const back = "Return-Path: <x@y>\nReceived: here\nDelivered-To: ALICE@example.com\nSubject: x\n\ntext\n"
	tests := []struct {
		name, msg, detail string
		verdict           lmtp.Verdict
		want, sent        []string
		err               string
	}{
		{"nothing to be said", msg, "", lmtp.Verdict{}, []string{"new"}, nil, ""},
		{"a kept copy with flags", msg, "", lmtp.Verdict{Flags: []string{`\Seen`, `\flagged`, `\Seen`}}, []string{"cur FS"}, nil, ""},
		{"a detail that is kept", msg, "Work", lmtp.Verdict{}, []string{".Work/new"}, nil, ""},
		{"a mailbox", msg, "", lmtp.Verdict{File: into("A.B"), Handled: true}, []string{".A.B/new"}, nil, ""},
		{"two mailboxes", msg, "", lmtp.Verdict{File: into("A", "B"), Handled: true}, []string{".A/new", ".B/new"}, nil, ""},
		{"a mailbox and the usual copy", msg, "", lmtp.Verdict{File: into("A")}, []string{".A/new", "new"}, nil, ""},
		{"a mailbox twice", msg, "", lmtp.Verdict{File: into("A", "A"), Handled: true}, []string{".A/new"}, nil, ""},
		{"INBOX by two names", msg, "", lmtp.Verdict{File: into("inbox", "INBOX")}, []string{"new"}, nil, ""},
		{"flags of both", msg, "", lmtp.Verdict{File: []lmtp.Filing{{Mailbox: "INBOX", Flags: []string{`\Seen`}}}, Flags: []string{`\Draft`}}, []string{"cur DS"}, nil, ""},
		{"a mailbox that does not exist", msg, "", lmtp.Verdict{File: []lmtp.Filing{{Mailbox: "A", Flags: []string{`\Seen`}}}, Handled: true}, []string{"new"}, nil, ""},
		{"two that do not exist", msg, "", lmtp.Verdict{File: []lmtp.Filing{{Mailbox: "A"}, {Mailbox: "B"}}, Handled: true}, []string{"new"}, nil, ""},
		{"names that no mailbox has", msg, "", lmtp.Verdict{File: into("../x", "A/B"), Handled: true}, []string{"new"}, nil, ""},
		{"a discard", msg, "", lmtp.Verdict{Handled: true}, nil, nil, ""},
		{"a refusal", msg, "", lmtp.Verdict{Refuse: refusal, File: into("A")}, nil, nil, "550 5.7.1 No"},
		{"a redirect", msg, "", lmtp.Verdict{Redirect: []string{"b@c", "b@c"}, Handled: true}, nil,
			[]string{"x@y b@c Delivered-To: alice@example.com\nReceived: here\nSubject: x\n\ntext\n"}, ""},
		{"a redirect and copies", msg, "", lmtp.Verdict{Redirect: []string{"b@c"}, File: into("A")}, []string{".A/new", "new"},
			[]string{"x@y b@c Delivered-To: alice@example.com\nReceived: here\nSubject: x\n\ntext\n"}, ""},
		{"a loop, which keeps", back, "", lmtp.Verdict{Redirect: []string{"b@c"}, Handled: true}, []string{"new"}, nil, ""},
		{"a loop with a copy", back, "", lmtp.Verdict{Redirect: []string{"b@c"}, File: into("A"), Handled: true}, []string{".A/new"}, nil, ""},
		{"a message without headers", "text\n", "", lmtp.Verdict{Redirect: []string{"b@c"}, Handled: true}, nil, []string{"x@y b@c Delivered-To: alice@example.com\ntext\n"}, ""},
		{"too much", msg, "", lmtp.Verdict{File: slices.Repeat(into("A"), 65)}, nil, nil, "451 4.2.0 "},
	}
	for _, tt := range tests {
		t.Run("it handles "+tt.name, func(t *testing.T) {
			mb := mailbox(t)
			mb.Detail = tt.detail
			p := new(post)
			d := &Deliverer{Filter: says(tt.verdict), Sender: p, SaveToDetail: true, Autocreate: true, Log: quiet}
			err := d.Deliver(context.Background(), &lmtp.Envelope{Sender: "x@y"}, []*lmtp.Mailbox{mb}, lmtp.Text(tt.msg))[0]
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("%v; want %q", err, tt.err)
			}
			if got := places(t, mb.Home); !slices.Equal(got, tt.want) {
				t.Errorf("stored %q; want %q", got, tt.want)
			}
			if !slices.Equal(p.sent, tt.sent) {
				t.Errorf("sent %q; want %q", p.sent, tt.sent)
			}
		})
	}
}

// broken is a filter that fails in some way.
type broken func() error

func (b broken) Filter(context.Context, *lmtp.Envelope, *lmtp.Mailbox, lmtp.Message) (lmtp.Verdict, error) {
	return lmtp.Verdict{Refuse: lmtp.ErrUnknownUser}, b()
}

// What goes wrong in a filter, or with a redirect, is temporary, and nothing is stored.
func TestFilterFails(t *testing.T) {
	file := lmtp.Verdict{File: into("A"), Redirect: []string{"b@c"}}
	for name, d := range map[string]*Deliverer{
		"an error":                 {Filter: broken(func() error { return errors.New("broken") })},
		"an error of class 5":      {Filter: broken(func() error { return lmtp.ErrUnknownUser })},
		"a panic":                  {Filter: broken(func() error { panic("broken") })},
		"no sender":                {Filter: says(file)},
		"a sender that fails":      {Filter: says(file), Sender: &post{err: errors.New("away")}},
		"a sender that is refused": {Filter: says(file), Sender: &post{err: lmtp.ErrUnknownUser}},
	} {
		d.Log = quiet
		mb := mailbox(t)
		if err := deliver(d, mb, "Subject: x\n\n"); !temporary(err) {
			t.Errorf("it handles %s: %v is not temporary", name, err)
		}
		if got := places(t, mb.Home); len(got) > 0 {
			t.Errorf("it handles %s: stored %q", name, got)
		}
	}
}

// filed are the verdicts that kills and faults are tried with.
var filed = says{File: []lmtp.Filing{{Mailbox: "Junk", Flags: []string{`\Seen`, "$Junk"}, Create: true, Subscribe: true}, {Mailbox: "Copy", Create: true}}, Redirect: []string{"b@c"}}

// mortal is a Sender of a process that may be killed.
type mortal struct {
	*post
	f *dying
}

func (m mortal) Send(ctx context.Context, sender, to string, msg lmtp.Message) error {
	if m.f.over() {
		return errors.New("killed")
	}
	return m.post.Send(ctx, sender, to, msg)
}

// The process is killed at each call that changes something, and the message is sent again: each
// mailbox has it once. A lock that was left behind without its text has to become stale first.
func TestKilledWhileFiling(t *testing.T) {
	const msg = "Subject: x\n\nonce\n"
	for _, after := range []bool{false, true} {
		for last := int64(1); ; last++ {
			mb := mailbox(t)
			path := filepath.Join(t.TempDir(), "journal")
			f := newDying(last, after)
			p := new(post)
			path, dead := f.run(t, &Deliverer{FS: f, Filter: filed, Sender: mortal{p, f}, Log: quiet}, path, []*lmtp.Mailbox{mb}, msg)
			holders.Delete(mb.Home + "/Maildir/.Junk") // what a process knows ends with it
			lock := mb.Home + "/Maildir/.Junk/" + uidlistLock
			if text, err := os.ReadFile(lock); err == nil && len(text) == 0 { // and nobody knows whose it is
				old := time.Now().Add(-lockStale - time.Minute)
				_ = os.Chtimes(lock, old, old)
			}
			next := &Deliverer{Journal: openJournal(t, path), Filter: filed, Sender: p, Log: quiet}
			if err := deliverAll(next, []*lmtp.Mailbox{mb}, msg)[0]; err != nil {
				t.Fatalf("after=%v call %d: again: %v", after, last, err)
			}
			got, _ := messages(t, mb.Home)
			want := map[string]int{"Maildir/.Junk/cur": 1, "Maildir/.Copy/new": 1, "Maildir/new": 1}
			for _, name := range got {
				want[filepath.Dir(name)]--
			}
			for dir, n := range want {
				if n != 0 {
					t.Errorf("after=%v call %d: %s misses %d: %q", after, last, dir, n, got)
				}
			}
			if len(p.sent) != 1 {
				t.Errorf("after=%v call %d: redirected %d times", after, last, len(p.sent))
			}
			next.Journal.Close()
			os.RemoveAll(filepath.Dir(filepath.Dir(mb.Home)))
			if !dead {
				if last < 30 {
					t.Errorf("only %d calls", last)
				}
				break
			}
		}
	}
}

// Each call fails once: all copies are there, or none. After it is sent again there is one in each mailbox.
func TestFaultsWhileFiling(t *testing.T) {
	const msg = "Subject: x\n\nonce\n"
	for _, cause := range []error{unix.EIO, unix.ENOSPC} {
		for k := 1; ; k++ {
			mb := mailbox(t)
			f := &faulty{first: k, last: k, err: cause}
			d := &Deliverer{FS: f, Journal: openJournal(t, filepath.Join(t.TempDir(), "journal")), Filter: filed, Sender: new(post), Log: quiet}
			err := deliverAll(d, []*lmtp.Mailbox{mb}, msg)[0]
			got, _ := messages(t, mb.Home)
			if err != nil && !temporary(err) {
				t.Errorf("%q failed: %v is not temporary", f.failed, err)
			}
			if want := map[bool]int{true: 0, false: 3}[err != nil]; len(got) != want {
				t.Errorf("%q failed: %v, and there are %q", f.failed, err, got)
			}
			f.first, f.last = 0, 0
			if err := deliverAll(d, []*lmtp.Mailbox{mb}, msg)[0]; err != nil {
				t.Errorf("%q failed: again: %v", f.failed, err)
			}
			if got, _ := messages(t, mb.Home); len(got) != 3 || len(d.Sender.(*post).sent) != 1 {
				t.Errorf("%q failed: again: %q, redirected %d times", f.failed, got, len(d.Sender.(*post).sent))
			}
			if _, err := os.Stat(mb.Home + "/Maildir/.Junk/" + uidlistLock); err == nil && !strings.Contains(strings.Join(f.failed, ""), "unlink") {
				t.Errorf("%q failed: left the lock", f.failed)
			}
			d.Journal.Close()
			os.RemoveAll(filepath.Dir(filepath.Dir(mb.Home)))
			if len(f.failed) == 0 {
				if k < 30 {
					t.Errorf("only %d calls", k)
				}
				break
			}
		}
	}
}
