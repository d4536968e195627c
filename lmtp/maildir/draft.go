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
	size, vsize int64  // octets, and octets if each line ended in CRLF
	file        *File  // until finish, where it was written
	source      *draft // where it is another name of that file
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

// buffers are for messages that are not in memory.
var buffers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 64<<10) }}

// write stores msg in tmp/. The draft is not durable before finish. On error, or when msg
// panics, the file is gone.
func (b *box) write(msg io.Reader, host string) (whole *draft, err error) {
	d := &draft{box: b, name: string(appendName(nil, host))}
	if d.file, err = b.tmp.Create(d.name, b.perm); err != nil {
		return nil, err
	}
	defer func() {
		if whole == nil {
			err = errors.Join(err, d.finish(false), d.discard())
		}
	}()
	if err := d.fill(msg); err != nil {
		return nil, err
	}
	return d, nil
}

// fill copies msg to the file.
func (d *draft) fill(msg io.Reader) error {
	c := counter{w: d.file}
	err := c.copy(msg)
	d.size, d.vsize = c.size, c.size+c.lines
	return err
}

// copy writes msg in few pieces: as they are, if it is in memory.
func (c *counter) copy(msg io.Reader) error {
	if whole, ok := msg.(io.WriterTo); ok {
		_, err := whole.WriteTo(c)
		return err
	}
	buf := buffers.Get().(*bufio.Writer)
	buf.Reset(c)
	_, err := io.Copy(buf, msg)
	if err == nil {
		err = buf.Flush()
	}
	buf.Reset(nil)
	buffers.Put(buf)
	return err
}

// finish closes the file, if there is one, and makes it durable if sync is set, with all the names in tmp/
// that it has by now: filesystems with a journal do that for a file that is new. So a draft is still there
// after a power loss, unless the rename that took it away is, too.
func (d *draft) finish(sync bool) (err error) {
	if d.file == nil {
		return nil
	}
	if sync {
		err = d.file.Sync()
	}
	if e := d.file.Close(); err == nil {
		err = e
	}
	d.file = nil
	return err
}

// link makes a draft in b of the same file as d, if both can share one.
func (d *draft) link(b *box, host string) (*draft, error) {
	if d.box.perm != b.perm {
		return nil, errNoLink
	}
	l := &draft{box: b, name: string(appendName(nil, host)), size: d.size, vsize: d.vsize, source: d}
	if d.source != nil {
		l.source = d.source
	}
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

// shares reports whether d is a name of the file that was written as source.
func (d *draft) shares(source *draft) bool { return d == source || d != nil && d.source == source }

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
