package session

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// A dialogue is a file of lines:
//
//	set NAME VALUE      a setting of the Handler, before the first line of talk
//	C: TEXT             the client sends TEXT and CRLF; lines in a row leave in one write
//	C< TEXT             the same without CRLF
//	S: TEXT             the server answers this line
//	M: USER TEXT        a message was delivered
//	E:                  the server closes
//
// In TEXT, \r \n \t \\ \xHH stand for octets, and \{N*TEXT} for TEXT N times.
func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogues", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			play(t, file, strings.Split(string(text), "\n"))
		})
	}
}

func play(t *testing.T, file string, lines []string) {
	m := new(memory)
	h := newHandler(m)
	var client net.Conn
	var r *bufio.Reader
	var out bytes.Buffer
	for i, line := range lines {
		where := fmt.Sprintf("%s:%d", file, i+1)
		op, arg, _ := strings.Cut(line, " ")
		if op == "" || op[0] == '#' {
			continue
		}
		if op == "set" {
			set(t, h, arg)
			continue
		}
		if client == nil {
			client, _ = dial(t, h, nil)
			r = bufio.NewReader(client)
		}
		if op[0] != 'C' && out.Len() > 0 {
			if _, err := client.Write(out.Bytes()); err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			out.Reset()
		}
		switch op {
		case "C:":
			out.WriteString(unescape(arg) + "\r\n")
		case "C<":
			out.WriteString(unescape(arg))
		case "S:":
			got, err := r.ReadString('\n')
			if want := unescape(arg) + "\r\n"; got != want || err != nil {
				t.Fatalf("%s: got %q, %v; want %q", where, got, err, want)
			}
		case "M:":
			user, text, _ := strings.Cut(arg, " ")
			got, ok := m.next()
			if want := (box{user, unescape(text)}); !ok || got != want {
				t.Fatalf("%s: got %q, %v; want %q", where, got, ok, want)
			}
		case "E:":
			if got, err := r.ReadString('\n'); err != io.EOF {
				t.Fatalf("%s: got %q, %v; want EOF", where, got, err)
			}
		default:
			t.Fatalf("%s: what is %q?", where, op)
		}
	}
	if b, ok := m.next(); ok {
		t.Errorf("%s: unexpected message %q", file, b)
	}
}

func set(t *testing.T, h *Handler, arg string) {
	name, value, _ := strings.Cut(arg, " ")
	n, _ := strconv.Atoi(value)
	switch name {
	case "MaxSize":
		h.MaxSize = int64(n)
	case "MaxRecipients":
		h.MaxRecipients = n
	case "UserConcurrency":
		h.UserConcurrency = n
	case "DeliveryAddress":
		h.DeliveryAddress = DeliveryAddress(n)
	case "NoReceived":
		h.NoReceived = true
	case "Trusted":
		h.Trusted = []netip.Prefix{netip.MustParsePrefix(value)}
	case "TLS":
		h.TLS = newTLS(t)
	case "Room":
		h.Room = room{}
	case "SpoolDisk":
		h.SpoolDisk = int64(n)
	case "SpoolMemory":
		h.SpoolMemory = int64(n)
	case "RecipientDelimiter":
		h.RecipientDelimiter, h.Resolver = value, users{value}
	default:
		t.Fatalf("no setting %s", name)
	}
}

var escapes = regexp.MustCompile(`\\(\{(\d+)\*([^}]*)\}|x[0-9a-f]{2}|.)`)

func unescape(s string) string {
	return escapes.ReplaceAllStringFunc(s, func(e string) string {
		switch e[1] {
		case '{':
			m := escapes.FindStringSubmatch(e)
			n, _ := strconv.Atoi(m[2])
			return strings.Repeat(m[3], n)
		case 'x':
			c, _ := strconv.ParseUint(e[2:], 16, 8)
			return string([]byte{byte(c)})
		}
		return map[byte]string{'r': "\r", 'n': "\n", 't': "\t", '\\': "\\"}[e[1]]
	})
}
