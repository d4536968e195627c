package delivery

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dovepost/cmd/internal/stack/mailclient"
)

// TestRestartsUnderLoad restarts lmtpd as a package upgrade does while Postfix delivers as
// fast as it can over connections that it keeps: no message is put off.
func TestRestartsUnderLoad(t *testing.T) {
	const messages = 1500
	deferred, sent := logged(t, "status=deferred"), logged(t, "status=sent")
	load := exec.Command("smtp-source", "-s", "10", "-m", fmt.Sprint(messages), "-l", "3000",
		"-f", "sender@remote.example", "-t", user(0), site.SMTPAddr)
	if err := load.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- load.Wait() }()
	restarts := 0
	for running := true; running; restarts++ {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatal("smtp-source:", err)
			}
			running = false
		case <-time.After(300 * time.Millisecond):
		}
		if err := site.RestartDaemon("lmtpd"); err != nil {
			t.Fatal(err)
		}
	}
	if err := site.WaitQueue(time.Minute); err != nil {
		t.Error(err)
	}
	if _, err := site.WaitLog(time.Minute, "status=sent", sent+messages); err != nil {
		t.Error(err)
	}
	if n := logged(t, "status=deferred") - deferred; n > 0 {
		t.Errorf("%d of %d messages were put off by %d restarts", n, messages, restarts)
	}
	if n := logged(t, "status=sent") - sent; n < messages {
		t.Errorf("%d messages were delivered; want %d", n, messages)
	}
	t.Logf("%d restarts", restarts)
}

// TestOnceEach sends messages through Postfix, to one user or to three, while lmtpd is restarted, or killed, ten
// times: each arrives once.
func TestOnceEach(t *testing.T) {
	messages := 1000
	if os.Getenv("DOVEPOST_LONG") != "" {
		messages = 5000
	}
	const injectors, interruptions = 8, 10
	bounced := logged(t, "status=bounced")
	var sent atomic.Int64
	var wait sync.WaitGroup
	defer wait.Wait()
	for i := range injectors {
		wait.Go(func() {
			c, err := mailclient.DialSMTP(site.SMTPAddr)
			if err == nil {
				defer c.Close()
				err = c.Must("EHLO client.test")
			}
			for n := i; n < messages && err == nil; n += injectors {
				err = inject(c, fmt.Sprintf("once-%d", n), onceTo(n))
				sent.Add(1)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	for n := range interruptions {
		for sent.Load() < int64((n+1)*messages/(interruptions+1)) && !t.Failed() {
			time.Sleep(time.Millisecond)
		}
		if n%2 == 0 {
			if err := site.RestartDaemon("lmtpd"); err != nil {
				t.Fatal(err)
			}
			continue
		}
		site.KillDaemon("lmtpd")
		if err := site.WaitDaemon("lmtpd"); err != nil {
			t.Fatal(err)
		}
	}
	wait.Wait()
	// What was deferred by a kill would wait for five minutes.
	for range 60 {
		if err := site.PostfixFlush(); err != nil {
			t.Error(err)
		}
		if err := site.WaitQueue(2 * time.Second); err == nil {
			break
		}
	}
	if err := site.WaitQueue(0); err != nil {
		t.Error(err)
	}
	count := map[string]map[string]int{}
	for i := range users {
		count[user(i)] = subjects(t, user(i))
	}
	for n := range messages {
		for _, to := range onceTo(n) {
			if got := count[to][fmt.Sprintf("once-%d", n)]; got != 1 {
				t.Errorf("once-%d is %d times in the mailbox of %s", n, got, to)
			}
		}
	}
	if n := logged(t, "status=bounced") - bounced; n > 0 {
		t.Errorf("%d messages bounced", n)
	}
}

// onceTo are the recipients of message n.
func onceTo(n int) []string { return []string{user(n), user(n + 3), user(n + 9)}[:1+n%2*2] }

// inject gives a message to Postfix.
func inject(c *mailclient.SMTP, subject string, to []string) error {
	if err := c.Must("MAIL FROM:<sender@remote.example>"); err != nil {
		return err
	}
	for _, rcpt := range to {
		if err := c.Must("RCPT TO:<%s>", rcpt); err != nil {
			return err
		}
	}
	r, err := c.Data("Subject: " + subject + "\n\nend\n")
	if err == nil && !r.OK() {
		err = fmt.Errorf("%s: %v", subject, r)
	}
	return err
}

// TestOddSenders: whatever Postfix lets a local user give as sender, the message arrives.
func TestOddSenders(t *testing.T) {
	bounced := logged(t, "status=bounced")
	senders := []string{
		"j\xf6e@b.test", "jöe@b.test", "a b@c.test", `a"b@c.test`, `a\b@c.test`, "a@b@c.test", `"`, "a@", "@b.test", "a@[1.2.3.4", "a@b..c",
		"a\tb@c.test", "a\x01b@c.test", "a\x7fb@c.test", "a@b\xe4.test", "a>b@c.test", "<a@b.test>", `"a b"@c.test`, `"a`, `a\`, "\xff\xfe", "@a,@b:c@d.test",
		strings.Repeat("x", 1500) + "@b.test",
	}
	for i, from := range senders {
		sendmail(t, from, user(1), fmt.Sprintf("odd-%d", i))
	}
	if err := site.WaitQueue(time.Minute); err != nil {
		t.Error(err)
	}
	count := subjects(t, user(1))
	for i, from := range senders {
		if n := count[fmt.Sprintf("odd-%d", i)]; n != 1 {
			t.Errorf("the message from %.40q is there %d times", from, n)
		}
	}
	if n := logged(t, "status=bounced") - bounced; n > 0 {
		t.Errorf("%d messages bounced", n)
	}
}
