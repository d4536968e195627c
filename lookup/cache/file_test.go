package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"dovepost/lookup"
)

// kept returns a file with the answers a=1, b=- of the map "m".
func kept(t testing.TB) string {
	t.Helper()
	c, _ := stale()
	m := c.Map("m", &source{rows: map[string]string{"a": "1"}})
	m.Lookup(t.Context(), "a")
	m.Lookup(t.Context(), "b")
	path := filepath.Join(t.TempDir(), "cache")
	if err := c.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// After a restart known answers are there, are not taken for fresh, and go on aging.
func TestFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{rows: map[string]string{"a": "1", "list": "x,y"}}
		c, _ := stale()
		m := c.Map("m", s)
		secret := c.Map("passwords", s).Private()
		for _, key := range []string{"a", "b", "list"} {
			m.Lookup(t.Context(), key)
			secret.Lookup(t.Context(), key)
		}
		time.Sleep(10 * time.Hour)
		path := filepath.Join(t.TempDir(), "cache")
		for range 2 { // the second takes the place of the first
			if err := c.WriteFile(path); err != nil {
				t.Fatal(err)
			}
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
		}
		if _, err := os.Stat(path + ".tmp"); err == nil {
			t.Error("a temporary file is left")
		}

		s.set("a", "2")
		c, _ = stale()
		m, changed := c.Map("m", s), c.Map("m of another definition", s)
		secret = c.Map("passwords", s).Private()
		if n, err := c.ReadFile(path); n != 3 || err != nil {
			t.Fatalf("ReadFile = %d, %v; want 3", n, err)
		}
		if _, ok, _ := m.Fresh([]byte("a")); ok {
			t.Error("an answer of another process is fresh")
		}
		check(t, m, "a", "2")
		s.fail(errAway, 0)
		check(t, m, "b", "-")
		check(t, m, "list", "x,y")
		for _, other := range []*Map{changed, secret} {
			if _, err := other.Lookup(t.Context(), "b"); err != errAway {
				t.Errorf("%s: %v; want %v", other.space.name, err, errAway)
			}
		}
		time.Sleep(14*time.Hour - time.Second)
		check(t, m, "b", "-")
		time.Sleep(time.Second)
		if _, err := m.Lookup(t.Context(), "b"); err != errAway {
			t.Errorf("14 hours after 10 hours: %v; want %v", err, errAway)
		}
		c.Close()
	})
}

// The time between two processes counts.
func TestFileAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := kept(t)
		for _, tt := range []struct {
			later   time.Duration
			answers int
		}{{time.Hour, 2}, {22 * time.Hour, 2}, {time.Hour, 0}, {1000 * time.Hour, 0}} {
			time.Sleep(tt.later)
			c, _ := stale()
			c.Map("m", &source{})
			if n, err := c.ReadFile(path); n != tt.answers || err != nil {
				t.Errorf("%v later: %d, %v; want %d", tt.later, n, err, tt.answers)
			}
		}
	})
}

func TestFileRefused(t *testing.T) {
	flip := func(at func(n int) int) func(string) {
		return func(path string) {
			data, _ := os.ReadFile(path)
			data[at(len(data))] ^= 1
			os.WriteFile(path, data, 0o600)
		}
	}
	for _, tt := range []struct {
		name string
		do   func(path string)
		says string
	}{
		{"nothing wrong", func(string) {}, ""},
		{"no file", func(path string) { os.Remove(path) }, "no such file"},
		{"an empty file", func(path string) { os.Truncate(path, 0) }, "damaged"},
		{"half a file", func(path string) { os.Truncate(path, 60) }, "damaged"},
		{"another magic", flip(func(int) int { return 0 }), "damaged"},
		{"a changed answer", flip(func(n int) int { return n - sha256.Size - 2 }), "damaged"},
		{"a changed checksum", flip(func(n int) int { return n - 1 }), "damaged"},
		{"a file of another version", func(path string) { seal(path, "dovepost cache 2\n") }, "another version"},
		{"a file of the future", func(path string) { seal(path, magic+"\x7f\x00\x00\x00\x00\x00\x00\x00\x00") }, "set back"},
		{"a file that ends early", func(path string) { seal(path, magic+now()+"\x01") }, "EOF"},
		{"a map that is not there", func(path string) { seal(path, magic+now()+"\x00\x01") }, "damaged"},
		{"a group that can write", func(path string) { os.Chmod(path, 0o660) }, "others can write"},
		{"others who can write", func(path string) { os.Chmod(path, 0o602) }, "others can write"},
		{"a symbolic link", func(path string) { os.Rename(path, path+"2"); os.Symlink(path+"2", path) }, "too many levels"},
		{"a directory", func(path string) { os.Remove(path); os.Mkdir(path, 0o700) }, "not a regular file"},
		{"a pipe", func(path string) { os.Remove(path); syscall.Mkfifo(path, 0o600) }, "not a regular file"},
	} {
		t.Run("it handles "+tt.name, func(t *testing.T) {
			path := kept(t)
			tt.do(path)
			c, _ := stale()
			m := c.Map("m", &source{err: errAway})
			n, err := c.ReadFile(path)
			if tt.says == "" {
				if n != 2 || err != nil {
					t.Errorf("ReadFile = %d, %v; want 2", n, err)
				}
				return
			}
			if n != 0 || err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("ReadFile = %d, %v; want an error with %q", n, err, tt.says)
			}
			if _, err := m.Lookup(t.Context(), "a"); err != errAway {
				t.Errorf("Lookup: %v; want %v", err, errAway)
			}
		})
	}
}

func TestFileOfAnother(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can give a file away")
		return
	}
	path := kept(t)
	if err := os.Chown(path, 12345, -1); err != nil {
		t.Fatal(err)
	}
	c, _ := stale()
	if _, err := c.ReadFile(path); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
		t.Errorf("ReadFile: %v", err)
	}
}

// seal writes a body with its checksum.
func seal(path, body string) {
	sum := sha256.Sum256([]byte(body))
	os.WriteFile(path, append([]byte(body), sum[:]...), 0o600)
}

// now is the time of writing as a file has it.
func now() string { return times(time.Now().UnixNano()) }

func times(n int64) string {
	var b [8]byte
	for i := range b {
		b[i] = byte(n >> (56 - 8*i))
	}
	return string(b[:])
}

// A file larger than the cache fills it and no more.
func TestFileBound(t *testing.T) {
	c := New(fresh, 8<<20)
	c.Stale = time.Hour
	m := c.Map("m", lookup.Func(func(context.Context, string) ([]string, error) { return nil, lookup.ErrNotFound }))
	for i := range 20_000 {
		m.Lookup(t.Context(), "key"+strconv.Itoa(i))
	}
	path := filepath.Join(t.TempDir(), "cache")
	if err := c.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	small, _ := stale()
	small.Map("m", &source{})
	if n, err := small.ReadFile(path); n != 20_000 || err != nil {
		t.Errorf("ReadFile = %d, %v", n, err)
	}
	if _, _, _, _, bytes := small.Stats(); bytes > 1<<20 {
		t.Errorf("%d octets are more than the bound", bytes)
	}
}

// Whatever a file says, with a checksum that is right: no answer is fresh or lives
// longer than it may, and what was read can be written and read again.
func FuzzFile(f *testing.F) {
	data, err := os.ReadFile(kept(f))
	if err != nil {
		f.Fatal(err)
	}
	body := data[len(magic)+8 : len(data)-sha256.Size]
	f.Add(int64(0), body)
	f.Add(int64(time.Hour), body[:len(body)-1])
	f.Add(int64(-time.Hour), []byte{0, 0})
	f.Add(int64(math.MinInt64), append([]byte{1}, make([]byte, 40)...))
	f.Fuzz(func(t *testing.T, passed int64, body []byte) {
		text := magic + times(time.Now().UnixNano()-passed) + string(body)
		sum := sha256.Sum256([]byte(text))
		c, _ := stale()
		c.Map("m", &source{})
		c.read(bytes.NewReader(append([]byte(text), sum[:]...)))
		now := c.now()
		for i := range c.shards {
			for _, e := range c.shards[i].snapshot() {
				if age := now - e.asked; age < fresh || age > c.Stale+time.Minute {
					t.Errorf("%q is %v old", e.id.key, age)
				}
			}
		}
		var again bytes.Buffer
		if err := c.write(&again); err != nil {
			t.Fatal(err)
		}
		c2, _ := stale()
		c2.Map("m", &source{})
		_, _, _, entries, _ := c.Stats()
		if n, err := c2.read(bytes.NewReader(again.Bytes())); err != nil || n > int(entries) {
			t.Errorf("read again: %d, %v; want %d", n, err, entries)
		}
	})
}
