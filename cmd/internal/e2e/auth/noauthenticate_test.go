package auth

import (
	"strings"
	"testing"
)

// TestNoAuthenticate: a row that leaves the proof to another passdb lets nobody in
// where there is none, whatever the password; Dovecot says "temporary", too.
func TestNoAuthenticate(t *testing.T) {
	insert(t, "unproven", row{"password": null, "extra": "Y"})
	insert(t, "unprovenpw", row{"password": clear, "extra": "Y"})
	t.Cleanup(func() { db.Exec("DELETE FROM mail.odd WHERE name LIKE 'unproven%'") })
	const queries = `default_pass_scheme = PLAIN
password_query = SELECT name AS user, password, extra AS noauthenticate FROM odd WHERE name = '%u'
user_query = SELECT home, uid, gid FROM odd WHERE name = '%u'
iterate_query = SELECT name AS user FROM odd
`
	n := native(t, head()+queries, "")
	o := ours(t, head()+queries, n)
	for _, user := range []string{"unproven", "unprovenpw"} {
		for _, password := range []string{"secret", "wrong", ""} {
			for name, s := range map[string]*side{"Dovecot": n, "authd": o} {
				if got := s.auth(user, password, "imap"); exitCode.FindString(got) == "[0]" || !strings.Contains(got, "temp_fail") {
					t.Errorf("%s: %s with %q: got %s, want a temporary failure", name, user, password, got)
				}
			}
		}
		for name, s := range map[string]*side{"Dovecot": n, "authd": o} {
			if got := s.doveadm("auth", "lookup", "-a", s.userdb, "-x", "service=imap", user); exitCode.FindString(got) != "[75]" {
				t.Errorf("%s: lookup of %s: got %s, want [75]", name, user, got)
			}
		}
	}
}
