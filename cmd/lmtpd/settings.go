package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"dovepost/cmd/internal/daemon"
	"dovepost/cmd/internal/database"
	"dovepost/cmd/internal/mailbox"
	"dovepost/lmtp/journal"
	"dovepost/lmtp/maildir"
	"dovepost/lmtp/session"
)

// settings are the flags of lmtpd.
type settings struct {
	mail mailbox.Settings

	mysql         string
	mysqlConns    int
	lookupTimeout time.Duration
	rows          database.CacheSettings

	mailFsync                 string
	mailTempDir               string
	spoolLimit                int64
	journal                   string
	journalSize               int64
	autocreate, autosubscribe bool

	quota   quotaSettings
	filters filterSettings

	hostname        string
	delimiter       string
	deliveryAddress string
	addReceived     bool
	userConcurrency int
	messageSize     int64
	maxRecipients   int
	peers           peers
}

func (s *settings) flags(fs *pflag.FlagSet) {
	s.mail.Flags(fs)
	fs.StringVar(&s.mysql, "mysql", "", "take the users from the built-in tables on the server of `FILE`")
	fs.IntVar(&s.mysqlConns, "mysql_max_connections", 8, "connections to the MySQL server")
	daemon.DurationVar(fs, &s.lookupTimeout, "lookup_timeout", 10*time.Second, "how long to wait for a user's row before the answer is \"try again later\"")
	s.rows.Flags(fs)

	fs.StringVar(&s.mailFsync, "mail_fsync", "optimized", "always, optimized or never")
	fs.StringVar(&s.mailTempDir, "mail_temp_dir", os.TempDir(), "`directory` for large messages while they arrive")
	daemon.SizeVar(fs, &s.spoolLimit, "spool_limit", 4<<30, "`octets` that large messages may take there together; 0: no limit")
	fs.StringVar(&s.journal, "journal", "", "`FILE` that remembers deliveries, so that a message that is sent again comes once; default: journal in $STATE_DIRECTORY; none: no file")
	daemon.SizeVar(fs, &s.journalSize, "journal_size", journal.DefaultMaxSize, "bound of the journal in `octets`")
	daemon.BoolVar(fs, &s.autocreate, "lda_mailbox_autocreate", false, "make a detail mailbox that does not exist")
	daemon.BoolVar(fs, &s.autosubscribe, "lda_mailbox_autosubscribe", false, "and subscribe to it")

	s.quota.flags(fs)
	s.filters.flags(fs)

	fs.StringVar(&s.hostname, "hostname", "", "`name` in greetings and Received headers; empty: the machine's")
	fs.StringVar(&s.delimiter, "recipient_delimiter", "+", "`characters` that begin an address extension")
	fs.StringVar(&s.deliveryAddress, "lmtp_hdr_delivery_address", "final", "address in Delivered-To: final, original (ORCPT) or none")
	daemon.BoolVar(fs, &s.addReceived, "lmtp_add_received_header", true, "add a Received header")
	fs.IntVar(&s.userConcurrency, "lmtp_user_concurrency_limit", 0, "open recipients of one user at a time; 0: no limit")
	daemon.SizeVar(fs, &s.messageSize, "message_size_limit", 0, "`octets` of a message; 0: no limit")
	fs.IntVar(&s.maxRecipients, "lmtp_recipient_limit", session.DefaultMaxRecipients, "recipients of one message")
	s.peers.flags(fs)
}

// sources counts where the users come from.
func (s *settings) sources() (n int) {
	for _, source := range []string{s.mail.SQL, s.mysql, s.mail.Userdb} {
		if source != "" {
			n++
		}
	}
	return n
}

// deliverer makes what stores the messages.
func (s *settings) deliverer(log *slog.Logger) (*maildir.Deliverer, error) {
	fsync, err := maildir.ParseFsync(s.mailFsync)
	if err != nil {
		return nil, err
	}
	d, err := s.mail.Store()
	if err != nil {
		return nil, err
	}
	d.Fsync, d.Log = fsync, log
	d.Autocreate, d.Autosubscribe = s.autocreate, s.autosubscribe
	return d, nil
}

// handler makes the server, without those who resolve and deliver.
func (s *settings) handler() (*session.Handler, error) {
	addresses := map[string]session.DeliveryAddress{
		"final": session.DeliveryFinal, "original": session.DeliveryOriginal, "none": session.DeliveryNone,
	}
	address, ok := addresses[s.deliveryAddress]
	switch {
	case !ok:
		return nil, fmt.Errorf("lmtp_hdr_delivery_address = %s: not final, original or none", s.deliveryAddress)
	case s.messageSize < 0 || s.spoolLimit < 0:
		return nil, errors.New("message_size_limit or spool_limit is negative")
	case s.spoolLimit > 0 && s.messageSize > s.spoolLimit:
		return nil, fmt.Errorf("spool_limit = %d is less than message_size_limit = %d: such a message could never be taken", s.spoolLimit, s.messageSize)
	case s.maxRecipients < 100:
		return nil, fmt.Errorf("lmtp_recipient_limit = %d: RFC 5321 asks for at least 100", s.maxRecipients)
	case s.userConcurrency < 0:
		return nil, errors.New("lmtp_user_concurrency_limit is negative")
	case s.sources() != 1:
		return nil, errors.New("want the users from one of sql, mysql and userdb")
	case s.mysqlConns < 1:
		return nil, errors.New("mysql_max_connections is less than 1")
	case s.lookupTimeout <= 0:
		return nil, errors.New("lookup_timeout is not positive")
	}
	if err := s.rows.Check(); err != nil {
		return nil, err
	}
	if s.hostname == "" {
		name, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("hostname: %w", err)
		}
		s.hostname = name
	}
	if strings.ContainsFunc(s.hostname, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		return nil, fmt.Errorf("hostname = %q: not a host name", s.hostname)
	}
	if info, err := os.Stat(s.mailTempDir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("mail_temp_dir = %s: not a directory that can be seen", s.mailTempDir)
	}
	h := &session.Handler{
		Hostname: s.hostname, RecipientDelimiter: s.delimiter,
		DeliveryAddress: address, NoReceived: !s.addReceived,
		UserConcurrency: s.userConcurrency, MaxRecipients: s.maxRecipients, MaxSize: s.messageSize,
		SpoolDir: s.mailTempDir, SpoolDisk: s.spoolLimit, SpoolMemory: session.DefaultSpoolMemory,
	}
	return h, s.peers.apply(h)
}
