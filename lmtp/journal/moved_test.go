package journal

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// records counts the lines of a kind in the file at path.
func records(t *testing.T, path, kind string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "\t"+kind+"\t")
}

// What was moved is known at once, and written with the next record, before it.
func TestMoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := open(t, path, Options{boot: "one"})
	a, b := Move{key("a"), "/tmp/a", "/new/a"}, Move{key("b"), "/tmp/b", "/new/b"}
	j.Intend(a, b)
	j.Moved(a.Key, b.Key)
	if got := state(t, j, a.Key); got.State != Done {
		t.Errorf("moved: %+v", got)
	}
	if n := records(t, path, "D"); n != 0 {
		t.Errorf("%d records were written", n)
	}
	if err := j.Forget(b.Key); err != nil {
		t.Fatal(err)
	}
	if n := records(t, path, "D"); n != 2 {
		t.Errorf("%d records; want 2", n)
	}
	j.Close()
	j = open(t, path, Options{boot: "one"})
	if got := state(t, j, a.Key); got.State != Done {
		t.Errorf("after a start: %+v", got)
	}
	if got := state(t, j, b.Key); got.State != New {
		t.Errorf("forgotten afterwards: %+v", got)
	}
}

// If nothing comes it is written all the same, soon, when there is much of it, and at the end.
func TestMovedAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := open(t, path, Options{boot: "one"})
	many := make([]Key, maxLater/8)
	for i := range many {
		many[i][0], many[i][1] = byte(i), byte(i>>8)
	}
	j.Moved(many...)
	if n := records(t, path, "D"); n != len(many) {
		t.Errorf("%d records; want %d", n, len(many))
	}
	j.Moved(key("soon"))
	for deadline := time.Now().Add(10 * flushDelay); records(t, path, "D") == len(many); time.Sleep(flushDelay / 50) {
		if time.Now().After(deadline) {
			t.Fatal("not written")
		}
	}
	j.Moved(key("last"))
	j.Close()
	j.Moved(key("after the end"))
	time.Sleep(flushDelay + flushDelay/10)
	j = open(t, path, Options{boot: "one"})
	if got := state(t, j, key("last")); got.State != Done {
		t.Errorf("after a start: %+v", got)
	}
}
