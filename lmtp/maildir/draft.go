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

// commit makes the draft a message and returns its name in new/. When it returns an
// error the message is in neither place, unless removing it failed as well.
func (d *draft) commit(host string, sync bool) (name string, err error) {
	b := d.box
	// The name that others see carries the time of the commit: it orders the mailbox.
	// A second try needs another machine with our host name and pid.
	for range 3 {
		name = string(appendSizes(appendName(nil, host), d.size, d.vsize))
		if err = b.tmp.Rename(d.name, b.new, name); !errors.Is(err, unix.EEXIST) {
			break
		}
	}
	if err != nil {
		return "", errors.Join(err, d.discard())
	}
	if sync {
		if err := b.new.Sync(); err != nil {
			return "", errors.Join(err, b.new.Remove(name))
		}
	}
	return name, nil
}

// discard removes the draft.
func (d *draft) discard() error { return d.box.tmp.Remove(d.name) }
