// Package mailbox is what the daemons know of the users' mail: where it is, whose it is, and
// how much of it there may be. lmtpd and policyd ask the same rows with the same settings.
package mailbox

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"dovepost/auth/dovecot"
	"dovepost/auth/guard"
	"dovepost/auth/sqldb"
	"dovepost/cmd/internal/daemon"
	"dovepost/lmtp/maildir"
)

// Settings are the flags about users and their mail.
type Settings struct {
	SQL, Userdb string // where the users come from, if not from --mysql

	UsernameFormat, UsernameChars, UsernameTranslation, DefaultRealm string

	Home, Location, UID, GID string
	Separator, Prefix        string
	SaveToDetail             bool
	Quota                    Quota
}

// Flags adds the flags, those of Quota included.
func (s *Settings) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&s.SQL, "sql", "", "take the users from `FILE`, a dovecot-sql.conf.ext")
	fs.StringVar(&s.Userdb, "userdb", "", "take the users from a socket auth-userdb, `unix:PATH` or inet:HOST:PORT")

	fs.StringVar(&s.UsernameFormat, "auth_username_format", guard.DefaultUsernameFormat, "how the name to look up is made of user@domain, with %u %n %d")
	fs.StringVar(&s.UsernameChars, "auth_username_chars", "", "`characters` that a user's name can have; empty: all")
	fs.StringVar(&s.UsernameTranslation, "auth_username_translation", "", "`pairs` of characters, from and to")
	fs.StringVar(&s.DefaultRealm, "auth_default_realm", "", "`domain` of names without one")

	fs.StringVar(&s.Home, "mail_home", "", "home of users whose row has none, with %u %n %d; with --mysql /home/vmail/%d/%n")
	fs.StringVar(&s.Location, "mail_location", "maildir:~/Maildir", "where the mail of a user is whose row does not say")
	fs.StringVar(&s.UID, "mail_uid", "", "`user` who owns the mail where the row does not say; empty: the daemon's own, with --mysql or as root 5000")
	fs.StringVar(&s.GID, "mail_gid", "", "the same for the `group`")
	fs.StringVar(&s.Separator, "namespace_separator", "", "`character` between levels of a mailbox name; empty: Dovecot's default for the layout")
	fs.StringVar(&s.Prefix, "namespace_prefix", "", "`prefix` of the namespace that holds INBOX")
	daemon.BoolVar(fs, &s.SaveToDetail, "lmtp_save_to_detail_mailbox", false, "store mail for user+mailbox@ in that mailbox")
	s.Quota.Flags(fs)
}

// Remote makes the client of --userdb.
func (s *Settings) Remote(timeout time.Duration) (*dovecot.Userdb, error) {
	network, address, _ := strings.Cut(s.Userdb, ":")
	switch {
	case network == "unix" && strings.HasPrefix(address, "/"):
	case network == "inet" && strings.Contains(address, ":"):
		network = "tcp"
	default:
		return nil, fmt.Errorf("userdb = %s: want unix:PATH or inet:HOST:PORT", s.Userdb)
	}
	return &dovecot.Userdb{Network: network, Address: address, Timeout: timeout}, nil
}

// Names are the rules for user names.
func (s *Settings) Names() (*guard.Names, error) {
	return guard.NewNames(s.DefaultRealm, s.UsernameTranslation, s.UsernameChars, s.UsernameFormat)
}

// Homes are the homes of users whose row has none; nil without mail_home.
func (s *Settings) Homes() (*Homes, error) {
	if s.Home == "" {
		return nil, nil
	}
	return NewHomes(s.Home)
}

// Seed is what authd tells Dovecot of the users of --mysql, with the same settings.
func (s *Settings) Seed() sqldb.SeedOptions {
	return sqldb.SeedOptions{Home: s.Home, UID: cmp.Or(s.UID, seedOwner), GID: cmp.Or(s.GID, seedOwner)}
}

// seedOwner owns the mail of the built-in tables.
const seedOwner = "5000"

// Owner returns who owns the mail where the row does not say. seed: the users are of --mysql.
func (s *Settings) Owner(seed bool) (uid, gid int, err error) {
	u, g := s.UID, s.GID
	if seed {
		u, g = cmp.Or(u, seedOwner), cmp.Or(g, seedOwner)
	}
	if uid, err = id("uid", "", u, os.Geteuid()); err == nil {
		gid, err = id("gid", "", g, os.Getegid())
	}
	return uid, gid, err
}

// Store makes what finds the mailboxes on disk.
func (s *Settings) Store() (*maildir.Deliverer, error) {
	if len(s.Separator) > 1 {
		return nil, fmt.Errorf("namespace_separator = %s: not one character", s.Separator)
	}
	if err := maildir.CheckLocation(s.Location); err != nil {
		return nil, err
	}
	d := &maildir.Deliverer{DefaultLocation: s.Location, SaveToDetail: s.SaveToDetail, Prefix: s.Prefix}
	if s.Separator != "" {
		d.Separator = s.Separator[0]
	}
	return d, nil
}
