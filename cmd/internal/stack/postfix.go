package stack

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// mainCF holds the site's values as they are printed, then what lets the
// instance stand beside another one, then what the flavour adds.
//
// With mydestination as printed, example.com is a domain of the machine's own
// accounts; Postfix forbids that it is a virtual one as well. So the mailboxes of
// the database live in other domains, and nobody has a mailbox in example.com.
const mainCF = `compatibility_level = 3.6
myhostname = mail.example.com
mydomain = example.com
myorigin = $mydomain
mydestination = $myhostname, localhost.$mydomain, localhost, $mydomain
relayhost =
mynetworks = 127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128
home_mailbox = Maildir/
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/auth
smtpd_sasl_auth_enable = yes
smtpd_recipient_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination
smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination
recipient_delimiter = %[2]s

inet_interfaces = 127.0.0.1
inet_protocols = ipv4
queue_directory = %[1]s/spool
data_directory = %[1]s/data
config_directory = %[1]s/etc
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
shlib_directory = /usr/lib/postfix
meta_directory = /etc/postfix
mail_owner = postfix
setgid_group = postdrop
maillog_file = %[1]s/mail.log
maillog_file_prefixes = %[1]s
alias_maps =
alias_database =
local_recipient_maps = inline:{nobody.has=a.mailbox}
local_transport = error:5.1.1 no mailbox of this machine is served
disable_dns_lookups = yes
smtp_host_lookup = native
smtpd_peername_lookup = no
smtpd_authorized_xclient_hosts = 127.0.0.0/8
smtpd_tls_cert_file = %[3]s
smtpd_tls_key_file = %[4]s
smtpd_tls_security_level = may
transport_maps = inline:{{remote.example = smtp:[127.0.0.1]:%[5]d}}

virtual_alias_domains =
virtual_transport = lmtp:unix:%[6]s
lmtp_connection_cache_destinations = unix:%[6]s
`

// masterCF is Debian's, chroot column included, with two listeners: one as the
// site's, and a submission one that wants TLS, a login, and one's own sender address.
const masterCF = `%[1]s inet n - y - - smtpd
%[2]s inet n - y - - smtpd
  -o syslog_name=postfix/submission
  -o smtpd_tls_security_level=encrypt
  -o smtpd_tls_auth_only=yes
  -o smtpd_sender_restrictions=reject_authenticated_sender_login_mismatch
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
pickup unix n - y 60 1 pickup
cleanup unix n - y - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - y 1000? 1 tlsmgr
rewrite unix - - y - - trivial-rewrite
bounce unix - - y - 0 bounce
defer unix - - y - 0 bounce
trace unix - - y - 0 bounce
verify unix - - y - 1 verify
flush unix n - y 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - y - - smtp
relay unix - - y - - smtp
showq unix n - y - - showq
error unix - - y - - error
retry unix - - y - - error
discard unix - - y - - discard
local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - y - - lmtp
anvil unix - - y - 1 anvil
scache unix - - y - 1 scache
postlog unix-dgram n - n - 1 postlogd
`

func (s *Stack) postfixDir() string { return filepath.Join(s.Dir, "postfix") }

// Spool returns Postfix's queue_directory.
func (s *Stack) Spool() string { return filepath.Join(s.postfixDir(), "spool") }

// MailLog returns the path of Postfix's log.
func (s *Stack) MailLog() string { return filepath.Join(s.postfixDir(), "mail.log") }

// preparePostfix writes the configuration and makes the queue's directories.
func (s *Stack) preparePostfix(o *Options) error {
	dir := s.postfixDir()
	for _, sub := range []string{"etc", "spool", "data"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	owner, err := userID("postfix")
	if err != nil {
		return err
	}
	if err := os.Chown(filepath.Join(dir, "data"), owner, -1); err != nil {
		return err
	}
	transport := "private/dovecot-lmtp"
	if s.Flavour == Dovepost {
		transport = "dovepost/lmtp"
	}
	main := fmt.Sprintf(mainCF, dir, o.Delimiter, s.certFile(), s.keyFile(), s.sink.port.number, transport)
	for _, t := range tables {
		if s.Flavour == Dovepost {
			main += t.parameter + " = socketmap:unix:dovepost/lookup:" + t.parameter + "\n"
		} else {
			main += t.parameter + " = mysql:" + filepath.Join(dir, "etc", t.file) + "\n"
		}
	}
	for _, line := range o.MainCF {
		main += line + "\n"
	}
	master := fmt.Sprintf(masterCF, s.SMTPAddr, s.SubmissionAddr)
	if err := os.WriteFile(filepath.Join(dir, "etc/main.cf"), []byte(main), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/master.cf"), []byte(master), 0o644); err != nil {
		return err
	}
	if s.Flavour == Native {
		if err := s.writeTables(filepath.Join(dir, "etc"), 0, nativeSQLFile); err != nil {
			return err
		}
	}
	_, err = s.postfixCommand("postfix", "check")
	return err
}

// startPostfix runs the master in the foreground and waits for its greeting.
func (s *Stack) startPostfix() error {
	cmd := exec.Command("/usr/lib/postfix/sbin/master", "-s", "-c", filepath.Join(s.postfixDir(), "etc"))
	cmd.Dir = s.Spool()
	cmd.Env = append(os.Environ(), "MAIL_LOGTAG=postfix")
	var err error
	if s.postfix, err = startProcess("postfix", filepath.Join(s.postfixDir(), "master.log"), cmd); err != nil {
		return err
	}
	err = s.postfix.waitReady(30*time.Second, func() error { return greets(s.SMTPAddr, "220 ") })
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, tail(s.MailLog(), 15))
	}
	return err
}

// greets reports whether a line-based server greets with the given words.
func greets(addr, words string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * time.Second))
	line, err := textproto.NewReader(bufio.NewReader(c)).ReadLine()
	if err == nil && !strings.HasPrefix(line, words) {
		err = fmt.Errorf("greeting is %q", line)
	}
	return err
}

func (s *Stack) stopPostfix() error { return s.postfix.stop(syscall.SIGTERM, 15*time.Second) }

// postfixCommand runs one of Postfix's commands for this instance, in the queue
// directory, where relative socket names lead to the right place.
func (s *Stack) postfixCommand(name string, args ...string) (string, error) {
	return s.postfixInput("", name, args...)
}

// postfixInput is postfixCommand with something on stdin.
func (s *Stack) postfixInput(stdin, name string, args ...string) (string, error) {
	path, err := program(name)
	if err != nil {
		return "", err
	}
	cmd := exec.Command(path, append([]string{"-c", filepath.Join(s.postfixDir(), "etc")}, args...)...)
	cmd.Dir = s.Spool()
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), err
}

// PostfixReload reloads Postfix, as "postfix reload" does.
func (s *Stack) PostfixReload() error {
	_, err := s.postfixCommand("postfix", "reload")
	return err
}

// PostfixFlush asks for a delivery attempt of everything in the queue.
func (s *Stack) PostfixFlush() error {
	_, err := s.postfixCommand("postqueue", "-f")
	return err
}

// Postqueue returns what "postqueue -p" prints.
func (s *Stack) Postqueue() (string, error) { return s.postfixCommand("postqueue", "-p") }

// Map returns how main.cf names the table of a parameter.
func (s *Stack) Map(parameter string) string {
	out, err := s.postfixCommand("postconf", "-h", parameter)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(out)
}

// ErrNoKey says that a table has no such key.
var ErrNoKey = errors.New("no such key")

// Postmap asks the table of a parameter for key through postmap -q. The errors:
// ErrNoKey, or what postmap says when it cannot tell. It warns of keys that are
// no UTF-8, and does not ask the table for them.
func (s *Stack) Postmap(parameter, key string) (string, error) {
	return s.PostmapTable(s.Map(parameter), key)
}

// PostmapTable does the same with a table that main.cf does not name, type:name.
func (s *Stack) PostmapTable(table, key string) (string, error) {
	out, err := s.postfixCommand("postmap", "-q", key, table)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 && !strings.Contains(out, "fatal: ") {
		return "", ErrNoKey
	}
	return strings.TrimSuffix(out, "\n"), err
}

// PostmapAll asks for several keys through postmap -q -, over one connection. It
// returns the hits: key, tab, value, one a line.
func (s *Stack) PostmapAll(parameter string, keys ...string) (string, error) {
	out, err := s.postfixInput(strings.Join(keys, "\n")+"\n", "postmap", "-q", "-", s.Map(parameter))
	return strings.TrimSuffix(out, "\n"), err
}

// Queued counts the messages that Postfix still holds.
func (s *Stack) Queued() (int, error) {
	count := 0
	// A message goes forward, from active to deferred, and back; so the first
	// queues are looked at once more.
	for _, queue := range []string{"maildrop", "incoming", "active", "deferred", "incoming", "active"} {
		err := filepath.WalkDir(filepath.Join(s.Spool(), queue), func(_ string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && d.Type().IsRegular() {
				count++
			}
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	return count, nil
}

// WaitQueue waits until Postfix holds no message. When limit is over, the error
// tells what the queue still holds.
func (s *Stack) WaitQueue(limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		n, err := s.Queued()
		if err != nil || n == 0 {
			return err
		}
		if time.Now().After(deadline) {
			queue, _ := s.Postqueue()
			return fmt.Errorf("postfix: queue is not empty after %v:\n%s", limit, queue)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
