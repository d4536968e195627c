// Package powerloss takes the disk away from lmtpd: the power, the room on it, the right to
// write. What was acknowledged is there afterwards, what was not is taken when it is sent again.
//
// The mail store is an ext4 in an image that is mounted over a loop device, with a journal that is
// committed when somebody asks for it and else hardly ever. What lies in the image is what the disk
// would hold if the power failed now; its copy, mounted, is what the machine finds after its start.
// That assumes a disk that does what it is told: no cache of its own that a power failure empties.
//
// It needs root and loop devices; where these cannot be had it fails and says so.
package powerloss

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"dovepost/auth"
	"dovepost/auth/dovecot"
	"dovepost/cmd/internal/stack"

	"golang.org/x/sys/unix"
)

// long asks for the forms of the tests that run for minutes.
var long = os.Getenv("DOVEPOST_LONG") != ""

// inside is set in the process that has the mounts for itself.
const inside = "DOVEPOST_POWERLOSS_INSIDE"

// bin is where lmtpd was built.
var bin string

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run runs the tests in a mount namespace, with which the mounts end, however the tests end.
func run(m *testing.M) int {
	flag.Parse()
	if os.Getenv(inside) == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			fmt.Fprintln(os.Stderr, "a mount namespace, which needs root:", err)
			return 1
		}
		return cmd.ProcessState.ExitCode()
	}
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == nil {
		bin, err = os.MkdirTemp("", "powerloss-")
	}
	if err == nil {
		defer os.RemoveAll(bin)
		err = errors.Join(os.Chmod(bin, 0o755), stack.Build(bin))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// site is a mail store on a disk of its own, and the lmtpd that delivers to it.
type site struct {
	t    *testing.T
	dir  string // not on the disk
	disk *disk
	*stack.Daemon
}

func (s *site) socket() string { return filepath.Join(s.dir, "lmtp") }
func (s *site) store() string  { return filepath.Join(s.dir, "store") }

// newSite mounts a disk of so many octets. Its store belongs to the users.
func newSite(t *testing.T, octets int64) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir()}
	// The directories above let nobody through but root, and so do those of the tests' framework.
	for dir := s.dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
	must(t, os.Mkdir(s.store(), 0o755))
	s.disk = newDisk(t, octets)
	s.disk.mount(s.store(), "commit=600")
	must(t, os.Chown(s.store(), stack.MailUID, stack.MailUID))
	s.serveUsers()
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		s.disk.unmount()
	})
	return s
}

// start starts lmtpd, which delivers to the store as every user's uid.
func (s *site) start(args ...string) {
	s.t.Helper()
	var err error
	args = append([]string{"--userdb=unix:" + filepath.Join(s.dir, "userdb"), "--hostname=mail.example.com", "--quota=none"}, args...)
	if s.Daemon, err = stack.StartDaemon(filepath.Join(bin, "lmtpd"), s.dir, "lmtp", s.socket(), args...); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if s.t.Failed() {
			log, _ := os.ReadFile(s.Log())
			s.t.Logf("lmtpd: %s", log[max(0, len(log)-4000):])
		}
	})
}

// serveUsers answers lmtpd's questions for users: all of them exist.
func (s *site) serveUsers() {
	ln, err := net.Listen("unix", filepath.Join(s.dir, "userdb"))
	must(s.t, err)
	h := &dovecot.MasterHandler{Instance: dovecot.NewInstance(), UserdbOnly: true, Passdb: everybody(s.store()), Userdb: everybody(s.store())}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_ = h.ServeConn(ctx, c)
			})
		}
	})
	s.t.Cleanup(func() { ln.Close(); cancel(); wg.Wait() })
}

// everybody has a home below a directory.
type everybody string

func (e everybody) LookupUser(_ context.Context, r *auth.Request) (*auth.User, error) {
	id := fmt.Sprint(stack.MailUID)
	return &auth.User{Name: r.Login, Home: filepath.Join(string(e), r.Login), UID: id, GID: id}, nil
}

func (everybody) LookupPass(context.Context, *auth.Request) (*auth.Credentials, error) {
	return nil, errors.New("nobody logs in")
}

func (everybody) Users(context.Context, string) iter.Seq2[string, error] {
	return func(func(string, error) bool) {}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
