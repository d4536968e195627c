package journal

import (
	"os"
	"path/filepath"
	"testing"
)

// full lets the next write of j fail as on a full disk, after the first n octets.
func full(t *testing.T, j *Journal, n int) {
	t.Helper()
	if n > 0 {
		if _, err := j.file.WriteString("00000000\tD\t1\tAAAA"[:n]); err != nil {
			t.Fatal(err)
		}
	}
	j.file.Close()
	var err error
	if j.file, err = os.OpenFile("/dev/full", os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	}
}

// While the disk is full nothing is forgotten that was known, neither in memory nor on disk, and
// what is written afterwards is read again.
func TestDiskFullForAWhile(t *testing.T) {
	for _, torn := range []int{0, 1, 14} {
		path := filepath.Join(t.TempDir(), "journal")
		j := open(t, path, Options{boot: "one"})
		j.Done(key("before"))
		for range 3 {
			full(t, j, torn)
			j.Done(key("meanwhile"))
			if err := j.Forget(key("failed")); err != nil { // the file was opened anew
				t.Errorf("after a failure: %v", err)
			}
		}
		j.Done(key("after"))
		check := func(when string, names ...string) {
			t.Helper()
			for _, name := range names {
				if got := state(t, j, key(name)); got.State != Done {
					t.Errorf("%s, torn at %d: %s: %+v", when, torn, name, got)
				}
			}
		}
		check("before the end", "before", "meanwhile", "after")
		j.Close()
		j = open(t, path, Options{boot: "one"})
		check("after a start", "before", "after")
	}
}

// Forget tells that the next process will not know it.
func TestForgetFails(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal"), Options{})
	full(t, j, 0)
	if err := j.Forget(key("a")); err == nil {
		t.Error("a record that was not written is no error")
	}
}

// Where no new file can be begun, what is known stays, in memory and on disk.
func TestTurnFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "journal")
	j := open(t, path, Options{boot: "one", MaxSize: 2000})
	if err := os.MkdirAll(path+".new/x", 0o700); err != nil { // in the way
		t.Fatal(err)
	}
	j.Done(key("first"))
	for i := range 200 {
		j.Done(key(string(rune('a' + i))))
	}
	if got := state(t, j, key("first")); got.State != Done {
		t.Errorf("in memory: %+v", got)
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() > 1200 {
		t.Errorf("%v, %v; want a bound", info, err)
	}
	if err := os.RemoveAll(path + ".new"); err != nil {
		t.Fatal(err)
	}
	j.Done(key("last"))
	j.Close()
	j = open(t, path, Options{boot: "one", MaxSize: 2000})
	for _, name := range []string{"first", "last"} {
		if got := state(t, j, key(name)); got.State != Done {
			t.Errorf("%s after a start: %+v", name, got)
		}
	}
}
