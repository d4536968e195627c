// Package mailloc gives one mail_location, and the settings around it, to Dovecot's LMTP and to
// lmtpd, sends both the same messages, and compares what is on disk: directories, modes,
// owners, subscriptions, messages. Then Dovecot reads what lmtpd stored.
package mailloc

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
)

const mailID = 5000 // owns the mail, unless a user's row says otherwise

var bin string // the directory with lmtpd

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "mailloc")
	if err == nil {
		defer os.RemoveAll(dir)
		bin = dir
		err = os.Chmod(dir, 0o755)
	}
	if err == nil {
		err = stack.Build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// site is a Dovecot with its own LMTP server, and an lmtpd that asks that Dovecot for its users.
type site struct {
	t    *testing.T
	dir  string // all of it
	area string // where the mail is; the home of x@example.net is area/x

	limited bool // by lmtp_user_concurrency_limit

	dovecot *process
}

// config is what a site is made of. AREA in each of it is the area.
type config struct {
	location string
	settings map[string]string // of both, with the names of dovecot.conf
	native   string            // more for dovecot.conf
	ours     []string          // more for lmtpd
	users    string            // a passwd-file; empty: u@example.net
	uid      uint32            // whom lmtpd runs as; 0: mailID
	group    int               // its supplementary group; 0: none
	caps     string            // its capabilities, as setpriv(1) names them
}

// newSite starts Dovecot and lmtpd.
func newSite(t *testing.T, c config) *site {
	t.Helper()
	dir, err := os.MkdirTemp(bin, "")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, dir: dir, area: filepath.Join(dir, "area"), limited: c.settings["lmtp_user_concurrency_limit"] != ""}
	for _, sub := range []string{"", "run", "state", "lmtpd"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.wipe()
	if c.users == "" {
		c.users = "u@example.net:{plain}x:5000:5000::AREA/u::\n"
	}
	s.write("users", c.users)
	settings := map[string]string{"lda_mailbox_autocreate": "yes", "lda_mailbox_autosubscribe": "yes"}
	maps.Copy(settings, c.settings)
	args := []string{"--userdb=unix:" + dir + "/run/auth-userdb", "--hostname=mail.example.com", "--listen=lmtp:unix:" + dir + "/lmtpd/lmtp", "--journal=none", "--cache_fresh=0"}
	conf, err := dovecotConf(c)
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range settings {
		conf += key + " = " + value + "\n"
		args = append(args, "--"+key+"="+s.in(value))
	}
	s.write("dovecot.conf", strings.ReplaceAll(conf+c.native, "DIR", dir))
	dovecot := exec.Command("dovecot", "-F", "-c", dir+"/dovecot.conf")
	s.dovecot = s.start(dovecot, dir+"/native")

	if c.uid == 0 {
		c.uid = mailID
	}
	if err := os.Chown(filepath.Join(dir, "lmtpd"), int(c.uid), int(c.uid)); err != nil {
		t.Fatal(err)
	}
	args = append(args, "--mail_location="+s.in(c.location))
	for _, arg := range c.ours {
		args = append(args, s.in(arg))
	}
	caps := "-all"
	for name := range strings.FieldsSeq(c.caps) {
		caps += ",+" + name
	}
	id, groups := fmt.Sprint(c.uid), "--clear-groups"
	if c.group != 0 {
		groups = fmt.Sprint("--groups=", c.group)
	}
	// The umask is the one that the unit's text asks for where groups share mailboxes.
	lmtpd := exec.Command("/bin/sh", append([]string{"-c", `umask 0007; exec setpriv "$@"`, "sh", "--reuid=" + id, "--regid=" + id, groups, "--bounding-set=" + caps, "--inh-caps=" + caps, "--ambient-caps=" + caps,
		filepath.Join(bin, "lmtpd")}, args...)...)
	s.start(lmtpd, dir+"/lmtpd/lmtp")
	return s
}

// in puts the area into a text.
func (s *site) in(text string) string { return strings.ReplaceAll(text, "AREA", s.area) }

func (s *site) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(s.in(text)), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// wipe makes the area anew.
func (s *site) wipe() {
	s.t.Helper()
	if err := os.RemoveAll(s.area); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Mkdir(s.area, 0o777); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chmod(s.area, 0o1777); err != nil {
		s.t.Fatal(err)
	}
}

// process is a server.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // when it has ended
}

// stop ends it, and returns when it has.
func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.ended
}

// kill ends it at once, with all its processes: Dovecot's auth process goes on while it has clients.
func (p *process) kill() {
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.ended
}

// start runs a server until the end of the test, and waits for its socket.
func (s *site) start(cmd *exec.Cmd, socket string) *process {
	s.t.Helper()
	log, err := os.Create(filepath.Join(s.dir, filepath.Base(socket)+".log"))
	if err != nil {
		s.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	s.t.Cleanup(func() {
		p.stop()
		log.Close()
	})
	for deadline := time.Now().Add(time.Minute); ; {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return p
		}
		select {
		case <-p.ended:
			text, _ := os.ReadFile(log.Name())
			s.t.Fatalf("%s: %v\n%s", cmd.Path, p.err, text)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: no socket %s", cmd.Path, socket)
		}
	}
}

// log returns what lmtpd has said.
func (s *site) log() string {
	text, err := os.ReadFile(s.dir + "/lmtp.log")
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

func (s *site) native(text string) string { return s.talk(s.dir+"/native", text) }
func (s *site) ours(text string) string   { return s.talk(s.dir+"/lmtpd/lmtp", text) }

// talk sends text and returns all replies that say more than their code.
func (s *site) talk(socket, text string) string {
	s.t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	go io.WriteString(c, text)
	var out bytes.Buffer
	if _, err := io.Copy(&out, c); err != nil {
		s.t.Logf("%s: %v", socket, err)
	}
	replies := strings.ReplaceAll(out.String(), "\r\n", "\n")
	_, replies, _ = strings.Cut(replies, "\n250 ") // the last line about LHLO
	_, replies, _ = strings.Cut(replies, "\n")
	replies = failedAt.ReplaceAllString(replies, "[DATE]")
	return sessionID.ReplaceAllString(replies, "ID$1$2")
}

var (
	failedAt  = regexp.MustCompile(`\[\d{4}-\d\d-\d\d [\d:]{8}\]`)
	sessionID = regexp.MustCompile(`[A-Za-z0-9+/]{22}((?::T\d+)?(?::R\d+)?)( Saved|\n)`)
	date      = regexp.MustCompile(`[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} [\d:]{8} [+-]\d{4}`)
	name      = regexp.MustCompile(`^\d+\.[^,]*(,S=\d+,W=\d+)$`)
)

// message is a conversation with one message to rcpts, and the subject as its text.
func message(subject string, rcpts ...string) string {
	text := "LHLO c.test\r\nMAIL FROM:<a@b.test>\r\n"
	for _, rcpt := range rcpts {
		text += "RCPT TO:" + rcpt + "\r\n"
	}
	return text + "DATA\r\nSubject: " + subject + "\r\n\r\n" + subject + "\r\n.\r\nQUIT\r\n"
}

// tree is what of the area concerns mail: mailboxes and the directories above them, messages, and
// subscriptions, each with mode, owner and content. Dovecot's own files are left out.
func (s *site) tree() (lines []string) {
	s.t.Helper()
	boxes := map[string]bool{}
	s.walk(func(path string, d fs.DirEntry) {
		if d.IsDir() && (d.Name() == "new" || d.Name() == "cur" || d.Name() == "tmp") {
			for p := path; p != s.area; p = filepath.Dir(p) {
				boxes[p] = true
			}
		}
	})
	s.walk(func(path string, d fs.DirEntry) {
		in, text := filepath.Base(filepath.Dir(path)), ""
		switch {
		case d.IsDir() && boxes[path]:
		case d.IsDir() || strings.HasPrefix(d.Name(), "dovecot"):
			return
		case in == "new" || in == "cur" || in == "tmp" || strings.HasPrefix(d.Name(), "subs"):
			octets, err := os.ReadFile(path)
			if err != nil {
				s.t.Fatal(err)
			}
			text = sessionID.ReplaceAllString(date.ReplaceAllString(string(octets), "DATE"), "ID$1$2")
		default:
			return
		}
		info, err := d.Info()
		if err != nil {
			s.t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		path = filepath.Join(filepath.Dir(path), name.ReplaceAllString(d.Name(), "MESSAGE$1"))
		lines = append(lines, fmt.Sprintf("%s %v %d:%d %q", strings.TrimPrefix(path, s.area), info.Mode(), st.Uid, st.Gid, text))
	})
	slices.Sort(lines)
	return lines
}

func (s *site) walk(f func(path string, d fs.DirEntry)) {
	s.t.Helper()
	err := filepath.WalkDir(s.area, func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != s.area {
			f(path, d)
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// doveadm runs doveadm with the site's settings.
func (s *site) doveadm(args ...string) string {
	s.t.Helper()
	out, err := exec.Command("doveadm", append([]string{"-c", s.dir + "/dovecot.conf"}, args...)...).CombinedOutput()
	if err != nil {
		s.t.Errorf("doveadm %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// compare sends the conversations to both, each into an area that prepare has made, and
// reports differences. The area is left as lmtpd leaves it.
func (s *site) compare(prepare func(), conversations ...string) {
	s.t.Helper()
	replies, trees := s.both(prepare, conversations)
	// Another process of Dovecot's counts, and on a busy machine it learns too late who has come and gone.
	for n := 0; s.limited && replies[1] != replies[0] && n < 10; n++ {
		replies, trees = s.both(prepare, conversations)
	}
	if replies[1] != replies[0] {
		got, want := strings.Split(replies[1], "\n"), strings.Split(replies[0], "\n")
		i := 0
		for i < len(got)-1 && i < len(want)-1 && got[i] == want[i] {
			i++
		}
		s.t.Errorf("replies, line %d: %q; Dovecot's: %q", i, got[i:min(i+3, len(got))], want[i:min(i+3, len(want))])
	}
	for _, line := range trees[0] {
		if !slices.Contains(trees[1], line) {
			s.t.Errorf("Dovecot has: %s", line)
		}
	}
	for _, line := range trees[1] {
		if !slices.Contains(trees[0], line) {
			s.t.Errorf("lmtpd has:   %s", line)
		}
	}
	if len(trees[0]) == 0 {
		s.t.Error("nothing was stored")
	}
	if s.t.Failed() {
		s.t.Logf("lmtpd: %s", s.log())
	}
}

// both returns what Dovecot and lmtpd reply, and what they make of the area.
func (s *site) both(prepare func(), conversations []string) (replies [2]string, trees [2][]string) {
	s.t.Helper()
	for i, talk := range []func(string) string{s.native, s.ours} {
		s.wipe()
		if prepare != nil {
			prepare()
		}
		for _, text := range conversations {
			replies[i] += talk(text)
		}
		trees[i] = s.tree()
	}
	return replies, trees
}
