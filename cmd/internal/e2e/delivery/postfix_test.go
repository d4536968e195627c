package delivery

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
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
	if n := logged(t, "status=deferred") - deferred; n > 0 {
		t.Errorf("%d of %d messages were put off by %d restarts", n, messages, restarts)
	}
	if n := logged(t, "status=sent") - sent; n < messages {
		t.Errorf("%d messages were delivered; want %d", n, messages)
	}
	t.Logf("%d restarts", restarts)
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
