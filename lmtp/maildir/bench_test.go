package maildir

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dovepost/lmtp"
)

// On a disk: what a delivery costs above the calls that it cannot do without.
// Directories are fresh and stay until the end: a filesystem is slow to reuse what was
// deleted a moment ago.

const (
	benchUsers = 100
	benchSize  = 10 << 10
)

func benchHome(b *testing.B) string {
	b.Helper()
	home, err := os.MkdirTemp("", "bench")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(home) })
	if id := owner(); id >= 0 {
		if err := os.Chown(home, id, id); err != nil {
			b.Fatal(err)
		}
	}
	return home
}

func benchMailboxes(b *testing.B, d *Deliverer) []*lmtp.Mailbox {
	home := benchHome(b)
	var boxes []*lmtp.Mailbox
	for i := range benchUsers {
		mb := &lmtp.Mailbox{User: fmt.Sprintf("u%d@x.test", i), Home: fmt.Sprintf("%s/u%d", home, i), Mail: "maildir:~/Maildir", UID: owner(), GID: owner()}
		if err := deliver(d, mb, "x\n"); err != nil {
			b.Fatal(err)
		}
		boxes = append(boxes, mb)
	}
	return boxes
}

func benchMessage() string {
	return "Subject: x\n\n" + strings.Repeat(strings.Repeat("x", 72)+"\n", benchSize/73)
}

func BenchmarkDeliver(b *testing.B) {
	d := &Deliverer{Fsync: FsyncNever}
	boxes := benchMailboxes(b, d)
	msg := benchMessage()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := deliver(d, boxes[i%len(boxes)], msg); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAgainstBare has batches of both in turn, so that both see the same disk, and
// reports how many messages/s a Deliverer stores for each one of the bare calls.
func BenchmarkAgainstBare(b *testing.B) {
	for _, workers := range []int{1, 8, 32} {
		b.Run(fmt.Sprint(workers), func(b *testing.B) {
			d := &Deliverer{}
			boxes := benchMailboxes(b, d)
			dirs, msg := benchBareDirs(b), benchMessage()
			var ours, theirs time.Duration
			n := 0
			for b.Loop() {
				ours += batch(workers, func(i int) error { return deliver(d, boxes[i%benchUsers], msg) }, b)
				theirs += batch(workers, func(i int) error { return bare(dirs[i%benchUsers], int64(n+i), []byte(msg)) }, b)
				n += benchUsers
			}
			b.ReportMetric(float64(n)/ours.Seconds(), "msg/s")
			b.ReportMetric(float64(n)/theirs.Seconds(), "bare/s")
			b.ReportMetric(theirs.Seconds()/ours.Seconds(), "msg/bare")
		})
	}
}

// batch runs f for each user and returns how long that took.
func batch(workers int, f func(i int) error, b *testing.B) time.Duration {
	start := time.Now()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := next.Add(1); i <= benchUsers; i = next.Add(1) {
				if err := f(int(i)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

// bare is create, write, fsync, close, rename, fsync of the directory.
func bare(dir string, n int64, msg []byte) error {
	tmp := fmt.Sprintf("%s/tmp/%d", dir, n)
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(msg); err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp, fmt.Sprintf("%s/new/%d", dir, n))
	}
	if err != nil {
		return err
	}
	d, err := os.Open(dir + "/new")
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func benchBareDirs(b *testing.B) []string {
	home := benchHome(b)
	var dirs []string
	for i := range benchUsers {
		dir := filepath.Join(home, fmt.Sprint(i))
		for _, sub := range []string{"tmp", "new"} {
			if err := os.MkdirAll(dir+"/"+sub, 0o700); err != nil {
				b.Fatal(err)
			}
		}
		dirs = append(dirs, dir)
	}
	return dirs
}
