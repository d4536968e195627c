package quota

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/textproto"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
	"dovepost/lmtp"
	"dovepost/lmtp/filter"
	"dovepost/lmtp/filter/submission"
	"dovepost/lmtp/maildir"
	"dovepost/lmtp/session"
)

// bySubject is a filter that has a verdict for each subject.
type bySubject map[string]lmtp.Verdict

func (b bySubject) Filter(_ context.Context, _ *lmtp.Envelope, _ *lmtp.Mailbox, msg lmtp.Message) (lmtp.Verdict, error) {
	for name, value := range lmtp.Header(msg) {
		if strings.EqualFold(name, "Subject") {
			if value == "fail" {
				return lmtp.Verdict{}, errors.New("no verdict")
			}
			return b[value], nil
		}
	}
	return lmtp.Verdict{}, nil
}

// one is the resolver of a single user.
type one struct{ lmtp.Mailbox }

func (o one) Resolve(_ context.Context, rcpt string) (*lmtp.Mailbox, error) {
	mb := o.Mailbox
	mb.Rcpt = rcpt
	return &mb, nil
}

// Each verdict that a filter can have goes the whole way: from a client over LMTP, through a chain, to the
// mailboxes that Dovecot serves, to a foreign host through Postfix, or back to the client.
func TestVerdicts(t *testing.T) {
	const user = "verdict"
	verdicts := bySubject{
		"flag":    {Flags: []string{`\Flagged`, "$Seen-to"}},
		"file":    {File: []lmtp.Filing{{Mailbox: "Filed", Create: true, Flags: []string{`\Seen`}}}, Handled: true},
		"copy":    {File: []lmtp.Filing{{Mailbox: "Filed", Create: true}}},
		"discard": {Handled: true},
		"refuse":  {Refuse: &lmtp.Status{Code: 550, Enhanced: "5.7.1", Text: "Not here\r\n250 ok"}},
		"later":   {Refuse: &lmtp.Status{Code: 451, Enhanced: "4.7.1", Text: "Not yet"}},
		"forward": {Redirect: []string{"verdict@remote.example"}, Handled: true},
		"both":    {Redirect: []string{"verdict@remote.example"}},
		"lost":    {Redirect: []string{"not an address"}, Handled: true},
	}
	h := &session.Handler{
		Hostname: "mail.example.com", Log: slog.New(slog.DiscardHandler),
		Resolver: one{lmtp.Mailbox{User: address(user), Home: filepath.Join(counted.MailRoot(), domain, user), Mail: "maildir:~/Maildir", UID: stack.MailUID, GID: stack.MailUID}},
		Deliverer: &maildir.Deliverer{
			Filter: filter.Chain{bySubject{}, verdicts}, Log: slog.New(slog.DiscardHandler),
			Sender: &submission.SMTP{Addr: counted.SMTPAddr, Hello: "client.test"},
		},
	}
	near, far := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- h.ServeConn(t.Context(), far) }()
	near.SetDeadline(time.Now().Add(time.Minute))
	c := &client{near, textproto.NewReader(bufio.NewReader(near))}
	if _, _, err := c.ReadResponse(220); err != nil {
		t.Fatal(err)
	}
	for subject, want := range map[string]string{
		"plain": "250 2.0.0 ", "flag": "250 2.0.0 ", "file": "250 2.0.0 ", "copy": "250 2.0.0 ", "discard": "250 2.0.0 ",
		"refuse": "550 5.7.1 <verdict@example.net> Not here  250 ok", "later": "451 4.7.1 <verdict@example.net> Not yet",
		"forward": "250 2.0.0 ", "both": "250 2.0.0 ", "lost": "451 4.2.0 ", "fail": "451 4.2.0 ",
	} {
		if got, err := c.send(address(user), "Subject: "+subject+"\n\nverdict\n"); err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, %v; want %q", subject, got, err, want)
		}
	}
	if _, err := c.cmd("QUIT"); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Errorf("ServeConn: %v", err)
	}
	for box, want := range map[string][]string{"INBOX": {"both", "copy", "flag", "plain"}, "Filed": {"copy", "file"}} {
		var got []string
		for line := range strings.Lines(doveadm(t, counted, "fetch", "-u", address(user), "hdr.subject", "mailbox", box)) {
			if subject, ok := strings.CutPrefix(strings.TrimSpace(line), "hdr.subject: "); ok {
				got = append(got, subject)
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s has %q; want %q", box, got, want)
		}
	}
	for subject, flags := range map[string]string{"flag": `\Flagged`, "file": `\Seen`} {
		if got := doveadm(t, counted, "fetch", "-u", address(user), "flags", "header", "subject", subject); !strings.Contains(got, flags) {
			t.Errorf("%s is marked %q; want %s", subject, got, flags)
		}
	}
	waitFor(t, "the foreign host", func() bool {
		all, err := counted.Foreign()
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Join(all, "\n")
		return strings.Contains(text, "Subject: forward") && strings.Contains(text, "Subject: both")
	})
}
