package socketmap

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadNetstring(t *testing.T) {
	for _, tt := range []struct {
		name, in, want string
		err            error
	}{
		{"a key with a space", "9:map a b c,", "map a b c", nil},
		{"nothing in it", "0:,", "", nil},
		{"leading zeros", "00001:a,", "a", nil},
		{"a comma in it", "3:a,b,", "a,b", nil},
		{"one larger than the buffer", "600:" + strings.Repeat("x", 600) + ",", strings.Repeat("x", 600), nil},
		{"one as large as the buffer", "511:" + strings.Repeat("x", 511) + ",", strings.Repeat("x", 511), nil},
		{"the limit", "1000:" + strings.Repeat("x", 1000) + ",", strings.Repeat("x", 1000), nil},
		{"one more", "1001:" + strings.Repeat("x", 1001) + ",", "", errTooLong},
		{"one more and a bad end", "1001:" + strings.Repeat("x", 1001) + ";", "", errSyntax},
		{"a length beyond 16 bits", "65537:" + strings.Repeat("x", 65537) + ",", "", errTooLong},
		{"the end of the stream", "", "", io.EOF},
		{"an end in the length", "1", "", io.ErrUnexpectedEOF},
		{"an end after the colon", "1:", "", io.ErrUnexpectedEOF},
		{"an end before the comma", "1:a", "", io.ErrUnexpectedEOF},
		{"an end in what is skipped", "1001:a", "", io.ErrUnexpectedEOF},
		{"a semicolon", "1:a;", "", errSyntax},
		{"a negative length", "-1:a,", "", errSyntax},
		{"a plus", "+1:a,", "", errSyntax},
		{"a blank before the length", " 1:a,", "", errSyntax},
		{"a length of 20 digits", "18446744073709551617:a,", "", errSyntax},
		{"a huge length", "1048577:a,", "", errSyntax},
	} {
		t.Run("it handles "+tt.name, func(t *testing.T) {
			for _, in := range []io.Reader{strings.NewReader(tt.in), iotest.OneByteReader(strings.NewReader(tt.in))} {
				got, err := readNetstring(bufio.NewReaderSize(in, readBuffer), 1000)
				if string(got) != tt.want || err != tt.err {
					t.Errorf("readNetstring(%.40q) = %.40q, %v; want %.40q, %v", tt.in, got, err, tt.want, tt.err)
				}
			}
		})
	}
}

// What is read is what re-encodes to the input, leading zeros aside, and the next
// netstring is found behind it.
func FuzzReadNetstring(f *testing.F) {
	for _, in := range []string{"9:map a b c,", "0:,1:a,", "007:1234567,", "1001:,", "3:a,b,2:x", "99999999999:", "1:a;"} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(in), readBuffer)
		rest := in
		for {
			payload, err := readNetstring(r, 1000)
			if err != nil && err != errTooLong {
				if err == io.EOF && len(rest) > 0 {
					t.Errorf("%q: EOF before %q", in, rest)
				}
				return
			}
			if err == errTooLong {
				return // what follows is TestReadNetstring's
			}
			i := bytes.IndexByte(rest, ':')
			want := append(bytes.TrimLeft(rest[:i], "0"), rest[i:i+len(payload)+2]...)
			if len(payload) == 0 {
				want = append([]byte("0"), want...)
			}
			if got := appendNetstring(nil, string(payload)); !bytes.Equal(got, want) {
				t.Fatalf("%q: read %q; want %q", in, got, want)
			}
			rest = rest[i+len(payload)+2:]
		}
	})
}

// Any request gets one reply that is a netstring, and never a wrong outcome.
func FuzzAnswer(f *testing.F) {
	for _, in := range []string{"echo a", "m nobody", "m fail", "nosuch x", "", " ", "echo ", "echo \x00", "echo \xff", "m team@example.com"} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, request []byte) {
		if string(request) == "m slow" || len(request) > maxReply-10 {
			return
		}
		h := newHandler(io.Discard)
		reply, result := h.appendAnswer(t.Context(), nil, request)
		payload, err := readNetstring(bufio.NewReader(bytes.NewReader(reply)), maxReply)
		if err != nil {
			t.Fatalf("%q: reply %q: %v", request, reply, err)
		}
		client, server := net.Pipe()
		defer client.Close()
		go func() {
			readNetstring(bufio.NewReader(server), 1<<20)
			server.Write(reply)
			server.Close()
		}()
		_, err = NewClient(client).Lookup(context.Background(), "m", "k")
		var other *ReplyError
		switch {
		case result == "found" && err == nil && bytes.HasPrefix(payload, []byte("OK ")) && len(payload) > 3:
		case result == "notfound" && string(payload) == "NOTFOUND " && bytes.HasPrefix(request, []byte("m ")):
		case result == "temp" && errors.As(err, &other) && bytes.HasPrefix(payload, []byte("TEMP ")):
		default:
			t.Errorf("%q: %s, reply %q, client %v", request, result, reply, err)
		}
	})
}

// Reading a request, an answer that is ready, and writing the reply allocate nothing.
func TestAllocs(t *testing.T) {
	h := newHandler(t.Output())
	for _, request := range []string{"11:fresh alice,", "12:fresh nobody,"} {
		in := bytes.NewReader([]byte(request))
		r := bufio.NewReaderSize(in, readBuffer)
		dst := make([]byte, 0, 512)
		n := testing.AllocsPerRun(1000, func() {
			in.Seek(0, io.SeekStart)
			r.Reset(in)
			payload, err := readNetstring(r, maxRequest)
			if err != nil {
				t.Fatal(err)
			}
			dst, _ = h.appendAnswer(t.Context(), dst[:0], payload)
		})
		if n != 0 {
			t.Errorf("%s %v allocations; want 0", request, n)
		}
	}
}

func BenchmarkCodec(b *testing.B) {
	h := newHandler(io.Discard)
	in := bytes.NewReader([]byte("11:fresh alice,"))
	r := bufio.NewReaderSize(in, readBuffer)
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		in.Seek(0, io.SeekStart)
		r.Reset(in)
		payload, _ := readNetstring(r, maxRequest)
		dst, _ = h.appendAnswer(b.Context(), dst[:0], payload)
	}
}

// One client of a unix socket, as smtpd is: a request, a reply, a request.
func BenchmarkServeConn(b *testing.B) {
	echo := func(c net.Conn) { // the least that a server can do
		buf := make([]byte, 512)
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
			if _, err := c.Write([]byte("8:OK ready,")); err != nil {
				return
			}
		}
	}
	h := newHandler(io.Discard)
	for _, bench := range []struct {
		name, request string
		serve         func(net.Conn)
	}{
		{"nothing", "11:fresh alice,", echo},
		{"fresh", "11:fresh alice,", func(c net.Conn) { h.ServeConn(b.Context(), c) }},
		{"lookup", "19:m alice@example.com,", func(c net.Conn) { h.ServeConn(b.Context(), c) }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			ln, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
			if err != nil {
				b.Fatal(err)
			}
			defer ln.Close()
			go func() {
				if c, err := ln.Accept(); err == nil {
					bench.serve(c)
					c.Close()
				}
			}()
			c, err := net.Dial("unix", ln.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			buf := make([]byte, 512)
			b.ReportAllocs()
			for b.Loop() {
				io.WriteString(c, bench.request)
				if _, err := c.Read(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
