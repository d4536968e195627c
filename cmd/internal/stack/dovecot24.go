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
protocols = imap pop3 lmtp
log_path = %[1]s/dovecot.log
info_log_path = %[1]s/dovecot-info.log
mail_driver = maildir
mail_path = ~/Maildir
mail_inbox_path = ~/Maildir
auth_mechanisms = plain login
service lmtp {
  unix_listener %[2]s/private/dovecot-lmtp {
    mode = 0600
    user = postfix
    group = postfix
  }
}
ssl = required
ssl_server_cert_file = %[3]s
ssl_server_key_file = %[4]s

base_dir = %[1]s/run
state_dir = %[1]s/state
instance_name = dovepost-stack
listen = 127.0.0.1
first_valid_uid = 5000
hostname = mail.example.com
recipient_delimiter = %[5]s
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

// dovecot24OwnAuth is dovecotOwnAuth for Dovecot 2.4, with the queries of
// nativeSQLFile.
const dovecot24OwnAuth = `sql_driver = mysql
mysql 127.0.0.1 {
  port = %[1]d
  user = mailuser
  password = mailpassword
  dbname = maildb
}
passdb_default_password_scheme = SHA512-CRYPT
passdb sql {
  query = SELECT email AS user, password FROM users WHERE email = '%%{user}'
}
userdb sql {
  query = SELECT CONCAT('%[2]s/', '%%{user | domain}', '/', '%%{user | username}') AS home, 5000 AS uid, 5000 AS gid, CONCAT(quota, 'K') AS quota_storage_size FROM users WHERE email = '%%{user}'
  iterate_query = SELECT email AS user FROM users
}
service auth {
  unix_listener %[3]s/private/auth {
    mode = 0660
    user = postfix
    group = postfix
  }
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
	// The version is the last argument, which the older template does not use.
	arguments := []any{s.dovecotDir(), s.Spool(), s.certFile(), s.keyFile(), o.Delimiter, s.imap.number, s.pop3.number, version}
	if old {
		arguments = arguments[:7]
	}
	conf := fmt.Sprintf(template, arguments...)
	switch {
	case s.Flavour != Native:
		conf += NoAuth("imap", "pop3")
	case old:
		conf += fmt.Sprintf(dovecotOwnAuth, filepath.Join(s.dovecotDir(), "dovecot-sql.conf.ext"), s.Spool())
	default:
		conf += fmt.Sprintf(dovecot24OwnAuth, s.DB.Port(), s.MailRoot(), s.Spool())
	}
	return conf + strings.Join(o.DovecotConf, "\n") + "\n", nil
}
