package submission

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dovepost/lmtp"
)

// server is a mail server that answers each line that begins with a key of replies with its value,
// "" by hanging up, and all others with 250. It returns what it has heard when the client has left.
func server(t *testing.T, replies map[string]string) (addr string, heard <-chan string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	out := make(chan string, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		var all strings.Builder
		defer func() { out <- all.String() }()
		io.WriteString(c, "220 test\r\n")
		data := false
		for r := bufio.NewReader(c); ; {
			line, err := r.ReadString('\n')
			all.WriteString(line)
			if err != nil {
				return
			}
			word := strings.TrimRight(line, "\r\n")
			if data && word != "." {
				continue
			}
			reply := "250 ok"
			if word == "DATA" {
				reply, data = "354 go", true
			} else if word == "." {
				data = false
			}
			for prefix, text := range replies {
				if strings.HasPrefix(word, prefix) {
					if reply = text; text == "" {
						return
					}
					data = data && strings.HasPrefix(text, "3")
				}
			}
			io.WriteString(c, reply+"\r\n")
		}
	}()
	return ln.Addr().String(), out
}

// torn is a message that cannot be read to its end.
type torn struct{ lmtp.Text }

func (torn) Open() io.Reader {
	return io.MultiReader(strings.NewReader("Subject: x\n\nbegin\n"), failing{})
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("torn") }

func TestSMTP(t *testing.T) {
	const msg = lmtp.Text("Subject: x\n\n.\nbare\n..\nlast")
	tests := []struct {
		name, sender, to string
		msg              lmtp.Message
		replies          map[string]string
		want             string // heard, if sent; else a word of the error
		sent             bool
	}{
		{"a message", "a@b", "c@d", msg, nil, "EHLO me.test|MAIL FROM:<a@b>|RCPT TO:<c@d>|DATA|Subject: x||..|bare|...|last|.|QUIT|", true},
		{"the null sender", "", "c@d", msg, nil, "EHLO me.test|MAIL FROM:<>|RCPT TO:<c@d>|DATA|Subject: x||..|bare|...|last|.|QUIT|", true},
		{"a goodbye that goes wrong", "", "c@d", msg, map[string]string{"QUIT": ""}, "EHLO me.test|MAIL FROM:<>|RCPT TO:<c@d>|DATA|Subject: x||..|bare|...|last|.|QUIT|", true},
		{"a sender that is refused", "a@b", "c@d", msg, map[string]string{"MAIL": "550 no"}, "550", false},
		{"a recipient that is refused", "a@b", "c@d", msg, map[string]string{"RCPT": "450 later"}, "450", false},
		{"DATA that is refused", "a@b", "c@d", msg, map[string]string{"DATA": "451 later"}, "451", false},
		{"a message that is refused", "a@b", "c@d", msg, map[string]string{".": "452 full"}, "452", false},
		{"an answer that is lost", "a@b", "c@d", msg, map[string]string{".": ""}, "EOF", false},
		{"a server that hangs up", "a@b", "c@d", msg, map[string]string{"EHLO": ""}, "EOF", false},
		{"a message that cannot be read", "a@b", "c@d", torn{}, nil, "torn", false},
		{"a recipient that is none", "a@b", "", msg, nil, "recipient", false},
		{"a recipient that is two lines", "a@b", "c@d>\r\nRCPT TO:<e@f", msg, nil, "address", false},
		{"a sender with parameters", "a@b> SIZE=1", "c@d", msg, nil, "address", false},
	}
	for _, tt := range tests {
		t.Run("it handles "+tt.name, func(t *testing.T) {
			addr, heard := server(t, tt.replies)
			s := &SMTP{Addr: addr, Hello: "me.test"}
			err := s.Send(t.Context(), tt.sender, tt.to, tt.msg)
			if (err == nil) != tt.sent || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("%v; want %q", err, tt.want)
			}
			if tt.sent {
				if got := strings.ReplaceAll(<-heard, "\r\n", "|"); got != tt.want {
					t.Errorf("sent %q; want %q", got, tt.want)
				}
			}
			if _, ok := tt.msg.(torn); ok {
				if got := <-heard; strings.Contains(got, "\n.\r\n") {
					t.Errorf("a message was sent that is not whole: %q", got)
				}
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	addr, _ := server(t, nil)
	if err := (&SMTP{Addr: addr, Hello: "me.test"}).Send(ctx, "", "c@d", msg); err == nil {
		t.Error("sent after the end")
	}
}

// program writes a sendmail that is a shell script.
func program(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sendmail")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSendmail(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	s := &Sendmail{Path: program(t, `printf '%s|' "$@" > `+out+"; cat >> "+out+"\n")}
	for sender, want := range map[string]string{"a@b": "-i|-f|a@b|--|c@d|Subject: x\n\n.\n", "": "-i|-f|<>|--|c@d|Subject: x\n\n.\n", "-x@b": "-i|-f|<-x@b>|--|c@d|Subject: x\n\n.\n"} {
		if err := s.Send(t.Context(), sender, "c@d", lmtp.Text("Subject: x\n\n.\n")); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(out); err != nil || string(got) != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	fails := &Sendmail{Path: program(t, "echo no queue >&2; exit 75\n")}
	if err := fails.Send(t.Context(), "", "c@d", lmtp.Text("x\n")); err == nil || !strings.Contains(err.Error(), "no queue") {
		t.Errorf("exit 75: %v", err)
	}
	gone := &Sendmail{Path: "/nonexistent/sendmail"}
	if err := gone.Send(t.Context(), "", "c@d", lmtp.Text("x\n")); err == nil {
		t.Error("there is no such program")
	}
	whole := filepath.Join(t.TempDir(), "whole")
	half := &Sendmail{Path: program(t, "cat > /dev/null && touch "+whole+"\n")}
	if err := half.Send(t.Context(), "", "c@d", torn{}); err == nil {
		t.Error("a message that cannot be read was sent")
	}
	time.Sleep(50 * time.Millisecond)
	if _, err := os.Stat(whole); err == nil {
		t.Error("the program took a part for the whole")
	}
}
