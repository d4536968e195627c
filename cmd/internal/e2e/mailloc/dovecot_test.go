package mailloc

import (
	"fmt"
	"os/exec"
	"strings"

	"dovepost/cmd/internal/stack"
)

// commonConf is what all releases of Dovecot call by the same names. DIR is the site's directory.
const commonConf = `protocols = lmtp
base_dir = DIR/run
state_dir = DIR/state
log_path = DIR/dovecot.log
instance_name = mailloc
ssl = no
first_valid_uid = 1000
hostname = mail.example.com
service auth {
  unix_listener auth-userdb {
    mode = 0777
  }
}
service lmtp {
  unix_listener DIR/native {
    mode = 0666
  }
}
`

const conf23 = `passdb {
  driver = passwd-file
  args = DIR/users
}
userdb {
  driver = passwd-file
  args = DIR/users
}
`

const conf24 = `passdb passwd-file {
  passwd_file_path = DIR/users
}
userdb passwd-file {
  passwd_file_path = DIR/users
}
mail_driver = maildir
`

// dovecotConf returns the beginning of dovecot.conf for the release that is installed. Tests that compare with its
// own LMTP add settings of 2.3 and are for 2.3; for 2.4 are those in which Dovecot but reads, TestDetailsInUTF8.
func dovecotConf(c config) (string, error) {
	modern, err := stack.ModernDovecot()
	if err != nil || !modern {
		return commonConf + conf23 + "mail_location = " + c.location + "\n", err
	}
	out, err := exec.Command("dovecot", "--version").Output()
	if err != nil {
		return "", err
	}
	version, _, _ := strings.Cut(string(out), " ")
	version, _, _ = strings.Cut(strings.TrimSpace(version), "-")
	location, err := modernLocation(c.location)
	// The versions come first.
	return "dovecot_config_version = " + version + "\ndovecot_storage_version = " + version + "\n" + commonConf + conf24 + location, err
}

// modernLocation returns the settings that Dovecot 2.4 has instead of a mail_location.
func modernLocation(location string) (string, error) {
	words := strings.Split(strings.TrimPrefix(location, "maildir:"), ":")
	settings := "mail_path = " + words[0] + "\nmail_inbox_path = " + words[0] + "\n"
	for _, word := range words[1:] {
		switch word {
		case "UTF-8":
			settings += "mailbox_list_utf8 = yes\n"
		case "LAYOUT=fs":
			settings += "mailbox_list_layout = fs\n"
		default:
			return "", fmt.Errorf("mail_location = %s: %s has no name in Dovecot 2.4 here", location, word)
		}
	}
	return settings, nil
}
