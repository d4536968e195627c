package stack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// dovecotCommon is for all versions of Dovecot: the site's values as they are printed, then what lets the
// instance stand beside another one.
const dovecotCommon = `protocols = imap pop3 lmtp
log_path = %[1]s/dovecot.log
info_log_path = %[1]s/dovecot-info.log
auth_mechanisms = plain login
ssl = required
service lmtp {
  unix_listener %[2]s/private/dovecot-lmtp {
    mode = 0600
    user = postfix
    group = postfix
  }
}

base_dir = %[1]s/run
state_dir = %[1]s/state
instance_name = dovepost-stack
listen = 127.0.0.1
first_valid_uid = 5000
hostname = mail.example.com
recipient_delimiter = %[5]s
service imap-login {
  inet_listener imap {
    port = %[6]d
  }
  inet_listener imaps {
    port = 0
  }
}
service pop3-login {
  inet_listener pop3 {
    port = %[7]d
  }
  inet_listener pop3s {
    port = 0
  }
}
`

// dovecotConf is what Dovecot 2.3 has besides.
const dovecotConf = `mail_location = maildir:~/Maildir
ssl_cert = <%[3]s
ssl_key = <%[4]s
mail_plugins = quota
plugin {
  quota = maildir:User quota
}
protocol imap {
  mail_plugins = quota imap_quota
}
`

// dovecotOwnAuth lets Dovecot's own auth process read the database.
const dovecotOwnAuth = `passdb {
  driver = sql
  args = %[2]s
}
userdb {
  driver = sql
  args = %[2]s
}
`

// dovecotPostfixAuth is the socket of Dovecot's own auth process for Postfix.
const dovecotPostfixAuth = `service auth {
  unix_listener %[1]s/private/auth {
    mode = 0660
    user = postfix
    group = postfix
  }
}
`

// NoAuth is what takes the auth process away in dovecot.conf, of 2.3 and of 2.4: authd owns its
// sockets, and the named login services (imap, pop3 ...) look for it below dovepost/. The
// login socket lies in a directory below the chroot of the login processes, because
// Dovecot refuses to start while somebody else listens in the chroot itself.
func NoAuth(services ...string) string {
	conf := noAuth
	for _, service := range services {
		conf += fmt.Sprintf("service %[1]s-login {\n  executable = %[1]s-login dovepost/login\n}\n", service)
	}
	return conf
}

const noAuth = `service auth {
  unix_listener login/login {
    mode = 0
  }
  unix_listener token-login/tokenlogin {
    mode = 0
  }
  unix_listener auth-login {
    mode = 0
  }
  unix_listener auth-client {
    mode = 0
  }
  unix_listener auth-userdb {
    mode = 0
  }
  unix_listener auth-master {
    mode = 0
  }
}
service auth-worker {
  unix_listener auth-worker {
    mode = 0
  }
}
`

func (s *Stack) dovecotDir() string { return filepath.Join(s.Dir, "dovecot") }

func (s *Stack) dovecotConf() string { return filepath.Join(s.dovecotDir(), "dovecot.conf") }

// DovecotRun returns Dovecot's base_dir.
func (s *Stack) DovecotRun() string { return filepath.Join(s.dovecotDir(), "run") }

func (s *Stack) prepareDovecot(o *Options) error {
	dir := s.dovecotDir()
	for _, sub := range []string{"", "run", "state"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	if s.Flavour == Native {
		// The auth worker, which reads the file again, runs as dovecot.
		owner, err := userID("dovecot")
		if err != nil {
			return err
		}
		if err := s.writeTables(dir, owner, nativeSQLFile); err != nil {
			return err
		}
	}
	conf, err := s.dovecotText(o)
	if err != nil {
		return err
	}
	return os.WriteFile(s.dovecotConf(), []byte(conf), 0o644)
}

// StartDovecot starts Dovecot (again) and waits for its greetings.
func (s *Stack) StartDovecot() error {
	dovecot, err := program("dovecot")
	if err != nil {
		return err
	}
	cmd := exec.Command(dovecot, "-F", "-c", s.dovecotConf())
	cmd.Dir = s.dovecotDir()
	if s.dovecot, err = startProcess("dovecot", filepath.Join(s.dovecotDir(), "master.log"), cmd); err != nil {
		return err
	}
	err = s.dovecot.waitReady(30*time.Second, func() error { return greets(s.IMAPAddr, "* OK ") })
	if err == nil {
		err = s.dovecot.waitReady(30*time.Second, func() error { return greets(s.POP3Addr, "+OK ") })
	}
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, tail(filepath.Join(s.dovecotDir(), "dovecot.log"), 15))
	}
	return err
}

// StopDovecot stops Dovecot with its sessions.
func (s *Stack) StopDovecot() error { return s.dovecot.stop(syscall.SIGTERM, 15*time.Second) }

// Doveadm runs doveadm with the given arguments against this Dovecot, and
// returns what it prints. The error, if any, wraps an *exec.ExitError and has what
// it printed in its text. It may take two minutes.
func (s *Stack) Doveadm(args ...string) (string, error) {
	doveadm, err := program("doveadm")
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, doveadm, append([]string{"-c", s.dovecotConf()}, args...)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("doveadm %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), err
}

// userID returns the number of an account that a Debian package makes.
func userID(name string) (int, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(u.Uid)
}

// groupID returns the number of a group.
func groupID(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}
