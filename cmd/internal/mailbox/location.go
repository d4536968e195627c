package mailbox

import (
	"fmt"
	"strings"

	"dovepost/auth"
)

// modernOptions are what Dovecot 2.4 calls the options of a mail location.
var modernOptions = map[string]string{
	"mail_inbox_path": "INBOX", "mail_control_path": "CONTROL", "mailbox_list_layout": "LAYOUT",
	"mailbox_subscriptions_filename": "SUBSCRIPTIONS", "mailbox_directory_name": "DIRNAME",
}

// modernMail returns the mail location of a row in the form of 2.3: mail as it is, or put together of
// the settings of Dovecot 2.4, mail_path with the others. Without mail_path they would
// change some of the site's location, which is an error.
func modernMail(mail string, fields auth.Fields) (string, error) {
	colons := strings.NewReplacer(":", "::")
	driver, path, options := "maildir", "", ""
	for _, f := range fields {
		switch name := modernOptions[f.Name]; {
		case f.Name == "mail_driver":
			driver = f.Value
		case f.Name == "mail_path":
			path = colons.Replace(f.Value)
		case f.Name == "mailbox_list_utf8" && f.Value == "yes":
			options += ":UTF-8"
		case name != "" && f.Value != "":
			options += ":" + name + "=" + colons.Replace(f.Value)
		}
	}
	switch {
	case path != "":
		return driver + ":" + path + options, nil
	case options != "" && mail != "":
		return mail + options, nil
	case options != "" || driver != "maildir":
		return "", fmt.Errorf("the row has settings of a mail location, and no mail_path")
	}
	return mail, nil
}
