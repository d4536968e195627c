package mailbox

import (
	"testing"

	"dovepost/auth"
)

func TestModernMail(t *testing.T) {
	for _, tt := range []struct {
		name, mail string
		fields     auth.Fields
		want       string
		fails      bool
	}{
		{"nothing", "", nil, "", false},
		{"a location of 2.3", "maildir:~/M:LAYOUT=fs", auth.Fields{field("quota_rule", "x")}, "maildir:~/M:LAYOUT=fs", false},
		{"a path", "", auth.Fields{field("mail_path", "~/mail")}, "maildir:~/mail", false},
		{"a driver and a path", "", auth.Fields{field("mail_driver", "sdbox"), field("mail_path", "~/mail")}, "sdbox:~/mail", false},
		{"all of it", "", auth.Fields{field("mail_driver", "maildir"), field("mail_inbox_path", "~/in"), field("mail_path", "/a:b"), field("mail_control_path", "/c"),
			field("mailbox_list_layout", "fs"), field("mailbox_list_utf8", "yes")}, "maildir:/a::b:INBOX=~/in:CONTROL=/c:LAYOUT=fs:UTF-8", false},
		{"an inbox beside what the auth client has put together", "maildir:~/mail", auth.Fields{field("mail_inbox_path", "~/in")}, "maildir:~/mail:INBOX=~/in", false},
		{"an inbox alone", "", auth.Fields{field("mail_inbox_path", "~/in")}, "", true},
		{"a driver alone", "", auth.Fields{field("mail_driver", "mdbox")}, "", true},
	} {
		got, err := modernMail(tt.mail, tt.fields)
		if got != tt.want || (err != nil) != tt.fails {
			t.Errorf("it handles %s: %q, %v; want %q", tt.name, got, err, tt.want)
		}
	}
}
