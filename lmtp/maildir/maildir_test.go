package maildir

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"dovepost/lmtp"
)

// owner is an id that files can have in tests: the process's own, or if that is root
// one that it may become.
func owner() int {
	if os.Geteuid() == 0 {
		return 5000
	}
	return -1
}

// scratch is a directory in memory if there is one: most tests look at what a delivery asks
// the disk to do, and need not wait for it.
func scratch() string {
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		return "/dev/shm"
	}
	return ""
}

// mailbox is alice's, with a home that the owner may write to.
func mailbox(t testing.TB) *lmtp.Mailbox {
	t.Helper()
	base, err := os.MkdirTemp(scratch(), "maildir")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	if id := owner(); id >= 0 {
		if err := os.Chown(base, id, id); err != nil {
			t.Fatal(err)
		}
	}
	return &lmtp.Mailbox{
		Rcpt: "alice@example.com", User: "alice@example.com", Home: base + "/example.com/alice",
		Mail: "maildir:~/Maildir", UID: owner(), GID: owner(),
	}
}

func deliver(d *Deliverer, mb *lmtp.Mailbox, msg string) error {
	return d.Deliver(context.Background(), &lmtp.Envelope{}, []*lmtp.Mailbox{mb}, lmtp.Text(msg))[0]
}

// stream is a message that can be read once.
type stream struct{ io.Reader }

func (s stream) Open() io.Reader { return s.Reader }
func (stream) Size() int64       { return 1 }
func (stream) Digest() uint64    { return 0 }

// files lists the regular files below dir, relative to it.
func files(t testing.TB, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			names = append(names, strings.TrimPrefix(p, dir+"/"))
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return names
}

var messageName = regexp.MustCompile(`^Maildir/new/(\d+)\.M(\d{1,6})P\d+\.mx\\057a,S=(\d+),W=(\d+)$`)

func TestDeliver(t *testing.T) {
	tests := []struct {
		name, msg string
		w         int64
	}{
		{"it handles a usual message", "Subject: x\n\nhello\n", 21},
		{"it handles an empty message", "", 0},
		{"it handles CRLF, bare CR and CR CR LF", "a\r\nb\rc\r\r\n\n", 11},
		{"it handles NUL and 8 bit and no last line end", "a\x00\xff\n\xe4", 6},
		{"it handles more than the buffer", strings.Repeat(strings.Repeat("x", 70)+"\n", 3000), 72 * 3000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mb := mailbox(t)
			if err := deliver(&Deliverer{Hostname: "mx/a"}, mb, tt.msg); err != nil {
				t.Fatal(err)
			}
			got := files(t, mb.Home)
			if len(got) != 1 {
				t.Fatalf("files %q; want one", got)
			}
			m := messageName.FindStringSubmatch(got[0])
			if m == nil {
				t.Fatalf("name %q", got[0])
			}
			if s, _ := strconv.Atoi(m[3]); s != len(tt.msg) {
				t.Errorf("S=%d; want %d", s, len(tt.msg))
			}
			if w, _ := strconv.ParseInt(m[4], 10, 64); w != tt.w {
				t.Errorf("W=%d; want %d", w, tt.w)
			}
			body, err := os.ReadFile(filepath.Join(mb.Home, got[0]))
			if err != nil || string(body) != tt.msg {
				t.Errorf("body %.50q, %v; want %.50q", body, err, tt.msg)
			}
		})
	}
}

// The reader that splits CR from LF must not change the count.
func TestVirtualSizeAcrossWrites(t *testing.T) {
	for _, s := range []string{"a\r\nb\n\r\n", "\n\n\r\n\r\r\n"} {
		want := int64(len(strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\n", "\r\n")))
		c := counter{w: io.Discard}
		for i := range len(s) {
			c.Write([]byte{s[i]})
		}
		if got := c.size + c.lines; got != want {
			t.Errorf("%q in pieces: %d; want %d", s, got, want)
		}
		c = counter{w: io.Discard}
		c.Write([]byte(s))
		if got := c.size + c.lines; got != want {
			t.Errorf("%q whole: %d; want %d", s, got, want)
		}
	}
}

// A delivery whose time is over leaves nothing, also if the time ends while it writes.
func TestCancelled(t *testing.T) {
	for _, during := range []bool{false, true} {
		mb := mailbox(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var msg io.Reader = strings.NewReader("x\n")
		if during {
			msg = io.MultiReader(msg, readerFunc(func([]byte) (int, error) { cancel(); return 0, io.EOF }))
		} else {
			cancel()
		}
		err := (&Deliverer{}).Deliver(ctx, &lmtp.Envelope{}, []*lmtp.Mailbox{mb}, stream{msg})[0]
		if !errors.Is(err, lmtp.ErrTempFail) {
			t.Errorf("during=%v: %v; want ErrTempFail", during, err)
		}
		if got, drafts := messages(t, mb.Home); len(got)+len(drafts) != 0 {
			t.Errorf("during=%v: left %q %q", during, got, drafts)
		}
	}
}

// A spool that cannot be read is no message.
func TestReaderFails(t *testing.T) {
	mb := mailbox(t)
	msg := io.MultiReader(strings.NewReader("x\n"), readerFunc(func([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }))
	err := (&Deliverer{}).Deliver(t.Context(), &lmtp.Envelope{}, []*lmtp.Mailbox{mb}, stream{msg})[0]
	if !errors.Is(err, io.ErrUnexpectedEOF) || !temporary(err) {
		t.Errorf("%v; want a temporary error", err)
	}
	if got, drafts := messages(t, mb.Home); len(got)+len(drafts) != 0 {
		t.Errorf("left %q %q", got, drafts)
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Names are never the same, and sort by time.
func TestNames(t *testing.T) {
	last := nextStamp()
	for range 10000 {
		now := nextStamp()
		if now <= last {
			t.Fatalf("%d after %d", now, last)
		}
		last = now
	}
	for name, want := range map[string][2]int64{
		"1.M2P3.h,S=10,W=12":              {10, 12},
		"1.M2P3.h,S=10,W=12:2,FS":         {10, 12},
		"1.M2P3.h:2,S":                    {-1, -1},
		"1.M2P3.h,S=,W=x:2,S":             {-1, -1},
		"1.M2P3.h,W=99999999999999999999": {-1, -1},
	} {
		if s, w := Sizes(name); s != want[0] || w != want[1] {
			t.Errorf("Sizes(%q) = %d, %d; want %d", name, s, w, want)
		}
	}
	if got, want := hostname("a/b:c,d"), `a\057b\072c\054d`; got != want {
		t.Errorf("hostname %q; want %q", got, want)
	}
}
