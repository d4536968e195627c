package lookup

import (
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// hostile is how many keys every file is asked for beside those that are expected.
const hostile = 2000

// TestExact asks every file of every layout, each as a map of the kind exact, for
// what is in the database and for hostile keys: value, not found or error as
// native Postfix has it.
func TestExact(t *testing.T) {
	native := newPostmap(t)
	for _, l := range layouts(t) {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			dir := newDir(t, "exact")
			path := filepath.Join(dir, "socket")
			var args []string
			for _, file := range l.files {
				args = append(args, "--map="+mapName(file)+"=exact:"+file)
			}
			start(t, dir, path, args...)
			ours := dial(t, path, 8)
			keys := append(hostileKeys(l.keys, hostile), l.keys...)
			// What no batch can hold.
			keys = append(keys, "", "\n", l.keys[0]+"\n", "\n"+l.keys[0], strings.Repeat("'", 9999), strings.Repeat("ß", 5000))
			var found, failed atomic.Int64
			var natives errgroup.Group // its errors take a second each
			for _, file := range l.files {
				got, err := ours.all(mapName(file), keys)
				must(t, err)
				natives.Go(func() error {
					suspect := map[string]bool{}
					for key, answer := range got {
						suspect[key] = answer == answerError
					}
					want, err := native.all("mysql:"+file, keys, suspect)
					for _, key := range keys {
						if err == nil && !same(got[key], want[key]) {
							t.Errorf("%s: %s: got %s, want %s", filepath.Base(file), quoted(key), quoted(got[key]), quoted(want[key]))
						}
						switch {
						case strings.HasPrefix(want[key], "= "):
							found.Add(1)
						case want[key] == answerError:
							failed.Add(1)
						}
					}
					return err
				})
			}
			must(t, natives.Wait())
			t.Logf("%d files, %d keys each: %d answers, %d errors in %v", len(l.files), len(keys), found.Load(), failed.Load(), time.Since(began).Round(time.Millisecond))
		})
	}
}

func mapName(file string) string { return strings.TrimSuffix(filepath.Base(file), ".cf") }
