package maildir

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// draft is a message in tmp/ that nobody sees yet.
type draft struct {
	box         *box
	name        string
	size, vsize int64 // octets, and octets if each line ended in CRLF
}

// counter writes to a file and counts what S= and W= tell.
type counter struct {
	w           io.Writer
	size, lines int64 // lines: LF that no CR precedes
	cr          bool  // the last octet was CR
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	p = p[:n]
	if n == 0 {
		return n, err
	}
	c.size += int64(n)
	c.lines += int64(bytes.Count(p, []byte{'\n'}))
	if c.cr && p[0] == '\n' {
		c.lines--
	}
	if bytes.IndexByte(p, '\r') >= 0 {
		c.lines -= int64(bytes.Count(p, []byte("\r\n")))
	}
	c.cr = p[n-1] == '\r'
	return n, err
}

// buffers hold a usual message whole, so that it costs one write(2).
var buffers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 64<<10) }}

// write stores msg in tmp/ and makes it durable if sync is set. On error, or when msg
// panics, the file is gone.
func (b *box) write(msg io.Reader, host string, sync bool) (whole *draft, err error) {
	d := &draft{box: b, name: string(appendName(nil, host))}
	f, err := b.tmp.Create(d.name, b.perm)
	if err != nil {
		return nil, err
	}
	defer func() {
		if whole == nil {
			err = errors.Join(err, d.discard())
		}
	}()
	if err := d.fill(f, msg, sync); err != nil {
		return nil, err
	}
	return d, nil
}

// fill copies msg to f, which it closes.
func (d *draft) fill(f *File, msg io.Reader, sync bool) (err error) {
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	c := counter{w: f}
	buf := buffers.Get().(*bufio.Writer)
	buf.Reset(&c)
	if _, err = io.Copy(buf, msg); err == nil {
		err = buf.Flush()
	}
	buf.Reset(nil)
	buffers.Put(buf)
	if err == nil && sync {
		err = f.Sync()
	}
	d.size, d.vsize = c.size, c.size+c.lines
	return err
}

// link makes a draft in b of the same file as d, if both can share one.
func (d *draft) link(b *box, host string) (*draft, error) {
	if d.box.perm != b.perm {
		return nil, errNoLink
	}
	l := &draft{box: b, name: string(appendName(nil, host)), size: d.size, vsize: d.vsize}
	err := d.box.tmp.Link(d.name, b.tmp, l.name)
	for _, no := range []error{unix.EXDEV, unix.EMLINK, unix.EPERM, unix.EACCES, unix.EOPNOTSUPP, unix.ENOSYS} {
		if errors.Is(err, no) {
			return nil, errNoLink
		}
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

// errNoLink says that there has to be a copy.
var errNoLink = errors.New("no second link")

// finalName returns what the draft will be called as a message, without flags. It carries the time at which it was
// made: that orders the mailbox.
func (d *draft) finalName(host string) string {
	return string(appendSizes(appendName(nil, host), d.size, d.vsize))
}

// commit makes the draft a message in dir, new/ or cur/. On error it is still a draft.
func (d *draft) commit(dir *Dir, name string) error { return d.box.tmp.Rename(d.name, dir, name) }

// discard removes the draft.
func (d *draft) discard() error { return d.box.tmp.Remove(d.name) }
