package policy

import (
	"bufio"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// recorder answers as policyd would, DUNNO to everything, and keeps what it was asked.
type recorder struct {
	mu    sync.Mutex // guards asked
	asked []string   // protocol_state, with the login
}

// take returns what was asked since the last take.
func (r *recorder) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { r.asked = nil }()
	return strings.Join(r.asked, " ")
}

func (r *recorder) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			in := bufio.NewScanner(c)
			state, login := "", ""
			for in.Scan() {
				name, value, _ := strings.Cut(in.Text(), "=")
				switch name {
				case "protocol_state":
					state = value
				case "sasl_username":
					login = value
				case "":
					r.mu.Lock()
					r.asked = append(r.asked, strings.TrimSuffix(state+"/"+login, "/"))
					r.mu.Unlock()
					if _, err := c.Write([]byte("action=DUNNO\n\n")); err != nil {
						return
					}
				}
			}
		}()
	}
}

// The lines of contrib's main.cf ask at RCPT about everybody, and at the end of the message about users that have
// logged in and about bounces, so that the limits count.
func TestTheLinesOfContrib(t *testing.T) {
	d := newDatabase(t)
	s := newMailsite(t, "seed", "", "", "--rules=rate", "--mysql="+d.file(server.Addr()), "--rate_limits=2 messages/1h")
	s.logins()
	stranger, user := s.dial(0), s.login("alice@example.com", "alice-secret")
	var got []string
	for range 3 {
		got = append(got, user.message("alice@example.com", "x@abroad.example")[:3])
	}
	if !slices.Equal(got, []string{"250", "250", "450"}) {
		t.Errorf("three messages of a user who may send two: %q", got)
	}
	must(t, s.log.Stop())
	socket := filepath.Join(s.Spool(), "dovepost/policy")
	l, err := net.Listen("unix", socket)
	must(t, err)
	defer l.Close()
	must(t, os.Chmod(socket, 0o666))
	var r recorder
	go r.serve(l)
	for _, tt := range []struct {
		what       string
		c          *session
		sender     string
		recipients []string
		want       string
	}{
		{"a stranger's", stranger, "a@far.example", []string{"bob@example.com", "alice@example.com"}, "RCPT RCPT"},
		{"a stranger's to nobody here", stranger, "a@far.example", []string{"bob@example.com"}, "RCPT"},
		{"a bounce", stranger, "", []string{"bob@example.com"}, "RCPT END-OF-MESSAGE"},
		{"a user's", user, "alice@example.com", []string{"bob@example.com", "x@abroad.example"}, "RCPT/alice@example.com RCPT/alice@example.com END-OF-MESSAGE/alice@example.com"},
	} {
		if got := tt.c.message(tt.sender, tt.recipients...); got[0] != '2' {
			t.Errorf("%s message: %s", tt.what, got)
		}
		if got := r.take(); got != tt.want {
			t.Errorf("%s message asks at %s, want %s", tt.what, got, tt.want)
		}
	}
}
