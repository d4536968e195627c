package powerloss

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// disk is an ext4 in a file.
type disk struct {
	t     *testing.T
	image string
	dir   string // where it is mounted; empty: it is not
}

// newDisk makes one. It is unlinked at the end of the test.
func newDisk(t *testing.T, octets int64) *disk {
	t.Helper()
	d := &disk{t: t, image: newImage(t)}
	must(t, os.Truncate(d.image, octets))
	d.command("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", d.image)
	return d
}

// newImage makes an empty file in memory, or where there is little of it on the disk.
func newImage(t *testing.T) string {
	t.Helper()
	dir := "/dev/shm"
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || int64(st.Bavail)*st.Bsize < 2<<30 {
		dir = ""
	}
	f, err := os.CreateTemp(dir, "powerloss-*.ext4")
	must(t, err)
	t.Cleanup(func() { os.Remove(f.Name()) })
	must(t, f.Close())
	return f.Name()
}

func (d *disk) command(name string, args ...string) string {
	d.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		d.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// mount mounts d on dir. The kernel repairs what a power failure has left, from the journal.
func (d *disk) mount(dir, options string) {
	d.t.Helper()
	if out, err := exec.Command("mount", "-t", "ext4", "-o", "loop,"+options, d.image, dir).CombinedOutput(); err != nil {
		d.t.Fatalf("a disk in a file: %v: %s\nThis test needs loop devices (modprobe loop; in a container --privileged, or "+
			"--cap-add SYS_ADMIN with /dev/loop-control and /dev/loop*): nothing else shows what a power failure leaves.", err, out)
	}
	d.dir = dir
}

// unmount takes the mount away, if there is one. What still has files open has a little time.
func (d *disk) unmount() {
	d.t.Helper()
	if d.dir == "" {
		return
	}
	var err error
	for range 1000 {
		if err = unix.Unmount(d.dir, 0); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		d.t.Errorf("unmount %s: %v", d.dir, err)
	}
	d.dir = ""
}

// writes are how many requests the device has finished, and how many are under way: fields 5
// and 9 of stat, Documentation/block/stat.
func (d *disk) writes() (done, underway int) {
	d.t.Helper()
	device := d.command("findmnt", "-no", "SOURCE", d.dir)
	text, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device), "stat"))
	must(d.t, err)
	var f [9]int
	if _, err := fmt.Sscan(string(text), &f[0], &f[1], &f[2], &f[3], &f[4], &f[5], &f[6], &f[7], &f[8]); err != nil {
		d.t.Fatalf("%s: %q: %v", device, text, err)
	}
	return f[4], f[8]
}

// snapshot returns a disk with what this one would hold if the power failed now. It is taken while
// nothing is being written: it is of one moment.
func (d *disk) snapshot() *disk {
	d.t.Helper()
	s := &disk{t: d.t, image: newImage(d.t)}
	for range 1000 {
		before, underway := d.writes()
		if underway == 0 {
			must(d.t, copySparse(s.image, d.image))
			if after, underway := d.writes(); after == before && underway == 0 {
				return s
			}
			must(d.t, os.Truncate(s.image, 0))
		}
		time.Sleep(20 * time.Millisecond)
	}
	d.t.Fatal("the disk is never at rest")
	return nil
}

// copySparse copies a file, and leaves its holes out.
func copySparse(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if err := out.Truncate(info.Size()); err != nil {
		return err
	}
	for end := int64(0); ; {
		start, err := in.Seek(end, unix.SEEK_DATA)
		if errors.Is(err, syscall.ENXIO) {
			return out.Close()
		}
		if err != nil {
			return err
		}
		if end, err = in.Seek(start, unix.SEEK_HOLE); err != nil {
			return err
		}
		if _, err := out.Seek(start, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.Copy(out, io.NewSectionReader(in, start, end-start)); err != nil {
			return err
		}
	}
}
