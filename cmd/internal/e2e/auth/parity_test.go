package auth

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"

	"dovepost/cmd/internal/stack"
)

// row is one row of odd, by columns; a column that is not there has its default.
type row map[string]string

// null stands for NULL.
const null = "\x00"

func insert(t testing.TB, name string, r row) {
	t.Helper()
	columns, values := []string{"name"}, []string{stack.Quote(name)}
	for column, value := range r {
		columns = append(columns, column)
		if value == null {
			values = append(values, "NULL")
		} else {
			values = append(values, stack.Quote(value))
		}
	}
	if err := db.Exec(fmt.Sprintf("INSERT INTO mail.odd (%s) VALUES (%s);", strings.Join(columns, ","), strings.Join(values, ","))); err != nil {
		t.Fatal(err)
	}
}

const (
	clear    = "{PLAIN}secret"
	md5crypt = "$1$aaaaaaaa$dh7ISs/8opDP5vIalxXIZ." // of "secret"
)

// odd are rows with something unusual.
var odd = map[string]row{
	"plain": {"password": clear}, "nullpw": {}, "emptypw": {"password": ""}, "twice": {"password": clear, "home": "/one"},
	"nopassy": {"nopassword": "Y"}, "nopass0": {"nopassword": "0"}, "nopassempty": {"nopassword": ""},
	"nopasspw": {"nopassword": "Y", "password": clear}, "nopassemptypw": {"password": "", "nopassword": "y"},
	"md5bare": {"password": md5crypt}, "md5more": {"password": md5crypt + "$x"}, "badscheme": {"password": "{NOPE}secret"},
	"brace": {"password": "{secret"}, "bracelate": {"password": "x{PLAIN}secret"}, "locked": {"password": "!" + md5crypt},
	"nets": {"password": clear, "allow_nets": "10.0.0.0/8"}, "netsempty": {"password": clear, "allow_nets": ""},
	"netslocal": {"password": clear, "allow_nets": "local,10.0.0.0/8"}, "netsblank": {"password": clear, "allow_nets": "192.0.2.1 , 10.0.0.0/8"},
	"netsbad": {"password": clear, "allow_nets": "foo,10.0.0.0/8"}, "netsv6": {"password": clear, "allow_nets": "::/0"}, "netsv4": {"password": clear, "allow_nets": "0.0.0.0/0"},
	"nologin": {"password": clear, "nologin": "y", "reason": "closed"}, "nologin0": {"password": clear, "nologin": "0"},
	"homenull": {"password": clear, "home": null}, "homeempty": {"home": ""}, "quotanull": {"quota_rule": null}, "quotaempty": {"quota_rule": ""},
	"quota": {"quota_rule": "*:storage=5M", "extra": "a b\tc=d\\e"}, "mail": {"mail": "maildir:~/x"},
	"uid0": {"uid": "0"}, "uidroot": {"uid": "root", "gid": "root"}, "uidnobody": {"uid": "nobody", "gid": "nogroup", "password": clear},
	"uidnosuch": {"uid": "nosuch"}, "uidempty": {"uid": ""}, "gidempty": {"gid": ""}, "uidemptypw": {"uid": "", "password": clear}, "gidemptypw": {"gid": "", "password": clear}, "uidneg": {"uid": "-1"}, "uidjunk": {"uid": "5000x"}, "uidnull": {"uid": null, "gid": null},
	"gidnosuch": {"gid": "nosuch"}, "uidblank": {"uid": " 5000"}, "uidzeros": {"uid": "05000"}, "uidbig": {"uid": "4294967295"},
	"Mixed@Example.COM": {"password": clear}, "o'brien@x.org": {"password": clear}, "al+ice@x.org": {"password": clear}, "álice@x.org": {"password": clear},
	"pw8": {"password": "{PLAIN}p\u00e4\u00df"}, "pwblank": {"password": "{PLAIN} secret "},
}

// typed are names that find somebody's row, or nobody's, in unusual ways.
var typed = []string{"PLAIN", "plain ", "pläin", "alice@x.org", "ÁLICE@x.org", "mixed@example.com", "nobody", "@", "plain\u00ad", "plain@x.org", "%u", "*", "a@b@c"}

// alike are those of typed that are somebody only to the collation. Dovecot makes
// users with a home of their own of them, authd does not.
var alike = map[string]bool{"pläin": true, "alice@x.org": true}

// layouts are files that ask for the rows in different ways.
var layouts = map[string]string{
	"renaming": `default_pass_scheme = SHA512-CRYPT
password_query = SELECT name AS user, password, nopassword, allow_nets, nologin, reason FROM odd WHERE name = '%u'
user_query = SELECT home, uid, gid, mail, quota_rule, extra FROM odd WHERE name = '%u'
iterate_query = SELECT name AS user FROM odd
`,
	"not renaming": `default_pass_scheme = MD5
password_query = SELECT password, nopassword, allow_nets, nologin FROM odd WHERE name = '%u'
user_query = SELECT home, uid, gid, home, name AS user FROM odd WHERE name = '%u'
iterate_query = SELECT name AS user FROM odd
`,
	"prefetching": `default_pass_scheme = PLAIN-MD5
password_query = SELECT name AS username, 'x.org' AS domain, password, nopassword, home AS userdb_home, uid AS userdb_uid, gid AS userdb_gid FROM odd WHERE name = '%u'
user_query = SELECT home, uid, gid FROM odd WHERE name = '%u'
iterate_query = SELECT name AS username, 'x.org' AS domain FROM odd
`,
}

var (
	exitCode = regexp.MustCompile(`\[(\d+)\]$`)
	userLine = regexp.MustCompile(`(?m)^\s*user\s*[=:]\s*(.*)$`)
)

// verdict is what has to be equal of an answer about a password: the exit code and,
// after a success, the user's name.
func verdict(answer string) string {
	code := exitCode.FindString(answer)
	if code == "[0]" {
		if m := userLine.FindStringSubmatch(answer); m != nil {
			code += " " + m[1]
		}
	}
	return code
}

// account is what has to be equal of a user lookup: all fields, or the exit code.
func account(answer string) string {
	if code := exitCode.FindString(answer); code != "[0]" {
		return code
	}
	return answer
}

// newer reports whether Dovecot 2.4 says of user what 2.3, with which authd stays, does
// not: "try again" of a hash that it cannot read, MD5-CRYPT among them, which is refused
// or right; that any password will do where there is one and nopassword; that an empty
// userdb_uid is no fault as long as nobody logs in. And it passes on fields of 2.3, for
// which authd knows the new names.
func newer(user, got, want string) bool {
	_, quota := odd[user]["quota_rule"]
	_, mail := odd[user]["mail"]
	if got == "[75]" && want == "[77]" && (user == "uidempty" || user == "gidempty") {
		return true
	}
	return want == "[75]" && (got == "[77]" || user == "md5bare") || user == "nopasspw" || quota || mail
}

// TestNative asks Dovecot's auth service and authd the same, over the same rows.
func TestNative(t *testing.T) {
	for name, r := range odd {
		insert(t, name, r)
	}
	insert(t, "twice", row{"password": clear, "home": "/two"})
	t.Cleanup(func() { db.Exec("DELETE FROM mail.odd") })
	for name, queries := range layouts {
		t.Run(name, func(t *testing.T) {
			n := native(t, head()+queries, "auth_username_chars =\n")
			o := ours(t, head()+queries, n, "--auth_username_chars=")
			var wait sync.WaitGroup
			slots := make(chan struct{}, 24) // most of them wait
			ask := func(user, what string, equal func(string) string, question func(*side) string) {
				slots <- struct{}{}
				wait.Go(func() {
					defer func() { <-slots }()
					if want, got := equal(question(n)), equal(question(o)); got != want && !(isModern() && newer(user, got, want)) {
						t.Errorf("%s: got %s, Dovecot says %s", what, got, want)
					}
				})
			}
			users := typed
			for user := range odd {
				users = append(users, user)
			}
			for _, user := range users {
				passwords := []string{"secret", "", strings.TrimPrefix(odd[user]["password"], "{PLAIN}")}
				if user == "emptypw" {
					passwords = passwords[:1] // authd takes no empty password for an empty column
				}
				if alike[user] {
					if got, also := verdict(o.auth(user, "secret", "imap")), account(o.user(user)); got != "[77]" || also != "[67]" {
						t.Errorf("%q: got %s and %s, want that he is unknown", user, got, also)
					}
					continue
				}
				for _, password := range passwords {
					ask(user, fmt.Sprintf("%q with %q", user, password), verdict, func(s *side) string { return s.auth(user, password, "imap") })
				}
				ask(user, fmt.Sprintf("user %q", user), account, func(s *side) string { return s.user(user) })
				if !strings.HasPrefix(user, "nets") {
					continue
				}
				for _, rip := range []string{"10.1.2.3", "::ffff:10.1.2.3", "192.0.2.1", "2001:db8::1"} {
					ask(user, user+" from "+rip, verdict, func(s *side) string { return s.auth(user, "secret", "imap", "-x", "rip="+rip) })
				}
			}
			ask("", "all users", account, func(s *side) string { return sorted(s.doveadm("user", "-a", s.userdb, "*")) })
			wait.Wait()
		})
	}
}
