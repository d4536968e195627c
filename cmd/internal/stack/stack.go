package stack

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Flavour says who answers Postfix and Dovecot. Both have the same schema, data
// and settings otherwise.
type Flavour string

const (
	// Dovepost: lookupd, authd and lmtpd.
	Dovepost Flavour = "dovepost"
	// Native: Postfix's mysql: tables, Dovecot's SQL passdb and userdb, Dovecot's LMTP.
	Native Flavour = "native"
)

// Options say what to start. The zero value is a dovepost stack without users.
type Options struct {
	Flavour   Flavour // Dovepost if empty
	Dir       string  // must not exist yet or be empty; a new temporary directory if empty
	Bin       string  // directory with the built daemons; built into Dir if empty
	Domains   []string
	Users     []User
	Aliases   []Alias
	Delimiter string // recipient_delimiter; "+" if empty

	MainCF      []string            // more lines for main.cf
	DovecotConf []string            // more lines for dovecot.conf
	DaemonArgs  map[string][]string // more arguments, by daemon
}

// Stack is a running mail server. Its addresses are host:port.
type Stack struct {
	*Postfix

	Flavour Flavour
	Dir     string
	DB      *MariaDB
	Roots   *x509.CertPool // trusts the certificate of Postfix and Dovecot

	// SMTPAddr is port 25. Every client is in mynetworks; one that is to come from
	// outside says so with XCLIENT.
	SMTPAddr string
	// SubmissionAddr is port 587: TLS and a login are required.
	SubmissionAddr string
	IMAPAddr       string // STARTTLS
	POP3Addr       string // STLS
	// LMTPAddr is the path of the unix socket that Postfix delivers to.
	LMTPAddr string

	bin        string
	ours       bool // Dir was made by Start
	ports      []*port
	imap, pop3 *port
	sink       *sink
	dovecot    *process
	units      map[string]*unit
	stopped    bool
}

// Start boots a mail server and waits until every part of it answers. On an error
// whatever was started is stopped, and Dir is left for inspection: its name is in
// the error.
func Start(o Options) (*Stack, error) {
	if o.Flavour == "" {
		o.Flavour = Dovepost
	}
	if o.Delimiter == "" {
		o.Delimiter = "+"
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("stack: Postfix and Dovecot need root to start")
	}
	s := &Stack{Postfix: &Postfix{}, Flavour: o.Flavour, units: map[string]*unit{}}
	if err := s.makeDir(o.Dir); err != nil {
		return nil, fmt.Errorf("stack: %w", err)
	}
	s.Postfix.dir = filepath.Join(s.Dir, "postfix")
	if err := s.start(&o); err != nil {
		return nil, fmt.Errorf("stack %s: %w", s.Dir, errors.Join(err, s.halt()))
	}
	return s, nil
}

// makeDir makes the stack's directory. Postfix, Dovecot and the daemons enter it
// as other users, so each directory above must let them through.
func (s *Stack) makeDir(dir string) (err error) {
	if dir == "" {
		s.ours = true
		if dir, err = os.MkdirTemp("", "dovepost-"); err != nil {
			return err
		}
	}
	if s.Dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(s.Dir, 0o755); err != nil {
		return err
	}
	for d := s.Dir; d != "/"; d = filepath.Dir(d) {
		info, err := os.Stat(d)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("%s is closed to the users of Postfix and Dovecot (mode %v)", d, info.Mode().Perm())
		}
	}
	if err := os.MkdirAll(s.MailRoot(), 0o755); err != nil {
		return err
	}
	return os.Chown(s.MailRoot(), MailUID, MailUID)
}

func (s *Stack) start(o *Options) (err error) {
	if s.Flavour == Dovepost {
		if s.bin = o.Bin; s.bin == "" {
			s.bin = filepath.Join(s.Dir, "bin")
			if err := Build(s.bin); err != nil {
				return err
			}
		}
	}
	if s.DB, err = StartMariaDB(s.Dir); err != nil {
		return err
	}
	if err := s.fill(o); err != nil {
		return err
	}
	if s.sink, err = startSink(s.Dir); err != nil {
		return err
	}
	if s.Roots, err = makeCertificate(s.certFile(), s.keyFile(), "mail.example.com"); err != nil {
		return err
	}
	if err := s.claimAddresses(); err != nil {
		return err
	}
	if err := s.preparePostfix(o); err != nil {
		return err
	}
	if err := s.prepareDovecot(o); err != nil {
		return err
	}
	if s.Flavour == Dovepost {
		if err := s.prepareDaemons(o); err != nil {
			return err
		}
		if err := s.startDaemons(o); err != nil {
			return err
		}
	}
	if err := s.StartDovecot(); err != nil {
		return err
	}
	return s.Postfix.start()
}

func (s *Stack) claimAddresses() error {
	if err := s.Postfix.claim(2); err != nil {
		return err
	}
	for range 2 {
		p, err := claimPort()
		if err != nil {
			return err
		}
		s.ports = append(s.ports, p)
	}
	s.SMTPAddr, s.SubmissionAddr = s.Addr(0), s.Addr(1)
	s.imap, s.pop3 = s.ports[0], s.ports[1]
	s.IMAPAddr, s.POP3Addr = s.imap.addr(), s.pop3.addr()
	s.LMTPAddr = filepath.Join(s.Spool(), "private/dovecot-lmtp")
	if s.Flavour == Dovepost {
		s.LMTPAddr = filepath.Join(s.Spool(), "dovepost/lmtp")
	}
	return nil
}

func (s *Stack) certFile() string { return filepath.Join(s.Dir, "cert.pem") }
func (s *Stack) keyFile() string  { return filepath.Join(s.Dir, "key.pem") }

// MailRoot returns the directory of all mailboxes: MailRoot/domain/localpart/Maildir.
func (s *Stack) MailRoot() string { return filepath.Join(s.Dir, "vmail") }

// Unread counts the messages in new/ of all mailboxes.
func (s *Stack) Unread() (n int, err error) {
	err = filepath.WalkDir(s.MailRoot(), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && filepath.Base(filepath.Dir(path)) == "new" {
			n++
		}
		return err
	})
	return n, err
}

// Foreign returns the messages that the foreign server, the one of
// remote.example, has got so far: each begins with X-Mail-Args and X-Rcpt-Args,
// its envelope.
func (s *Stack) Foreign() ([]string, error) { return s.sink.messages() }

// Halt stops everything and leaves the directory.
func (s *Stack) Halt() error { return s.halt() }

// Stop stops everything. A directory that Start made is removed.
func (s *Stack) Stop() error {
	err := s.halt()
	if s.ours {
		err = errors.Join(err, os.RemoveAll(s.Dir))
	}
	return err
}

// halt stops what runs, those who ask before those who answer.
func (s *Stack) halt() error {
	if s.stopped {
		return nil
	}
	s.stopped = true
	err := errors.Join(s.Postfix.Stop(), s.StopDovecot())
	for _, name := range Daemons {
		err = errors.Join(err, s.units[name].stop())
	}
	err = errors.Join(err, s.sink.stop())
	if s.DB != nil {
		err = errors.Join(err, s.DB.Stop())
		s.DB.port.release()
	}
	for _, p := range s.ports {
		p.release()
	}
	return err
}

// Signal sends sig to a daemon: SIGHUP to reload it, SIGSTOP to freeze it. See Freeze.
func (s *Stack) Signal(name string, sig syscall.Signal) error {
	return s.units[name].current().signal(sig)
}
