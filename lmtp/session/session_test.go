package session

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dovepost/lmtp"
)

// users is a Resolver: u1, u2 and u3 exist in example.test, others are trouble.
type users struct{ delimiter string }

func (u users) Resolve(ctx context.Context, rcpt string) (*lmtp.Mailbox, error) {
	a, err := ParseAddress(rcpt)
	if err != nil {
		return nil, err
	}
	user, detail := a.Split(u.delimiter)
	user = strings.ToLower(user)
	switch user {
	case "u1@example.test", "u2@example.test", "u3@example.test", "root", "full@example.test",
		"broken@example.test", "crash@example.test", "wrapped@example.test", "ä@exämple.test":
		return &lmtp.Mailbox{Rcpt: rcpt, User: user, Detail: detail}, nil
	case "away@example.test":
		return nil, errors.New("dial tcp 10.0.0.1:3306: connection refused")
	case "panic@example.test":
		panic("resolver")
	}
	return nil, lmtp.ErrUnknownUser
}

// room is a RoomChecker: u1 has room for 1000 octets, for others it is trouble.
type room struct{}

func (room) HasRoom(ctx context.Context, mb *lmtp.Mailbox, size int64) error {
	switch mb.User {
	case "u1@example.test":
		if size <= 1000 {
			return nil
		}
		return fmt.Errorf("quota: %w", lmtp.ErrOverQuota)
	case "u2@example.test":
		return &lmtp.Status{Code: 452, Enhanced: "4.2.2", Text: lmtp.ErrOverQuota.Text}
	case "u3@example.test":
		return errors.New("open /home/secret: input/output error")
	}
	panic("room")
}

// box is one stored message.
type box struct{ user, text string }

// memory is a Deliverer.
type memory struct {
	mu    sync.Mutex
	boxes []box
	envs  []lmtp.Envelope
	enter chan string // when set, each delivery announces itself here ...
	leave chan bool   // ... and waits here
}

func (m *memory) Deliver(ctx context.Context, env *lmtp.Envelope, to []*lmtp.Mailbox, msg lmtp.Message) (errs []error) {
	for _, mb := range to {
		errs = append(errs, m.deliver(env, mb, msg))
	}
	return errs
}

func (m *memory) deliver(env *lmtp.Envelope, mb *lmtp.Mailbox, msg lmtp.Message) error {
	if m.enter != nil {
		m.enter <- mb.User
		<-m.leave
	}
	text, err := io.ReadAll(msg.Open())
	if err != nil {
		return err
	}
	if int64(len(text)) != msg.Size() {
		return fmt.Errorf("%d octets, Size %d", len(text), msg.Size())
	}
	switch mb.User {
	case "full@example.test":
		return lmtp.ErrOverQuota
	case "broken@example.test":
		return errors.New("open /home/secret: no space left on device")
	case "crash@example.test":
		return errors.New("panic: deliverer")
	case "wrapped@example.test":
		return fmt.Errorf("mailbox: %w", &lmtp.Status{Code: 452, Enhanced: "4.2.2", Text: "two\r\nlines"})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.boxes = append(m.boxes, box{mb.User, string(text)})
	m.envs = append(m.envs, *env)
	return nil
}

func (m *memory) next() (b box, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.boxes) == 0 {
		return b, false
	}
	b, m.boxes = m.boxes[0], m.boxes[1:]
	return b, true
}

func newHandler(m *memory) *Handler {
	return &Handler{
		Resolver: users{"+"}, Deliverer: m, Hostname: "mx.test", RecipientDelimiter: "+",
		Log: slog.New(slog.DiscardHandler), Timeout: time.Minute,
		ident: func() string { return "ID" },
		clock: func() time.Time { return time.Date(2026, 11, 22, 7, 7, 18, 0, time.UTC) },
	}
}

// dial serves one connection with h and returns the client's end, and where the
// result of ServeConn will be.
func dial(t testing.TB, h *Handler, wrap func(net.Conn) net.Conn) (net.Conn, <-chan error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	client.SetDeadline(time.Now().Add(time.Minute))
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		defer server.Close()
		c := server
		if wrap != nil {
			c = wrap(server)
		}
		done <- h.ServeConn(context.Background(), c)
	}()
	return client, done
}

func expect(t *testing.T, r *bufio.Reader, want ...string) {
	t.Helper()
	for _, w := range want {
		got, err := r.ReadString('\n')
		if got != w+"\r\n" || err != nil {
			t.Fatalf("got %q, %v; want %q", got, err, w)
		}
	}
}

func TestTimeout(t *testing.T) {
	for _, tt := range []struct {
		name, send string
		want       []string
	}{
		{"between commands", "", nil},
		{"in a command", "NOO", nil},
		{"in DATA", "MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nDATA\r\nNOOP\r\n", []string{"250 2.1.0 OK", "250 2.1.5 OK", "354 OK"}},
		{"in BDAT", "MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nBDAT 9\r\nNOOP\r\n", []string{"250 2.1.0 OK", "250 2.1.5 OK"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := new(memory)
				h := newHandler(m)
				client, r, _, done := dialDrainable(t, h)
				expect(t, r, "220 mx.test dovepost ready.")
				fmt.Fprint(client, tt.send)
				expect(t, r, tt.want...)
				start := time.Now()
				expect(t, r, "421 4.4.2 mx.test Disconnected for inactivity")
				if took := time.Since(start); took != h.Timeout {
					t.Errorf("after %v, want %v", took, h.Timeout)
				}
				if err := <-done; err != nil {
					t.Errorf("ServeConn = %v; want nil", err)
				}
				if b, ok := m.next(); ok {
					t.Errorf("half a message was delivered: %q", b)
				}
			})
		})
	}
}

func TestClientLeaves(t *testing.T) {
	for _, tt := range []struct {
		name, send string
		want       error
		delivered  bool
	}{
		{"after the greeting", "", nil, false},
		{"within a command", "NOO", io.ErrUnexpectedEOF, false},
		{"within a transaction", "MAIL FROM:<>\r\n", nil, false},
		{"within DATA", "MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nDATA\r\ntext\r\n", io.ErrUnexpectedEOF, false},
		{"one octet before the end of DATA", "MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nDATA\r\ntext\r\n.\r", io.ErrUnexpectedEOF, false},
		{"within a chunk", "MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nBDAT 5 LAST\r\ntext", io.ErrUnexpectedEOF, false},
		{"between chunks", "MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nBDAT 4\r\ntext", nil, false},
		{"after the message", "MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nDATA\r\ntext\r\n.\r\n", nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := new(memory)
			client, done := dial(t, newHandler(m), nil)
			fmt.Fprint(client, tt.send)
			client.(*net.TCPConn).CloseWrite()
			if err := <-done; err != tt.want {
				t.Errorf("ServeConn = %v; want %v", err, tt.want)
			}
			if _, ok := m.next(); ok != tt.delivered {
				t.Errorf("delivered: %v; want %v", ok, tt.delivered)
			}
		})
	}
}

// A message that was taken whole reaches all its recipients, though nobody hears it.
func TestClientGoneDuringDelivery(t *testing.T) {
	m := &memory{enter: make(chan string), leave: make(chan bool)}
	client, done := dial(t, newHandler(m), nil)
	fmt.Fprint(client, "MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nRCPT TO:<u2@example.test>\r\nRCPT TO:<u3@example.test>\r\nDATA\r\ntext\r\n.\r\n")
	<-m.enter
	client.(*net.TCPConn).SetLinger(0)
	client.Close()
	m.leave <- true
	for range 2 {
		<-m.enter
		m.leave <- true
	}
	<-done
	if got := len(m.boxes); got != 3 {
		t.Errorf("%d deliveries; want 3", got)
	}
}

// A deliverer that panics has stored nothing that we know of: all recipients are temporary.
func TestPanic(t *testing.T) {
	h := newHandler(nil)
	h.Deliverer = panicker{}
	client, _ := dial(t, h, nil)
	fmt.Fprint(client, "MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nRCPT TO:<u2@example.test>\r\nDATA\r\ntext\r\n.\r\nQUIT\r\n")
	got, _ := io.ReadAll(client)
	for _, want := range []string{"451 4.2.0 <u1@example.test> Internal error", "451 4.2.0 <u2@example.test> Internal error", "221 2.0.0 Bye"} {
		if !strings.Contains(string(got), "\r\n"+want) {
			t.Errorf("%q does not say %q", got, want)
		}
	}
}

type panicker struct{}

func (panicker) Deliver(context.Context, *lmtp.Envelope, []*lmtp.Mailbox, lmtp.Message) []error {
	panic("deliverer")
}

// countedConn counts writes.
type countedConn struct {
	net.Conn
	writes *int
}

func (c countedConn) Write(p []byte) (int, error) { *c.writes++; return c.Conn.Write(p) }

func TestPipelinedRepliesLeaveTogether(t *testing.T) {
	writes := 0
	client, done := dial(t, newHandler(new(memory)), func(c net.Conn) net.Conn { return countedConn{c, &writes} })
	fmt.Fprint(client, "LHLO c.test\r\nMAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nRCPT TO:<u2@example.test>\r\nNOOP\r\nQUIT\r\n")
	if _, err := io.ReadAll(client); err != nil {
		t.Fatal(err)
	}
	<-done
	if writes > 2 { // the greeting may leave alone
		t.Errorf("%d writes; want at most 2", writes)
	}
}

// A client may send a chunk after it has read the replies to the commands before it.
func TestRepliesBeforeChunk(t *testing.T) {
	client, _ := dial(t, newHandler(new(memory)), nil)
	r := bufio.NewReader(client)
	fmt.Fprint(client, "MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nBDAT 2 LAST\r\n")
	expect(t, r, "220 mx.test dovepost ready.", "250 2.1.0 OK", "250 2.1.5 OK")
	fmt.Fprint(client, "x\n")
	expect(t, r, "250 2.0.0 <u1@example.test> ID Saved")
}

func TestUserConcurrencyIsGivenBack(t *testing.T) {
	h := newHandler(new(memory))
	h.UserConcurrency = 1
	for _, end := range []string{"RSET\r\nQUIT\r\n", "QUIT\r\n", "LHLO x\r\nQUIT\r\n", "DATA\r\n.\r\nQUIT\r\n", ""} {
		client, done := dial(t, h, nil)
		fmt.Fprint(client, "MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nRCPT TO:<u1+x@example.test>\r\n"+end)
		client.(*net.TCPConn).CloseWrite()
		out, _ := io.ReadAll(client)
		<-done
		if n := strings.Count(string(out), "451 4.3.0 <u1+x@example.test> Too many concurrent deliveries for user"); n != 1 {
			t.Errorf("%q: %d refusals; want 1 in %q", end, n, out)
		}
		if len(h.users) != 0 {
			t.Errorf("%q: users = %v; want none", end, h.users)
		}
	}
}

func TestEnvelope(t *testing.T) {
	m := new(memory)
	client, done := dial(t, newHandler(m), nil)
	fmt.Fprint(client, "LHLO c.test\r\nMAIL FROM:<\"a b\"@x.test> BODY=8BITMIME\r\nRCPT TO:<u1+x@example.test>\r\n"+
		"RCPT TO:<u1+x@EXAMPLE.test>\r\nRCPT TO:<no@example.test>\r\nRCPT TO:<u2@example.test>\r\nDATA\r\nReceived: by x id 4XYZ\r\n.\r\nQUIT\r\n")
	io.ReadAll(client)
	<-done
	if len(m.envs) != 2 {
		t.Fatalf("%d deliveries; want 2", len(m.envs))
	}
	got := fmt.Sprintf("%+v", m.envs[0])
	want := `{Sender:"a b"@x.test Recipients:[u1+x@example.test u1+x@EXAMPLE.test u2@example.test] Hello:c.test RemoteAddr:127.0.0.1 TLS: Session:ID Queue:4XYZ Dated:true}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if m.boxes[0].text != m.boxes[1].text {
		t.Errorf("copies differ: %q, %q", m.boxes[0].text, m.boxes[1].text)
	}
}

func TestErrorsAreNotTold(t *testing.T) {
	var log bytes.Buffer
	h := newHandler(new(memory))
	h.Log = slog.New(slog.NewTextHandler(&log, nil))
	client, done := dial(t, h, nil)
	fmt.Fprint(client, "MAIL FROM:<>\r\nRCPT TO:<away@example.test>\r\nRCPT TO:<broken@example.test>\r\nDATA\r\n.\r\nQUIT\r\n")
	out, _ := io.ReadAll(client)
	<-done
	for _, secret := range []string{"10.0.0.1", "/home/secret"} {
		if strings.Contains(string(out), secret) {
			t.Errorf("client reads %q: %q", secret, out)
		}
		if !strings.Contains(log.String(), secret) {
			t.Errorf("log lacks %q: %s", secret, log.String())
		}
	}
}
