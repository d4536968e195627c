package delegation

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"dovepost/policy"
)

// byRecipient decides by the local part of the recipient.
var byRecipient = policy.Func(func(_ context.Context, r *policy.Request) (policy.Action, error) {
	local, _, _ := strings.Cut(r.Recipient, "@")
	switch local {
	case "reject":
		return policy.Action{Word: "REJECT", Text: "not here"}, nil
	case "full":
		return policy.Action{Word: "452", Text: "4.2.2 Mailbox full"}, nil
	case "nonsense":
		return policy.Action{Word: "NONSENSE"}, nil
	case "lines":
		return policy.Action{Word: "REJECT", Text: "a\n\naction=OK"}, nil
	case "error":
		return policy.Dunno, errors.New("the database is away")
	case "panic":
		panic("a rule with a bug")
	}
	return policy.Dunno, nil
})

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// serve runs the handler on one end of a connection.
func serve(t *testing.T, h *Handler, wrap func(net.Conn) net.Conn) (client net.Conn, done chan error) {
	t.Helper()
	client, server := net.Pipe()
	done = make(chan error, 1)
	client.SetDeadline(time.Now().Add(10 * time.Second))
	t.Cleanup(func() { client.Close() })
	go func() {
		defer server.Close()
		done <- h.ServeConn(t.Context(), wrap(server))
	}()
	return client, done
}

func plain(c net.Conn) net.Conn { return c }

func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogues", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			client, done := serve(t, &Handler{Decider: byRecipient, Log: quiet()}, plain)
			r := bufio.NewReader(client)
			for i, line := range strings.Split(strings.TrimSuffix(string(script), "\n"), "\n") {
				text := strings.TrimPrefix(line[min(2, len(line)):], " ")
				switch {
				case strings.HasPrefix(line, "C:"):
					if _, err := io.WriteString(client, text+"\n"); err != nil {
						t.Fatalf("line %d: %v", i+1, err)
					}
				case strings.HasPrefix(line, "S:"):
					if got, err := r.ReadString('\n'); got != text+"\n" {
						t.Fatalf("line %d: got %q, %v; want %q", i+1, got, err, text)
					}
				case !strings.HasPrefix(line, "#"):
					t.Fatalf("line %d: %q", i+1, line)
				}
			}
			client.Close()
			if err := <-done; err != nil {
				t.Errorf("ServeConn: %v", err)
			}
		})
	}
}

func TestReadRequestHandles(t *testing.T) {
	const first = "request=smtpd_access_policy\n"
	for _, tt := range []struct {
		name, in string
		err      error
	}{
		{"nothing", "", io.EOF},
		{"an empty request", "\n", errKind},
		{"the shortest request", first + "\n", nil},
		{"a request cut in a line", first + "size", io.ErrUnexpectedEOF},
		{"a request cut between lines", first, io.ErrUnexpectedEOF},
		{"another kind of request", "request=junk_mail\n\n", errKind},
		{"no kind of request", "sender=a\n\n", errKind},
		{"a line without =", first + "HELO x\n\n", errNoEquals},
		{"CR LF", "request=smtpd_access_policy\r\n\r\n", errKind},
		{"a long line", first + "sender=" + strings.Repeat("x", maxLine-8) + "\n\n", nil},
		{"a line too long", first + "sender=" + strings.Repeat("x", maxLine) + "\n\n", errTooLong},
		{"100 kB without a line end", strings.Repeat("x", 100_000), errTooLong},
		{"many lines", first + strings.Repeat("a=b\n", maxLines-1) + "\n", nil},
		{"too many lines", first + strings.Repeat("a=b\n", maxLines) + "\n", errTooMany},
		{"a size that is no number", first + "size=many\n\n", errNumber},
		{"a negative size", first + "size=-1\n\n", errNumber},
		{"a size beyond 63 bits", first + "size=9223372036854775808\n\n", errNumber},
		{"a port beyond 16 bits", first + "client_port=65536\n\n", errNumber},
	} {
		_, err := readRequest(bufio.NewReaderSize(strings.NewReader(tt.in), maxLine))
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
		}
	}
}

func TestAllAttributesArrive(t *testing.T) {
	want := policy.Request{
		State: "RCPT", Protocol: "ESMTP", Instance: "1.2", QueueID: "Q", Context: "ctx", Stress: "yes",
		ClientAddress: netip.MustParseAddr("192.0.2.1"), ClientPort: 1, ClientName: "cn", ReverseClientName: "rcn",
		ServerAddress: netip.MustParseAddr("2001:db8::1"), ServerPort: 25, HeloName: "h",
		Sender: "s@x=y", Recipient: "r@x", RecipientCount: 2, Size: 3, ETRNDomain: "e",
		SASLMethod: "PLAIN", SASLUsername: "su", SASLSender: "ss",
		CertSubject: "cs", CertIssuer: "ci", CertFingerprint: "cf", CertPubkeyFingerprint: "cp",
		EncryptionProtocol: "TLSv1.3", EncryptionCipher: "c", EncryptionKeysize: 256,
		CompatibilityLevel: "3.6", MailVersion: "3.8.1", TLSSNI: "sni",
	}
	const in = `request=smtpd_access_policy
protocol_state=RCPT
protocol_name=ESMTP
client_address=::ffff:192.0.2.1
client_name=cn
client_port=1
reverse_client_name=rcn
server_address=2001:db8::1
server_port=25
helo_name=h
sender=first
sender=s@x=y
recipient=r@x
recipient_count=2
queue_id=Q
instance=1.2
size=3
etrn_domain=e
stress=yes
sasl_method=PLAIN
sasl_username=su
sasl_sender=ss
ccert_subject=cs
ccert_issuer=ci
ccert_fingerprint=cf
ccert_pubkey_fingerprint=cp
encryption_protocol=TLSv1.3
encryption_cipher=c
encryption_keysize=256
policy_context=ctx
compatibility_level=3.6
mail_version=3.8.1
tls_sni=sni

`
	got, err := readRequest(bufio.NewReaderSize(strings.NewReader(in), maxLine))
	if err != nil {
		t.Fatal(err)
	}
	if *got != want {
		t.Errorf("got  %+v\nwant %+v", *got, want)
	}
}

func TestAViolationEndsTheConnectionWithoutAnAnswer(t *testing.T) {
	client, done := serve(t, &Handler{Decider: byRecipient, Log: quiet()}, plain)
	io.WriteString(client, "EHLO x\n")
	if err := <-done; !errors.Is(err, errNoEquals) {
		t.Errorf("ServeConn: %v, want %v", err, errNoEquals)
	}
	if got, _ := io.ReadAll(client); len(got) > 0 {
		t.Errorf("answered %q", got)
	}
}

func TestTheDeciderHasADeadline(t *testing.T) {
	var results []string
	h := &Handler{Timeout: 10 * time.Millisecond, Log: quiet(),
		Observe: func(result string, _ time.Duration) { results = append(results, result) },
		Decider: policy.Func(func(ctx context.Context, _ *policy.Request) (policy.Action, error) {
			<-ctx.Done()
			return policy.Dunno, ctx.Err()
		})}
	client, done := serve(t, h, plain)
	io.WriteString(client, "request=smtpd_access_policy\n\n")
	if got, err := bufio.NewReader(client).ReadString('\n'); got != "action=DUNNO\n" {
		t.Errorf("got %q, %v", got, err)
	}
	client.Close()
	<-done
	if fmt.Sprint(results) != "[error]" {
		t.Errorf("observed %q", results)
	}
}

// drained is a connection of a server that drains after so many requests.
type drained struct {
	net.Conn
	after int
}

func (d *drained) SetIdle(idle bool) error {
	if idle {
		if d.after--; d.after < 0 {
			return errors.New("draining")
		}
	}
	return nil
}

func TestADrainEndsBetweenRequests(t *testing.T) {
	client, done := serve(t, &Handler{Decider: byRecipient, Log: quiet()}, func(c net.Conn) net.Conn { return &drained{c, 2} })
	r := bufio.NewReader(client)
	for range 2 {
		io.WriteString(client, "request=smtpd_access_policy\n\n")
		if got, err := r.ReadString('\n'); got != "action=DUNNO\n" {
			t.Errorf("got %q, %v", got, err)
		}
		r.ReadString('\n')
	}
	if err := <-done; err != nil {
		t.Errorf("ServeConn: %v", err)
	}
}

func TestTheEndOfTheContextEndsTheConnection(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- (&Handler{Decider: byRecipient, Log: quiet()}).ServeConn(ctx, server) }()
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("ServeConn: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("still there")
	}
}

// buffer is a connection whose client has written all it ever will.
type buffer struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func (b *buffer) Read(p []byte) (int, error)       { return b.in.Read(p) }
func (b *buffer) Write(p []byte) (int, error)      { return b.out.Write(p) }
func (b *buffer) SetDeadline(time.Time) error      { return nil }
func (b *buffer) SetReadDeadline(time.Time) error  { return nil }
func (b *buffer) SetWriteDeadline(time.Time) error { return nil }

var answers = regexp.MustCompile(`^(action=[A-Z0-9_]+( [^\n]+)?\n\n)*$`)

// FuzzServe: whatever comes in, what goes out is whole answers, one for each
// request that was read, and never an empty action; the recipient, which is
// echoed here, does not break the frame; and the answers are the same in
// whatever pieces the requests arrive.
func FuzzServe(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txt")
	for _, file := range files {
		script, _ := os.ReadFile(file)
		var in []byte
		for line := range strings.Lines(string(script)) {
			if text, ok := strings.CutPrefix(line, "C:"); ok {
				in = append(in, strings.TrimPrefix(text, " ")...)
			}
		}
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var before []byte
		for _, pieces := range []func(io.Reader) io.Reader{iotest.DataErrReader, iotest.HalfReader, iotest.OneByteReader} {
			asked := 0
			c := &buffer{in: pieces(bytes.NewReader(in))}
			h := &Handler{Log: quiet(), Decider: policy.Func(func(_ context.Context, r *policy.Request) (policy.Action, error) {
				asked++
				return policy.Action{Word: "REJECT", Text: r.Recipient + r.Sender}, nil
			})}
			_ = h.ServeConn(t.Context(), c)
			got := c.out.Bytes()
			if !answers.Match(got) {
				t.Errorf("%q", got)
			}
			if n := bytes.Count(got, []byte("\n\n")); n != asked {
				t.Errorf("%d answers to %d requests", n, asked)
			}
			if before != nil && !bytes.Equal(got, before) {
				t.Errorf("got %q, but %q when it arrived in other pieces", got, before)
			}
			before = append([]byte{}, got...)
		}
	})
}

func BenchmarkServe(b *testing.B) {
	script, err := os.ReadFile("testdata/rcpt-data-end.txt")
	if err != nil {
		b.Fatal(err)
	}
	var request []byte
	for line := range strings.Lines(string(script)) {
		if text, ok := strings.CutPrefix(line, "C:"); ok {
			request = append(request, strings.TrimPrefix(text, " ")...)
		} else if strings.HasPrefix(line, "S:") {
			break
		}
	}
	r := bufio.NewReaderSize(nil, maxLine)
	in := bytes.NewReader(nil)
	b.ReportAllocs()
	for b.Loop() {
		in.Reset(request)
		r.Reset(in)
		if _, err := readRequest(r); err != nil {
			b.Fatal(err)
		}
	}
}
