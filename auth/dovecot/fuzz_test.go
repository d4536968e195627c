package dovecot

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dovepost/auth"
	"dovepost/auth/sasl"
)

// script is a connection whose client says something, waits until all of it is
// answered or a moment has passed, and leaves.
type script struct {
	mu   sync.Mutex
	in   *bytes.Reader
	out  bytes.Buffer
	idle chan struct{}
}

func newScript(in []byte) *script {
	return &script{in: bytes.NewReader(in), idle: make(chan struct{}, 1)}
}

func (s *script) Read(b []byte) (int, error) {
	if s.in.Len() == 0 {
		select {
		case <-s.idle:
		case <-time.After(2 * time.Millisecond):
		}
	}
	return s.in.Read(b)
}

func (s *script) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(b)
}

func (s *script) SetIdle(idle bool) error {
	if idle && s.in.Len() == 0 {
		select {
		case s.idle <- struct{}{}:
		default:
		}
	}
	return nil
}

func (*script) Close() error                     { return nil }
func (*script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*script) SetDeadline(time.Time) error      { return nil }
func (*script) SetReadDeadline(time.Time) error  { return nil }
func (*script) SetWriteDeadline(time.Time) error { return nil }

// play lets a handler have the input, and returns its lines behind the handshake.
func play(t *testing.T, h handler, greeting string, input []byte) []string {
	s := newScript(append([]byte(greeting), input...))
	h.ServeConn(context.Background(), s)
	lines := strings.Split(strings.TrimSuffix(s.out.String(), "\n"), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "DONE") && len(line) == 4 || strings.HasPrefix(line, "SPID") && strings.HasPrefix(greeting, "VERSION\t1\t1\n") {
			return lines[i+1:]
		}
	}
	t.Fatalf("no handshake in %q", lines)
	return nil
}

// counted counts what a Verifier has proven.
type counted struct {
	auth.Verifier
	proofs atomic.Int32
}

func (c *counted) VerifyPlain(ctx context.Context, r *auth.Request, password []byte) (*auth.Credentials, error) {
	row, err := c.Verifier.VerifyPlain(ctx, r, password)
	if err == nil {
		c.proofs.Add(1)
	}
	return row, err
}

// clientKinds are the handlers that FuzzClient talks to.
var clientKinds = []string{"login", "client", "binding", "token-login"}

// FuzzClient checks that each AUTH gets at most one final answer, that none is OK
// without a proof, and that what the handler says is well formed, whatever the
// client says.
func FuzzClient(f *testing.F) {
	good := plainResponse("", "alice@example.com", "secret")
	f.Add(byte(2), "AUTH\t1\tX-BOUND\tprotocol=imap\tresp=AAAA\nCONT\t1\tAAAA\tchannel_binding=dGxzLWRhdGE=\n")
	f.Add(byte(3), "AUTH\t1\tDOVECOT-TOKEN\tservice=imap-urlauth\tresp=aW1hcAAxAGFsaWNlQGV4YW1wbGUuY29tAFMxAHg=\n")
	f.Add(byte(0), "AUTH\t1\tPLAIN\tservice=imap\tforward_fields=a=b\x01tc\tresp="+plainResponse("", "maybe@example.com", "secret")+"\nCANCEL\t0\n")
	f.Add(byte(0), "AUTH\t1\tPLAIN\tservice=imap\tresp="+good+"\nCONT\t1\t"+good+"\nCANCEL\t1\n")
	f.Add(byte(1), "AUTH\t1\tLOGIN\tservice=imap\nCONT\t1\tYWxpY2U=\nCONT\t1\tc2VjcmV0\nAUTH\t1\tLOGIN\tservice=imap\n")
	f.Add(byte(0), "AUTH\t1\tPLAIN\tservice=imap\tresp="+plainResponse("", "hang@example.com", "x")+"\nCONT\t1\tAA==\nCANCEL\t1\nAUTH\t1\tX-TWO\tservice=imap\tresp=YWxpY2U=\nCONT\t1\t\n")
	f.Fuzz(func(t *testing.T, which byte, input string) {
		g := newRig(t)
		verifier := &counted{Verifier: g.verifier}
		g.verifier = verifier
		kind := clientKinds[int(which)%len(clientKinds)]
		ok := int32(0)
		asked := map[string]int{}
		for line := range strings.SplitSeq(input, "\n") {
			if fields := strings.Split(clean(line), "\t"); fields[0] == "AUTH" && len(fields) > 1 {
				if id, err := parseID(unescape(fields[1])); err == nil {
					asked[string(appendCommand(nil, "", id))]++
				}
			}
		}
		for _, line := range play(t, g.handler(kind), "VERSION\t1\t4\nCPID\t1\n", []byte(input)) {
			if len(line) == 0 {
				continue
			}
			fields := strings.Split(line, "\t")
			if len(fields) < 2 || len(line) >= maxLine || strings.ContainsAny(line, "\r\x00") {
				t.Fatalf("%q to %q", line, input)
			}
			switch fields[0] {
			case "CONT", "CANCELLED":
			case "OK", "FAIL":
				if strings.HasSuffix(line, timedOutText) || strings.HasSuffix(line, unexpectedText) {
					break // the answer to a CONT
				}
				if asked["\t"+fields[1]]--; asked["\t"+fields[1]] < 0 {
					t.Fatalf("a second final answer %q to %q", line, input)
				}
				if fields[0] == "OK" {
					ok++
				}
			default:
				t.Fatalf("unknown word in %q", line)
			}
		}
		if ok > verifier.proofs.Load() {
			t.Fatalf("%d times OK, %d proofs: %q", ok, verifier.proofs.Load(), input)
		}
		if len(g.instance.logins) != 0 {
			t.Fatal("a login connection that has ended is still known")
		}
	})
}

// FuzzMaster checks the same of the lookups: one reply for one request, never too
// long, and nobody is logged in without a login.
func FuzzMaster(f *testing.F) {
	f.Add(false, "USER\t1\talice@example.com\tservice=lmtp\nPASS\t2\tbob@example.com\tservice=doveadm\r\nLIST\t3\t\tuser=*\nCACHE-FLUSH\t4\n")
	f.Add(true, "REQUEST\t1\t1\t1\t00000000000000000000000000000000\tsession_pid=1\nCACHE-FLUSH\t4\ta\tb\nUSER\t4294967295\tlong@example.com\tservice=x\n")
	f.Fuzz(func(t *testing.T, master bool, input string) {
		g := newRig(t)
		kind := map[bool]string{true: "master", false: "userdb"}[master]
		asked := map[string]int{}
		for line := range strings.SplitSeq(input, "\n") {
			fields := strings.Split(clean(line), "\t")
			if len(fields) > 1 {
				if id, err := parseNumber(unescape(fields[1])); err == nil {
					asked[string(appendCommand(nil, "", id))]++
				}
			}
		}
		for _, line := range play(t, g.handler(kind), "VERSION\t1\t1\n", []byte(input)) {
			if len(line) == 0 {
				continue
			}
			fields := strings.Split(line, "\t")
			if len(fields) < 2 || len(line) >= maxReply || strings.ContainsAny(line, "\r\x00") {
				t.Fatalf("%q to %q", line, input)
			}
			if fields[0] == "LIST" {
				continue
			}
			if asked["\t"+fields[1]]--; asked["\t"+fields[1]] < 0 {
				t.Fatalf("a second answer %q to %q", line, input)
			}
			if fields[0] == "USER" && strings.Contains(line, "auth_mech=") {
				t.Fatalf("a hand-off without a login: %q to %q", line, input)
			}
		}
	})
}

// FuzzToken checks that a token is good for nobody but the user to whom it was given.
func FuzzToken(f *testing.F) {
	f.Add("imap", "4711", "alice@example.com", "S1", "bob@example.com", "")
	f.Add("imap", "4711", "alice@example.com", "S1", "alice@example.com", "S1")
	g := newRig(f)
	f.Fuzz(func(t *testing.T, service, pid, user, session, claimed, other string) {
		token := g.tokens.token(service, pid, user, session)
		message := strings.Join([]string{service, pid, claimed, other, token}, "\x00")
		_, row, err := g.tokens.Mechanism().Start(&auth.Request{}, nil).Next(t.Context(), []byte(message))
		if err == nil && (row.User != user || row.User != claimed) {
			t.Fatalf("the token of %q logs in %q", user, row.User)
		}
		if err != nil && (row != nil || !auth.Refused(err)) {
			t.Fatalf("%+v, %v", row, err)
		}
	})
}

// FuzzResponse checks that no octets but the right ones log anybody in.
func FuzzResponse(f *testing.F) {
	f.Add("PLAIN", plainResponse("", "alice@example.com", "secret"), "")
	f.Add("PLAIN", plainResponse("bob@example.com", "alice@example.com", "secret"), "c2VjcmV0")
	f.Add("LOGIN", "YWxpY2VAZXhhbXBsZS5jb20=", "c2VjcmV0")
	f.Add("LOGIN", "", "AAAA")
	g := newRig(f)
	f.Fuzz(func(t *testing.T, mech, first, second string) {
		mechs, err := sasl.New(mech, sasl.Options{})
		if err != nil {
			return
		}
		a, err := parseAuth([]string{"1", mech, "service=imap", "resp=" + first}, 2)
		if err != nil {
			return
		}
		x := mechs[0].Start(&a.req, g.verifier)
		var said []string
		for _, encoded := range []string{a.resp, second, second} {
			response, err := decode(encoded)
			if err != nil {
				return
			}
			said = append(said, string(response))
			_, row, err := x.Next(context.Background(), response)
			if err != nil {
				if row != nil {
					t.Fatal("a row with an error")
				}
				return
			}
			if row == nil {
				continue
			}
			// The password is a whole field of what was said, and so is the name.
			last := said[len(said)-1]
			ok := strings.HasSuffix(last, "\x00secret") || last == "secret"
			if !ok || strings.Count(last, "\x00") > 2 || !strings.HasPrefix(row.User, strings.ToLower(strings.Split(row.User, "@")[0])) {
				t.Fatalf("%q logged in %q", said, row.User)
			}
			return
		}
	})
}
