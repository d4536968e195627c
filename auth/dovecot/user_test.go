package dovecot

import (
	"strings"
	"testing"

	"dovepost/auth"
)

func TestModernFields(t *testing.T) {
	tests := []struct {
		name string
		old  auth.Fields
		want string
	}{
		{"a mail location", auth.Fields{field("mail", "maildir:~/Maildir")}, "mail_driver=maildir mail_path=~/Maildir mail_inbox_path=~/Maildir"},
		{"its options", auth.Fields{field("mail", "maildir:/m:INBOX=/in:INDEX=/i:CONTROL=/c:ALT=/a:LAYOUT=fs:DIRNAME=d:VOLATILEDIR=/v:UTF-8")},
			"mail_driver=maildir mail_path=/m mail_index_path=/i mail_control_path=/c mail_alt_path=/a mailbox_list_layout=fs mailbox_directory_name=d mail_volatile_path=/v mail_inbox_path=/in"},
		{"a path without a driver", auth.Fields{field("mail", "/var/vmail/a")}, "mail_path=/var/vmail/a"},
		{"another driver", auth.Fields{field("mail", "mdbox:~/mdbox")}, "mail_driver=mdbox mail_path=~/mdbox"},
		{"no driver", auth.Fields{field("mail", "Maildir")}, ""},
		{"names of 2.4 that are there already", auth.Fields{field("mail_path", "/x"), field("mail", "maildir:/m")}, "mail_path=/x mail_driver=maildir mail_inbox_path=/m"},
		{"storage in KiB", auth.Fields{field("quota_rule", "*:storage=125952")}, "quota_storage_size=128974848B"},
		{"storage with a unit", auth.Fields{field("quota_rule", "*:storage=123M")}, "quota_storage_size=128974848B"},
		{"bytes", auth.Fields{field("quota_rule", "*:bytes=4242000")}, "quota_storage_size=4242000B"},
		{"bytes with a unit", auth.Fields{field("quota_rule", "*:bytes=5M")}, "quota_storage_size=5242880B"},
		{"B for bytes", auth.Fields{field("quota_rule", "*:storage=77B")}, "quota_storage_size=77B"},
		{"no limit", auth.Fields{field("quota_rule", "*:storage=0")}, "quota_storage_size=0B"},
		{"messages", auth.Fields{field("quota_rule", "*:storage=1k:messages=10")}, "quota_storage_size=1024B quota_message_count=10"},
		{"ignore", auth.Fields{field("quota_rule", "*:ignore")}, "quota_storage_size=0B"},
		{"rules of mailboxes", auth.Fields{field("quota_rule", "*:bytes=1"), field("quota_rule2", "Trash:storage=+10%")}, "quota_storage_size=1B"},
		{"what would lock the user out", auth.Fields{field("quota_rule", "*:storage=abc"), field("quota_rule2", "*:storage=10%"), field("quota_rule3", "*:storage=99999999999T")}, ""},
		{"a negative limit", auth.Fields{field("quota_rule", "*:bytes=-1")}, ""},
		{"what would make it fail", auth.Fields{field("mail_plugins+", " acl"), field("plugin/x", "y"), field("ok", "1")}, "ok=1"},
		{"a name that only looks like a rule", auth.Fields{field("quota_rules", "*:bytes=1")}, "quota_rules=*:bytes=1"},
	}
	for _, tt := range tests {
		var got []string
		for _, f := range modernFields(tt.old) {
			got = append(got, f.Name+"="+f.Value)
		}
		if got := strings.Join(got, " "); got != tt.want {
			t.Errorf("it handles %s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestCheckPath(t *testing.T) {
	tests := []struct {
		name, field, value string
		ok                 bool
	}{
		{"a home", "home", "/home/vmail/example.com/alice", true},
		{"dots in names", "home", "/m/..a/b../...", true},
		{"a way up", "home", "/m/../etc", false},
		{"a way up at the end", "home", "/m/..", false},
		{"a chroot and the home in it", "home", "/srv/x/./alice", true},
		{"two of them", "home", "/srv/./x/./alice", false},
		{"a way up out of the chroot", "home", "/srv/x/./../alice", false},
		{"the directory itself", "mail_path", "/m/./alice", false},
		{"a relative home, which Dovecot refuses", "home", "m/alice", true},
		{"NUL", "home", "/m/a\x00b", false},
		{"a mail location", "mail", "maildir:~/Maildir:INBOX=/in/x", true},
		{"a way up in one", "mail", "maildir:~/../x", false},
		{"a way up in its option", "mail", "maildir:~/Maildir:INDEX=../x", false},
		{"a bare way up", "mail", "maildir:..", false},
		{"a way up in 2.4's path", "mail_path", "/m/../x", false},
		{"another field", "reason", "../x", true},
	}
	for _, tt := range tests {
		if err := checkPath(field(tt.field, tt.value)); (err == nil) != tt.ok {
			t.Errorf("it handles %s: checkPath(%s=%q) = %v", tt.name, tt.field, tt.value, err)
		}
	}
}

func TestNumbered(t *testing.T) {
	for _, tt := range []struct {
		name     string
		uid, gid string
		wantUID  string
		wantGID  string
		ok       bool
	}{
		{"numbers", "5000", "05001", "5000", "5001", true},
		{"no ids", "", "", "", "", true},
		{"root, whom Dovecot refuses itself", "0", "root", "0", "0", true},
		{"names", "daemon", "daemon", "1", "1", true},
		{"an unknown user", "no such user", "1", "", "", false},
		{"an unknown group", "1", "no such group", "", "", false},
		{"a negative number", "-1", "1", "", "", false},
		{"a signed number", "+1", "1", "", "", false},
		{"the number that means none", "4294967295", "1", "", "", false},
		{"a number that is too large", "1", "4294967296", "", "", false},
		{"a blank before the number", " 5000", "1", "", "", false},
	} {
		u, err := numbered(&auth.User{Name: "alice", UID: tt.uid, GID: tt.gid})
		switch {
		case (err == nil) != tt.ok:
			t.Errorf("%s: error %v", tt.name, err)
		case auth.Refused(err):
			t.Errorf("%s: %v is a refusal", tt.name, err)
		case err == nil && (u.UID != tt.wantUID || u.GID != tt.wantGID):
			t.Errorf("%s: uid %s gid %s, want %s %s", tt.name, u.UID, u.GID, tt.wantUID, tt.wantGID)
		}
	}
}
