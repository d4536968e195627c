package policy

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dovepost/cmd/internal/faultproxy"
)

// asker is one connection to policyd, as an smtpd has one.
type asker struct {
	net.Conn
	answers *bufio.Reader
	begun   int
}

func (p *policyd) asker() (*asker, error) {
	c, err := net.Dial("unix", p.socket())
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(5 * time.Minute))
	return &asker{c, bufio.NewReader(c), 0}, nil
}

// ask asks about a recipient of a message of its own and returns the action.
func (a *asker) ask(client, sender, login string) (string, error) {
	a.begun++
	if _, err := fmt.Fprintf(a, "request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=%s\nclient_name=unknown\ninstance=%p.%d\nsender=%s\nrecipient=user@example.com\nsasl_username=%s\n\n",
		client, a, a.begun, sender, login); err != nil {
		return "", err
	}
	action, err := a.answers.ReadString('\n')
	if err != nil {
		return "", err
	}
	_, err = a.answers.ReadString('\n')
	return strings.TrimSpace(action), err
}

// Many smtpds ask while MySQL hangs: all have their answers, on the connections that they have, and when
// MySQL is back the rules judge again.
func TestManyConnectionsWhileMySQLHangs(t *testing.T) {
	const connections, questions = 300, 4
	d := newDatabase(t)
	d.exec("INSERT INTO users (email, password, quota) VALUES ('user@example.com', 'x', 1024)")
	proxy := proxied(t)
	p := prepare(t)
	p.start(everything(d.file(proxy.Addr()))...)
	must(t, proxy.Set(faultproxy.Hang()))
	var all sync.WaitGroup
	var ready, answered sync.WaitGroup
	again := make(chan struct{})
	ready.Add(connections)
	answered.Add(connections)
	for i := range connections {
		all.Go(func() {
			a, err := p.asker()
			ready.Done()
			if err != nil {
				answered.Done()
				t.Error(err)
				return
			}
			defer a.Close()
			ready.Wait()
			login := ""
			if i%2 == 1 {
				login = fmt.Sprintf("user%d@example.com", i)
			}
			for range questions {
				if action, err := a.ask("192.0.2.1", fmt.Sprintf("s%d@far.example", i), login); err != nil || action != "action=DUNNO" {
					t.Errorf("connection %d: %q, %v", i, action, err)
				}
			}
			answered.Done()
			<-again
			want := "action=DEFER_IF_PERMIT 4.2.0 Greylisted"
			if login != "" {
				want = "action=553 5.7.1" // not his address
			}
			var action string
			for deadline := time.Now().Add(time.Minute); err == nil && !strings.HasPrefix(action, want) && time.Now().Before(deadline); {
				action, err = a.ask("192.0.2.1", fmt.Sprintf("s%d@far.example", i), login)
			}
			if err != nil || !strings.HasPrefix(action, want) {
				t.Errorf("connection %d, when MySQL is back: %q, %v", i, action, err)
			}
		})
	}
	answered.Wait()
	must(t, proxy.Set(faultproxy.Pass()))
	waitFor(t, func() bool {
		return strings.Contains(p.question("protocol_state=RCPT", "client_address=198.51.100.1", "sender=a@far.example", "recipient=user@example.com"), "Greylisted")
	})
	close(again)
	all.Wait()
	if !strings.Contains(p.log(), "a server does not answer") {
		t.Error("the log does not say that the database does not answer")
	}
}

// What is reloaded again and again, with rules that come and go, answers every request, on connections that stay.
func TestReloadsUnderLoad(t *testing.T) {
	const connections, reloads = 20, 12
	d := newDatabase(t)
	d.exec("INSERT INTO users (email, password, quota) VALUES ('user@example.com', 'x', 1024)")
	p := prepare(t)
	access := filepath.Join(p.postfix.dir, "access")
	list := func(action string) {
		must(t, os.WriteFile(access+".new", []byte("sender far.example "+action+"\n"), 0o644))
		must(t, os.Rename(access+".new", access))
	}
	actions := []string{"450 4.7.1 one", "450 4.7.1 two"}
	list(actions[0])
	p.start(append(everything(d.file(server.Addr())), "--access="+access, "--lookup_timeout=1m", "--answer_within=1m")...)
	stop := make(chan struct{})
	var all sync.WaitGroup
	for i := range connections {
		all.Go(func() {
			a, err := p.asker()
			if err != nil {
				t.Error(err)
				return
			}
			defer a.Close()
			for {
				select {
				case <-stop:
					return
				default:
				}
				if action, err := a.ask("192.0.2.1", "a@far.example", ""); err != nil || !slices.Contains(actions, strings.TrimPrefix(action, "action=")) {
					t.Errorf("connection %d, question %d: %q, %v", i, a.begun, action, err)
					return
				}
				// A rule that has failed would say DUNNO.
				if action, err := a.ask("192.0.2.1", "b@near.example", fmt.Sprintf("user%d@example.com", i)); err != nil || !strings.HasPrefix(action, "action=553 5.7.1") {
					t.Errorf("connection %d, question %d of a login: %q, %v", i, a.begun, action, err)
					return
				}
			}
		})
	}
	for i := range reloads {
		list(actions[(i+1)%2])
		before := strings.Count(p.log(), "msg=reloaded")
		must(t, p.Process.Signal(syscall.SIGHUP))
		waitFor(t, func() bool { return strings.Count(p.log(), "msg=reloaded") > before })
	}
	close(stop)
	all.Wait()
	if got := p.question("protocol_state=RCPT", "client_address=192.0.2.1", "sender=a@far.example", "recipient=user@example.com"); got != "action="+actions[reloads%2] {
		t.Errorf("after the last reload: %q", got)
	}
}
