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

// mainCF holds the site's values as they are printed, then what serves all flavours.
//
// With mydestination as printed, example.com is a domain of the machine's own
// accounts; Postfix forbids that it is a virtual one as well. So the mailboxes of
// the database live in other domains, and nobody has a mailbox in example.com.
const mainCF = `myhostname = mail.example.com
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
recipient_delimiter = %[1]s

local_recipient_maps = inline:{nobody.has=a.mailbox}
local_transport = error:5.1.1 no mailbox of this machine is served
smtpd_tls_cert_file = %[2]s
smtpd_tls_key_file = %[3]s
smtpd_tls_security_level = may
transport_maps = inline:{{remote.example = smtp:[127.0.0.1]:%[4]d}}

virtual_alias_domains =
virtual_transport = lmtp:unix:%[5]s
lmtp_connection_cache_destinations = %[5]s
`

// placeCF is what lets an instance stand beside another one.
const placeCF = `compatibility_level = 3.6
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
queue_directory = %[1]s/spool
data_directory = %[1]s/data
config_directory = %[1]s/etc
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
shlib_directory = /usr/lib/postfix
meta_directory = %[2]s
mail_owner = postfix
setgid_group = postdrop
maillog_file = %[1]s/mail.log
maillog_file_prefixes = %[1]s
alias_maps =
alias_database =
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtpd_peername_lookup = no
smtpd_authorized_xclient_hosts = 127.0.0.0/8
`

// submission are the options of a listener that wants TLS, a login, and one's own
// sender address.
var submission = []string{
	"syslog_name=postfix/submission",
	"smtpd_tls_security_level=encrypt",
	"smtpd_tls_auth_only=yes",
	"smtpd_sender_restrictions=reject_authenticated_sender_login_mismatch",
	"smtpd_relay_restrictions=permit_sasl_authenticated,reject",
	"smtpd_recipient_restrictions=permit_sasl_authenticated,reject",
}

// masterCF is Debian's, chroot column included, without the listeners.
const masterCF = `pickup unix n - y 60 1 pickup
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

// Postfix is a private Postfix, with smtpd on ports of 127.0.0.1.
type Postfix struct {
	dir   string
	ports []*port
	proc  *process // nil before the first start
}

// StartPostfix starts a Postfix alone below dir, which must exist and let the
// user postfix through. main is more text for main.cf; every listener is an smtpd
// with these settings of its own, name=value. The caller must Stop it; nothing is
// removed.
func StartPostfix(dir, main string, listeners ...[]string) (*Postfix, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	p := &Postfix{dir: filepath.Join(dir, "postfix")}
	if err = p.claim(len(listeners)); err == nil {
		err = p.prepare(main, listeners)
	}
	if err == nil {
		err = p.start()
	}
	if err != nil {
		p.Stop()
		return nil, err
	}
	return p, nil
}

// Addr returns host:port of a listener.
func (p *Postfix) Addr(listener int) string { return p.ports[listener].addr() }

// Spool returns Postfix's queue_directory.
func (p *Postfix) Spool() string { return filepath.Join(p.dir, "spool") }

// MailLog returns the path of Postfix's log.
func (p *Postfix) MailLog() string { return filepath.Join(p.dir, "mail.log") }

// ConfigDir returns Postfix's config_directory.
func (p *Postfix) ConfigDir() string { return filepath.Join(p.dir, "etc") }

func (p *Postfix) claim(listeners int) error {
	for range listeners {
		port, err := claimPort()
		if err != nil {
			return fmt.Errorf("postfix: %w", err)
		}
		p.ports = append(p.ports, port)
	}
	return nil
}

// prepare writes the configuration and makes the queue's directories.
func (p *Postfix) prepare(main string, listeners [][]string) error {
	for _, sub := range []string{"etc", "spool", "data"} {
		if err := os.MkdirAll(filepath.Join(p.dir, sub), 0o755); err != nil {
			return err
		}
	}
	owner, err := userID("postfix")
	if err != nil {
		return err
	}
	if err := os.Chown(filepath.Join(p.dir, "data"), owner, -1); err != nil {
		return err
	}
	var master strings.Builder
	for i, settings := range listeners {
		fmt.Fprintf(&master, "%s inet n - y - - smtpd\n", p.Addr(i))
		for _, s := range settings {
			fmt.Fprintf(&master, "  -o {%s}\n", s)
		}
	}
	master.WriteString(masterCF)
	text := master.String()
	if mysqlRoot != "" {
		// From within the chroot Postfix's own client finds no plugin for MySQL's passwords.
		text = strings.ReplaceAll(text, " y ", " n ")
	}
	if err := os.WriteFile(filepath.Join(p.ConfigDir(), "main.cf"), []byte(fmt.Sprintf(placeCF, p.dir, metaDirectory())+main), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(p.ConfigDir(), "master.cf"), []byte(text), 0o644); err != nil {
		return err
	}
	_, err = p.command("postfix", "check")
	return err
}

// metaDirectory is where the package of Postfix has its postfix-files: /etc/postfix up to 3.10.
func metaDirectory() string {
	const later = "/usr/share/postfix"
	if _, err := os.Stat(filepath.Join(later, "postfix-files")); err == nil {
		return later
	}
	return "/etc/postfix"
}

// preparePostfix writes what the stack wants of Postfix.
func (s *Stack) preparePostfix(o *Options) error {
	transport := "private/dovecot-lmtp"
	if s.Flavour == Dovepost {
		transport = "dovepost/lmtp"
	}
	main := fmt.Sprintf(mainCF, o.Delimiter, s.certFile(), s.keyFile(), s.sink.port.number, transport)
	for _, t := range tables {
		if s.Flavour == Dovepost {
			main += t.parameter + " = socketmap:unix:dovepost/lookup:" + t.parameter + "\n"
		} else {
			main += t.parameter + " = mysql:" + filepath.Join(s.ConfigDir(), t.file) + "\n"
		}
	}
	for _, line := range o.MainCF {
		main += line + "\n"
	}
	if err := s.Postfix.prepare(main, [][]string{nil, submission}); err != nil {
		return err
	}
	if s.Flavour == Native {
		return s.writeTables(s.ConfigDir(), 0, nativeSQLFile)
	}
	return nil
}

// start runs the master in the foreground and waits for its greeting.
func (p *Postfix) start() error {
	cmd := exec.Command("/usr/lib/postfix/sbin/master", "-s", "-c", p.ConfigDir())
	cmd.Dir = p.Spool()
	cmd.Env = append(os.Environ(), "MAIL_LOGTAG=postfix")
	var err error
	if p.proc, err = startProcess("postfix", filepath.Join(p.dir, "master.log"), cmd); err != nil {
		return err
	}
	err = p.proc.waitReady(30*time.Second, func() error { return greets(p.Addr(0), "220 ") })
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, tail(p.MailLog(), 15))
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

// Stop stops Postfix and gives its ports back.
func (p *Postfix) Stop() error {
	err := p.proc.stop(syscall.SIGTERM, 15*time.Second)
	for _, port := range p.ports {
		port.release()
	}
	return err
}

// command runs one of Postfix's commands for this instance, in the queue
// directory, where relative socket names lead to the right place.
func (p *Postfix) command(name string, args ...string) (string, error) {
	return p.input("", name, args...)
}

// input is command with something on stdin.
func (p *Postfix) input(stdin, name string, args ...string) (string, error) {
	path, err := program(name)
	if err != nil {
		return "", err
	}
	cmd := exec.Command(path, append([]string{"-c", p.ConfigDir()}, args...)...)
	cmd.Dir = p.Spool()
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), err
}

// PostfixReload reloads Postfix, as "postfix reload" does.
func (p *Postfix) PostfixReload() error {
	_, err := p.command("postfix", "reload")
	return err
}

// PostfixFlush asks for a delivery attempt of everything in the queue.
func (p *Postfix) PostfixFlush() error {
	_, err := p.command("postqueue", "-f")
	return err
}

// Postqueue returns what "postqueue -p" prints.
func (p *Postfix) Postqueue() (string, error) { return p.command("postqueue", "-p") }

// Map returns how main.cf names the table of a parameter.
func (p *Postfix) Map(parameter string) string {
	out, err := p.command("postconf", "-h", parameter)
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
func (p *Postfix) Postmap(parameter, key string) (string, error) {
	return p.PostmapTable(p.Map(parameter), key)
}

// PostmapTable does the same with a table that main.cf does not name, type:name.
func (p *Postfix) PostmapTable(table, key string) (string, error) {
	out, err := p.command("postmap", "-q", key, table)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 && !strings.Contains(out, "fatal: ") {
		return "", ErrNoKey
	}
	return strings.TrimSuffix(out, "\n"), err
}

// PostmapAll asks for several keys through postmap -q -, over one connection. It
// returns the hits: key, tab, value, one a line.
func (p *Postfix) PostmapAll(parameter string, keys ...string) (string, error) {
	out, err := p.input(strings.Join(keys, "\n")+"\n", "postmap", "-q", "-", p.Map(parameter))
	return strings.TrimSuffix(out, "\n"), err
}

// WaitLog waits until the log has text n times, and returns the log: postlogd(8) writes what the
// others say a moment later, when the queue may be empty already. When limit is over, the log is
// returned as it is.
func (p *Postfix) WaitLog(limit time.Duration, text string, n int) (string, error) {
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		log, err := os.ReadFile(p.MailLog())
		if err != nil || strings.Count(string(log), text) >= n || time.Now().After(deadline) {
			return string(log), err
		}
	}
}

// Queued counts the messages that Postfix still holds.
func (p *Postfix) Queued() (int, error) {
	count := 0
	// A message goes forward, from active to deferred, and back; so the first
	// queues are looked at once more.
	for _, queue := range []string{"maildrop", "incoming", "active", "deferred", "incoming", "active"} {
		err := filepath.WalkDir(filepath.Join(p.Spool(), queue), func(_ string, d fs.DirEntry, err error) error {
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
func (p *Postfix) WaitQueue(limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		n, err := p.Queued()
		if err != nil || n == 0 {
			return err
		}
		if time.Now().After(deadline) {
			queue, _ := p.Postqueue()
			return fmt.Errorf("postfix: queue is not empty after %v:\n%s", limit, queue)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
