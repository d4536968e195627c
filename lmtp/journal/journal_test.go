package journal

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// clock is a time that the test moves.
type clock struct{ time.Time }

func (c *clock) now() time.Time { return c.Time }

func open(t testing.TB, path string, o Options) *Journal {
	t.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	j, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func key(name string) Key { return KeyOf("q", name, 1) }

// state claims k and releases it.
func state(t testing.TB, j *Journal, k Key) Entry {
	t.Helper()
	e, ok := j.Claim(k)
	if !ok {
		t.Fatal("claimed already")
	}
	j.Release(k)
	e.When = time.Time{}
	return e
}

// What was told before the process died is known after it.
func TestRemembers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := open(t, path, Options{boot: "one"})
	j.Intend(Move{key("a"), "/m/tmp/a", "/m/new/a"}, Move{key("b"), "/m/tmp/b", "/m/new/b"}, Move{key("c"), "/m/tmp/c", "/m/new/c"})
	j.Done(key("b"))
	j.Forget(key("c"))
	want := map[string]Entry{
		"a": {State: Begun, Draft: "/m/tmp/a", Final: "/m/new/a"},
		"b": {State: Done},
		"c": {State: New},
		"d": {State: New},
	}
	check := func(j *Journal) {
		t.Helper()
		for name, w := range want {
			if got := state(t, j, key(name)); got != w {
				t.Errorf("%s: got %+v; want %+v", name, got, w)
			}
		}
	}
	check(j)
	j.Close() // as the death of the process
	j = open(t, path, Options{boot: "one"})
	check(j)
	j.Close()

	j = open(t, path, Options{boot: "two"})
	want["a"] = Entry{State: Begun, Draft: "/m/tmp/a", Final: "/m/new/a", Rebooted: true}
	want["b"] = Entry{State: Done, Rebooted: true}
	want["c"] = Entry{State: New, Rebooted: true}
	check(j)
	// What happens now happens after the start.
	j.Done(key("a"))
	want["a"] = Entry{State: Done}
	check(j)
	j.Close()
	check(open(t, path, Options{boot: "two"}))
}

// Where the start of the machine is not known, it may have been started again.
func TestUnknownBoot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := open(t, path, Options{boot: unknown})
	j.Done(key("a"))
	j.Close()
	if got := state(t, open(t, path, Options{boot: unknown}), key("a")); !got.Rebooted {
		t.Errorf("%+v", got)
	}
}

// Two connections never deliver the same at a time.
func TestClaim(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal"), Options{})
	if _, ok := j.Claim(key("a")); !ok {
		t.Error("the first claim failed")
	}
	if _, ok := j.Claim(key("a")); ok {
		t.Error("a second claim")
	}
	j.Release(key("a"))
	if _, ok := j.Claim(key("a")); !ok {
		t.Error("after the release the claim failed")
	}
}

func TestKey(t *testing.T) {
	seen := map[Key]string{}
	for _, k := range []struct{ queue, rcpt string }{{"", ""}, {"a", ""}, {"", "a"}, {"ab", "c"}, {"a", "bc"}} {
		for _, digest := range []uint64{0, 1, 1 << 63} {
			got := KeyOf(k.queue, k.rcpt, digest)
			if other := seen[got]; other != "" {
				t.Errorf("%v and %s have one key", k, other)
			}
			seen[got] = k.queue + "/" + k.rcpt
		}
	}
}

// One process has the journal.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := open(t, path, Options{})
	if _, err := Open(path, Options{}); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("a second one: %v", err)
	}
	j.Close()
	open(t, path, Options{})
}

// The files stay within their bound, and what is remembered is the latest.
func TestBounds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	c := &clock{time.Unix(1e9, 0)}
	const limit = 20_000
	j := open(t, path, Options{MaxSize: limit, MaxAge: time.Hour, clock: c.now})
	names := make([]string, 1000)
	for i := range names {
		names[i] = strings.Repeat("x", i)
		j.Intend(Move{key(names[i]), "/m/tmp/a", "/m/new/a"})
		j.Done(key(names[i]))
	}
	size := int64(0)
	for _, p := range []string{path, path + ".old"} {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > limit+1000 {
		t.Errorf("%d octets; want at most %d", size, limit)
	}
	entries, _ := j.Stats()
	if entries < 50 || entries > 300 {
		t.Errorf("%d entries", entries)
	}
	if got := state(t, j, key(names[999])); got.State != Done {
		t.Errorf("the latest: %+v", got)
	}
	if got := state(t, j, key(names[0])); got.State != New {
		t.Errorf("the first: %+v", got)
	}
	c.Time = c.Add(2 * time.Hour)
	if got := state(t, j, key(names[999])); got.State != New {
		t.Errorf("after its age: %+v", got)
	}
	j.Done(key("a")) // turns
	j.Done(key("b"))
	if got := state(t, j, key("a")); got.State != Done {
		t.Errorf("around the turn: %+v", got)
	}
	j.Close()
	j = open(t, path, Options{MaxSize: limit, MaxAge: time.Hour, clock: c.now})
	for _, name := range []string{"a", "b"} {
		if got := state(t, j, key(name)); got.State != Done {
			t.Errorf("%s after the turn and a start: %+v", name, got)
		}
	}
}

// A file that was cut anywhere, or has garbage in it, keeps what is whole.
func TestTorn(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "journal")
	j := open(t, path, Options{boot: "one"})
	j.Done(key("a"))
	j.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range whole {
		for _, tail := range []string{"", "garbage", strings.Repeat("\x00", 3*maxRecord)} {
			if err := os.WriteFile(path, append(bytes.Clone(whole[:cut]), tail...), 0o600); err != nil {
				t.Fatal(err)
			}
			j := open(t, path, Options{boot: "one"})
			if got := state(t, j, key("a")); got.State != New {
				t.Fatalf("cut at %d: %+v", cut, got)
			}
			j.Done(key("b"))
			j.Close()
			j = open(t, path, Options{boot: "one"})
			if got := state(t, j, key("b")); got.State != Done {
				t.Fatalf("cut at %d, then written: %+v", cut, got)
			}
			j.Close()
		}
	}
}

// A disk that takes nothing costs the memory of a restart, and nothing else.
func TestFullDisk(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "journal")
	var log bytes.Buffer
	j, err := Open(path, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	j.file.Close()
	j.file = full
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o700) // so that it can be removed
	os.Rename(path, path+".x") // so that root cannot open it again
	os.Mkdir(path, 0o700)
	for range 3 {
		j.Intend(Move{key("a"), "/m/tmp/a", "/m/new/a"})
		j.Done(key("a"))
	}
	if got := state(t, j, key("a")); got.State != Done {
		t.Errorf("got %+v", got)
	}
	if n := strings.Count(log.String(), "cannot be written"); n != 1 {
		t.Errorf("told %d times: %s", n, log.String())
	}
}

func TestNil(t *testing.T) {
	var j *Journal
	j.Intend(Move{})
	j.Done(key("a"))
	j.Forget(key("a"))
	if e, ok := j.Claim(key("a")); !ok || e.State != New {
		t.Errorf("%+v, %v", e, ok)
	}
	j.Release(key("a"))
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

// FuzzParse: what is a record is written the same again.
func FuzzParse(f *testing.F) {
	now := time.Unix(1.8e9, 0)
	f.Add(appendBoot(nil, now, "0f3c2a52-3f9d-4f9e-9b6c-5a8f0d9e2c11"))
	f.Add(appendRecord(nil, 'B', now, key("a"), "/v/d/u/Maildir/tmp/1.M2P3.h", "/v/d/u/Maildir/new/1.M2P3.h,S=5,W=6"))
	f.Add(appendRecord(nil, 'D', now, key("a"), "", ""))
	f.Add(appendRecord(nil, 'F', now, key("b"), "", ""))
	f.Add([]byte("00000000\tD\t1\tAAAAAAAAAAAAAAAAAAAAAA\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		text = bytes.TrimSuffix(text, []byte("\n"))
		l, ok := parse(text)
		if !ok {
			return
		}
		var again []byte
		if l.kind == 'S' {
			again = appendBoot(nil, l.when, l.boot)
		} else {
			again = appendRecord(nil, l.kind, l.when, l.key, l.draft, l.final)
		}
		m, ok := parse(bytes.TrimSuffix(again, []byte("\n")))
		if !ok || m != l {
			t.Errorf("%q: %+v, then %+v", text, l, m)
		}
	})
}

func BenchmarkDelivery(b *testing.B) {
	j := open(b, filepath.Join(b.TempDir(), "journal"), Options{})
	b.ReportAllocs()
	for i := range b.N {
		k := KeyOf("4XYZ", "user@example.net", uint64(i))
		if _, ok := j.Claim(k); !ok {
			b.Fatal("claimed")
		}
		j.Intend(Move{k, "/home/vmail/example.net/user/Maildir/tmp/1700000000.M123456P1234.mail", "/home/vmail/example.net/user/Maildir/new/1700000000.M123456P1234.mail,S=10240,W=10400"})
		j.Done(k)
		j.Release(k)
	}
}
