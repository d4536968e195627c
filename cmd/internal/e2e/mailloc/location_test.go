package mailloc

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// details are folders that a sender may name.
var details = []string{"Work", "Work", "a/b", "a.b", "a/b/c", "Foo.Bar", "../../x", "INBOX", "inbox", "cur", "~x", "x~", ".hidden", "a//b", "\"x y\"", "Entw&APw-rfe", "R&D"}

// to makes the conversations of one message for u@example.net and one for each detail.
func to(details []string) (all []string) {
	all = append(all, message("plain", "<u@example.net>"))
	for _, detail := range details {
		local := "u+" + detail
		if quoted, ok := strings.CutPrefix(detail, `"`); ok {
			local = `"u+` + quoted
		}
		all = append(all, message("for "+detail, "<"+local+"@example.net>"))
	}
	return all
}

// without returns details without one of them.
func without(detail string) []string {
	return slices.DeleteFunc(slices.Clone(details), func(d string) bool { return d == detail })
}

// TestLocations: each mail_location is for lmtpd what it is for Dovecot.
func TestLocations(t *testing.T) {
	folders := map[string]string{"lmtp_save_to_detail_mailbox": "yes"}
	slash := "namespace inbox {\n inbox = yes\n separator = /\n}\n"
	for _, tt := range []struct {
		name string
		config
	}{
		{"a home", config{location: "maildir:~/Maildir"}},
		{"the home itself", config{location: "maildir:~/"}},
		{"a separator of its own", config{location: "maildir:~/Maildir", native: slash, ours: []string{"--namespace_separator=/"}}},
		{"a prefix", config{location: "maildir:~/Maildir", native: "namespace inbox {\n inbox = yes\n prefix = INBOX.\n}\n", ours: []string{"--namespace_prefix=INBOX."}}},
		{"a layout of directories", config{location: "maildir:~/mail:LAYOUT=fs"}},
		{"a layout of directories and another inbox", config{location: "maildir:~/mail:LAYOUT=fs:INBOX=~/in"}},
		{"directories and dots", config{location: "maildir:~/mail:LAYOUT=fs", native: "namespace inbox {\n inbox = yes\n separator = .\n}\n", ours: []string{"--namespace_separator=."}}},
		{"a place for control files", config{location: "maildir:~/Maildir:CONTROL=AREA/control/%u:INDEX=AREA/index/%u"}},
		{"another inbox", config{location: "maildir:AREA/%d/%n:INBOX=AREA/in/%n"}},
		{"hashed directories", config{location: "maildir:AREA/%Ld/%1n/%n:INDEX=AREA/index/%u"}},
		{"a hash", config{location: "maildir:AREA/%2.26Hn/%n"}},
		{"hashes of another kind", config{location: "maildir:AREA/%2.256Nu/%Mu"}},
		{"long names of variables", config{location: "maildir:AREA/%{domain}/%{username}/%L{user}"}},
		{"a function", config{location: "maildir:AREA/%{md5:user}"}},
		{"the home as a variable", config{location: "maildir:%h/mail"}},
		{"names in UTF-8", config{location: "maildir:~/Maildir:UTF-8", native: slash, ours: []string{"--namespace_separator=/"}}},
		{"another list of subscriptions", config{location: "maildir:~/Maildir:SUBSCRIPTIONS=subs"}},
		{"a location of the user's own", config{location: "mbox:AREA/never", users: "u@example.net:{plain}x:5000:5000::AREA/u::userdb_mail=maildir:AREA/own/%%n:LAYOUT=fs\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := tt.config
			c.settings = folders
			if strings.HasPrefix(c.location, "mbox") {
				c.ours = []string{"--mail_location=maildir:AREA/never"}
			}
			s := newSite(t, c)
			named := details
			switch {
			case strings.Contains(tt.name, "prefix"):
				// Dovecot makes INBOX.inbox of it, and subscribes to INBOX; lmtpd takes it for INBOX.
				named = without("inbox")
			case strings.Contains(c.location+c.users, "LAYOUT=fs"):
				// There Dovecot makes what could be ~/.ssh; lmtpd takes it for no mailbox.
				named = without(".hidden")
			}
			s.compare(nil, to(named)...)
			s.read()
		})
	}
}

// read has Dovecot read all that lmtpd has stored.
func (s *site) read() {
	s.t.Helper()
	stored := 0
	for _, line := range s.tree() {
		if strings.Contains(line, "/new/MESSAGE") {
			stored++
		}
	}
	out := s.doveadm("fetch", "-u", "u@example.net", "mailbox size.physical size.virtual hdr.subject text", "all")
	if got := strings.Count(out, "hdr.subject: "); got != stored || got == 0 {
		s.t.Errorf("Dovecot finds %d messages of %d:\n%s", got, stored, out)
	}
	var missing []string
	list, subscribed := strings.Split(s.doveadm("mailbox", "list", "-u", "u@example.net"), "\n"), s.doveadm("mailbox", "list", "-s", "-u", "u@example.net")
	for name := range strings.Lines(subscribed) {
		found := false
		for _, box := range list {
			found = found || box == strings.TrimSuffix(name, "\n")
		}
		if !found {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 || !strings.Contains(subscribed, "Work") {
		s.t.Errorf("subscribed to %q, and there is no %q", subscribed, missing)
	}
	log, err := os.ReadFile(filepath.Join(s.dir, "dovecot.log"))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		if s.t.Failed() {
			return
		}
		if strings.Contains(line, "Warning") || strings.Contains(line, "Error") || strings.Contains(line, "Panic") {
			s.t.Errorf("Dovecot: %s", line)
		}
	}
}
