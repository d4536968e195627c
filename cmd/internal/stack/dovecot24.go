package stack

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// dovecot24Conf is dovecotConf for Dovecot 2.4. The limit of the quota must not
// stand here: it would beat the one of the user.
const dovecot24Conf = `dovecot_config_version = %[8]s
dovecot_storage_version = %[8]s
mail_driver = maildir
mail_path = ~/Maildir
mail_inbox_path = ~/Maildir
ssl_server_cert_file = %[3]s
ssl_server_key_file = %[4]s
mail_plugins {
  quota = yes
}
quota "User quota" {
  driver = maildir
}
namespace inbox {
  inbox = yes
  separator = .
}
protocol imap {
  mail_plugins {
    imap_quota = yes
  }
}
`

// dovecot24OwnAuth is dovecotOwnAuth for Dovecot 2.4, with the queries of
// nativeSQLFile.
const dovecot24OwnAuth = `sql_driver = mysql
mysql 127.0.0.1 {
  port = %[2]d
  user = mailuser
  password = mailpassword
  dbname = maildb
}
passdb_default_password_scheme = SHA512-CRYPT
passdb sql {
  query = SELECT email AS user, password FROM users WHERE email = '%%{user}'
}
userdb sql {
  query = SELECT CONCAT('%[3]s/', '%%{user | domain}', '/', '%%{user | username}') AS home, 5000 AS uid, 5000 AS gid, CONCAT(quota, 'K') AS quota_storage_size FROM users WHERE email = '%%{user}'
  iterate_query = SELECT email AS user FROM users
}
`

// dovecotVersion returns what dovecot --version calls itself: "2.3.19.1".
func dovecotVersion() (string, error) {
	dovecot, err := program("dovecot")
	if err != nil {
		return "", err
	}
	out, err := exec.Command(dovecot, "--version").Output()
	version, _, _ := strings.Cut(strings.TrimSpace(string(out)), " ") // and a commit
	version, _, _ = strings.Cut(version, "-")
	if err != nil || version == "" {
		return "", fmt.Errorf("dovecot --version: %q, %v", out, err)
	}
	return version, nil
}

// ModernDovecot reports whether the Dovecot of a stack is 2.4 or later, with other names
// of settings.
func ModernDovecot() (bool, error) {
	version, err := dovecotVersion()
	return !strings.HasPrefix(version, "2.3."), err
}

// dovecotText returns dovecot.conf for the version that is installed.
func (s *Stack) dovecotText(o *Options) (string, error) {
	version, err := dovecotVersion()
	if err != nil {
		return "", err
	}
	template, old := dovecot24Conf, strings.HasPrefix(version, "2.3.")
	if old {
		template = dovecotConf
	}
	// The version, which 2.4 wants first, is of no use in the older template.
	conf := fmt.Sprintf(template+dovecotCommon, s.dovecotDir(), s.Spool(), s.certFile(), s.keyFile(), o.Delimiter, s.imap.number, s.pop3.number, version)
	switch {
	case s.Flavour != Native:
		conf += NoAuth("imap", "pop3")
	case old:
		conf += fmt.Sprintf(dovecotPostfixAuth+dovecotOwnAuth, s.Spool(), filepath.Join(s.dovecotDir(), "dovecot-sql.conf.ext"))
	default:
		conf += fmt.Sprintf(dovecotPostfixAuth+dovecot24OwnAuth, s.Spool(), s.DB.Port(), s.MailRoot())
	}
	return conf + strings.Join(o.DovecotConf, "\n") + "\n", nil
}
