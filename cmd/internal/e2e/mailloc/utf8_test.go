package mailloc

import (
	"strings"
	"testing"
)

// Dovecot 2.3 has no SMTPUTF8 and refuses an address such as user+Entwürfe@. Lmtpd has it: what it makes of a
// detail is the mailbox that Dovecot's clients know by that name, letter for letter.
func TestDetailsInUTF8(t *testing.T) {
	for _, location := range []string{"maildir:~/Maildir", "maildir:~/Maildir:UTF-8", "maildir:~/mail:LAYOUT=fs"} {
		t.Run(location, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, config{location: location, settings: map[string]string{"lmtp_save_to_detail_mailbox": "yes"}})
			s.wipe()
			for _, name := range []string{"Work", "Entwürfe", "Entwu\u0308rfe", "日本/語", "日本.語", "\U0001f600", "a\u00a0b", "R&D Ü", "\u05d0\u05d1"} {
				local := "u+" + name
				if strings.Contains(name, " ") {
					local = `"` + local + `"`
				}
				if got := s.ours(message(name, "<"+local+"@example.net>")); !strings.Contains(got, " Saved\n") {
					t.Errorf("%q: %s", name, got)
				}
				at := name
				if strings.Contains(name, "/") && !strings.Contains(location, "LAYOUT=fs") {
					at = "INBOX" // no mailbox has that name
				}
				if got := s.doveadm("mailbox", "status", "-u", "u@example.net", "messages", at); !strings.Contains(got, "messages=1") {
					t.Errorf("%q: Dovecot says %q", name, got)
				}
			}
			s.read()
		})
	}
}
