package mailloc

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// TestSettings: settings about addresses do for lmtpd what they do for Dovecot.
func TestSettings(t *testing.T) {
	rcpts := []string{"<u@example.net>", "<u+x@example.net>", "<u-x@example.net>", "<u_x-y+z@example.net>", "<u--x@example.net>", "<u+@example.net>",
		"<U@example.net>", "<u@EXAMPLE.net>", "<u+X@example.net>", "<gone+x@example.net>", "<+u@example.net>",
		"<u@example.net> ORCPT=rfc822;first@other.test", "<u+x@example.net> ORCPT=rfc822;a+2Bb@other.test", "<u@example.net> ORCPT=x-y;z"}
	var all []string
	for _, rcpt := range rcpts {
		all = append(all, message("for "+rcpt, rcpt))
	}
	all = append(all,
		message("twice", "<u@example.net>", "<u@example.net>"),
		message("the domain twice", "<u@example.net>", "<u@EXAMPLE.NET>"),
		message("in capitals, too", "<u@example.net>", "<U@example.net>"),
		message("two details", "<u@example.net>", "<u+x@example.net>", "<u+y@example.net>"),
		message("two origins", "<u@example.net> ORCPT=rfc822;a@b.test", "<u@example.net> ORCPT=rfc822;c@b.test"),
		message("one of two", "<gone@example.net>", "<u@example.net>"),
		message("two users", "<u@example.net>", "<v@example.net>"))
	for name, settings := range map[string]map[string]string{
		"the defaults":                      {},
		"no delimiter":                      {"recipient_delimiter": ""},
		"several delimiters":                {"recipient_delimiter": "+-_"},
		"another delimiter":                 {"recipient_delimiter": "-"},
		"details are mailboxes":             {"lmtp_save_to_detail_mailbox": "yes", "recipient_delimiter": "-_"},
		"details are mailboxes, not made":   {"lmtp_save_to_detail_mailbox": "yes", "lda_mailbox_autocreate": "no"},
		"made, and not subscribed to":       {"lmtp_save_to_detail_mailbox": "yes", "lda_mailbox_autosubscribe": "no"},
		"the original address":              {"lmtp_hdr_delivery_address": "original"},
		"no address":                        {"lmtp_hdr_delivery_address": "none"},
		"no Received":                       {"lmtp_add_received_header": "no"},
		"no Received, the original address": {"lmtp_add_received_header": "no", "lmtp_hdr_delivery_address": "original"},
		"one recipient of a user at a time": {"lmtp_user_concurrency_limit": "1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, config{location: "maildir:~/Maildir", settings: settings, users: "u@example.net:{plain}x:5000:5000::AREA/u::\nv@example.net:{plain}x:5000:5000::AREA/v::\n"})
			s.compare(nil, all...)
		})
	}
}

// TestModes: what is made in a mailbox takes its mode and group, as Dovecot would give it.
func TestModes(t *testing.T) {
	const group = 100 // users
	for _, tt := range []struct {
		name   string
		mode   os.FileMode
		member bool // of the group, mail_access_groups
	}{
		{"nobody else's", 0o700, false},
		{"a group's", 0o770, true},
		{"a group's, read only", 0o750, true},
		{"a group's that is inherited", os.ModeSetgid | 0o770, true},
		{"a group's that is inherited, read only", os.ModeSetgid | 0o750, true},
		{"everybody's", 0o777, true},
		{"everybody's to read", 0o755, false},
		{"inherited from a group that the server is not in", os.ModeSetgid | 0o770, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := config{location: "maildir:~/Maildir", settings: map[string]string{"lmtp_save_to_detail_mailbox": "yes"}}
			if tt.member {
				c.native, c.group = "mail_access_groups = users\n", group
			}
			s := newSite(t, c)
			prepare := func() {
				for _, dir := range []string{"", "/Maildir", "/Maildir/cur", "/Maildir/new", "/Maildir/tmp", "/Maildir/.Old", "/Maildir/.Old/cur", "/Maildir/.Old/new", "/Maildir/.Old/tmp"} {
					path, mode, gid := s.area+"/u"+dir, tt.mode, group
					if dir == "" {
						mode, gid = 0o711, mailID
					}
					if strings.Contains(dir, ".Old") {
						mode = mode&^0o777 | 0o700
					}
					if err := errors.Join(os.Mkdir(path, 0o700), os.Chown(path, mailID, gid), os.Chmod(path, mode)); err != nil {
						t.Fatal(err)
					}
				}
			}
			s.compare(prepare, message("plain", "<u@example.net>"), message("new", "<u+Work@example.net>"), message("again", "<u+Work@example.net>"), message("old", "<u+Old@example.net>"))
		})
	}
}
