package quota

import (
	"errors"
	"os"
	"testing"

	"dovepost/lmtp"
	"dovepost/lmtp/maildir"

	"golang.org/x/sys/unix"
)

// watched counts how often maildirsize is opened to be read.
type watched struct {
	maildir.FS
	reads int
}

func (w *watched) Open(dir int, name string, flags int, mode uint32) (int, error) {
	if name == sizeName && flags&unix.O_ACCMODE == unix.O_RDONLY {
		w.reads++
	}
	return w.FS.Open(dir, name, flags, mode)
}

// What is known of maildirsize is believed until somebody else has changed the file.
func TestKnownSize(t *testing.T) {
	const rules = "*:backend=1000S"
	tests := []struct {
		name   string
		change func(path string) error
		reads  int // after the change
		full   bool
	}{
		{"it reads what nobody has changed but once", func(string) error { return nil }, 0, false},
		{"it sees what another program appends", func(path string) error {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteString("900 1\n")
				err = errors.Join(err, f.Close())
			}
			return err
		}, 1, false}, // and counts again, since that is over quota
		{"it sees a file of the same length in its place", func(path string) error {
			err := os.WriteFile(path+".new", []byte("1000S\n999 1\n"), 0o666)
			return errors.Join(err, os.Rename(path+".new", path))
		}, 1, true},
		{"it sees that the file has gone", os.Remove, 1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, &Root{Backend: Maildir}, rules)
			fs := &watched{FS: maildir.System}
			s.d.FS = fs
			if err := s.deliver("", 100); err != nil {
				t.Fatal(err)
			}
			if err := s.deliver("", 0); err != nil { // it is read here
				t.Fatal(err)
			}
			if err := s.deliver("", 0); err != nil {
				t.Fatal(err)
			}
			fs.reads = 0
			if err := tt.change(s.path()); err != nil {
				t.Fatal(err)
			}
			err := s.deliver("", 500)
			if tt.full && !errors.Is(err, lmtp.ErrOverQuota) || !tt.full && err != nil {
				t.Errorf("got %v; full %v", err, tt.full)
			}
			if min(fs.reads, 1) != tt.reads {
				t.Errorf("maildirsize was read %d times", fs.reads)
			}
			if !tt.full {
				s.check()
			}
		})
	}
}

// What is remembered is bounded.
func TestKnownSizes(t *testing.T) {
	var k knownSizes
	for i := range maxSums + 100 {
		st := unix.Stat_t{Ino: uint64(i)}
		k.put(string(rune(i+0x10000)), &st, sizeFile{lines: i})
		if got, ok := k.get(string(rune(i+0x10000)), &st); !ok || got.lines != i {
			t.Fatalf("%d: %+v, %v", i, got, ok)
		}
	}
	if len(k.m) != maxSums {
		t.Errorf("%d remembered; want %d", len(k.m), maxSums)
	}
}
