package mailclient

import (
	"bufio"
	"net"
	"strings"
	"testing"
)

// script answers what a client says with fixed texts, one for each line that it
// reads; the first is the greeting.
func script(t *testing.T, answers ...string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		r := bufio.NewReader(c)
		for i, answer := range answers {
			if i > 0 {
				if _, err := r.ReadString('\n'); err != nil {
					return
				}
			}
			c.Write([]byte(answer))
		}
	}()
	return ln.Addr().String()
}

func TestReply(t *testing.T) {
	for _, tt := range []struct {
		name, answer string
		want         Reply
		ok           bool
	}{
		{"it handles one line", "250 2.1.0 Ok\r\n", Reply{250, "2.1.0 Ok"}, true},
		{"it handles several lines", "250-one\r\n250-two\r\n250 three\r\n", Reply{250, "one\ntwo\nthree"}, true},
		{"it handles a bare code", "250\r\n", Reply{250, ""}, true},
		{"it handles no code", "hello\r\n", Reply{}, false},
		{"it handles a line cut short", "250 2.1", Reply{}, false},
	} {
		c, err := DialSMTP(script(t, "220 hi\r\n", tt.answer))
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Cmd("NOOP")
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("%s: %v, %v; want %v", tt.name, got, err, tt.want)
		}
		c.Close()
	}
}

func TestDotStuff(t *testing.T) {
	got := dotStuff("a\n.b\r\n..\n\nlast")
	if want := "a\r\n..b\r\n...\r\n\r\nlast\r\n.\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A literal is part of its line, whatever is in it.
func TestLiterals(t *testing.T) {
	addr := script(t, "", "* 1 FETCH (BODY[] {12}\r\na1 OK {9}\r\n) UID 7)\r\na1 OK Fetch completed.\r\n")
	w, err := dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := &IMAP{wire: w}
	defer c.Close()
	got, err := c.Fetch("1")
	if want := "a1 OK {9}\r\n)"; err != nil || got != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestPOP3Messages(t *testing.T) {
	addr := script(t, "", "+OK 2 20\r\n", "+OK\r\nA: b\r\n\r\n..x\r\n.\r\n", "+OK\r\n.\r\n")
	w, err := dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := &POP3{wire: w}
	defer c.Close()
	got, err := c.Messages()
	if want := "A: b\r\n\r\n.x\r\n|"; err != nil || strings.Join(got, "|") != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}
