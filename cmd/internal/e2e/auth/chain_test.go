package auth

import (
	"encoding/base64"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// passwords of the second file, beside those of the first.
const secondQueries = `default_pass_scheme = PLAIN
password_query = SELECT name AS user, extra AS password, nologin, reason FROM %[1]s WHERE name = '%%u' AND extra <> ''
user_query = SELECT '/vmail/second' AS home, uid, gid FROM %[1]s WHERE name = '%%u' AND extra <> ''
iterate_query = SELECT name AS user FROM odd WHERE extra <> ''
`

const firstQueries = `default_pass_scheme = PLAIN
password_query = SELECT name AS user, password, nologin, reason FROM %[1]s WHERE name = '%%u' AND password <> ''
user_query = SELECT '/vmail/first' AS home, uid, gid FROM %[1]s WHERE name = '%%u' AND password <> ''
iterate_query = SELECT name AS user FROM odd WHERE password <> ''
`

// another is a further passdb and userdb of Dovecot's own.
func another(t *testing.T, queries, file string) string {
	if !isModern() {
		return fmt.Sprintf("passdb {\n  driver = sql\n  args = %[1]s\n}\nuserdb {\n  driver = sql\n  args = %[1]s\n}\n", file)
	}
	s := settings23(queries)
	for name, query := range s {
		var err error
		if s[name], err = variables24(query); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf("passdb second {\n  driver = sql\n  sql_query = %s\n}\nuserdb second {\n  driver = sql\n  sql_query = %s\n  sql_iterate_query = %s\n}\n",
		s["password_query"], s["user_query"], s["iterate_query"])
}

// TestChain: of two files authd makes what Dovecot makes of two passdbs and userdbs.
func TestChain(t *testing.T) {
	for user, r := range map[string]row{
		"one": {"password": "secret1"}, "two": {"extra": "secret2"}, "both": {"password": "secret1", "extra": "secret2"},
		"closed": {"password": "secret1", "extra": "secret2", "nologin": "Y", "reason": "closed"},
	} {
		insert(t, user, r)
	}
	t.Cleanup(func() { db.Exec("DELETE FROM mail.odd") })
	for _, broken := range []string{"none", "first", "second"} {
		t.Run(broken+" is broken", func(t *testing.T) {
			tables := map[string]string{"first": "odd", "second": "odd"}
			first, second := fmt.Sprintf(firstQueries, "odd"), fmt.Sprintf(secondQueries, "odd")
			if tables[broken] != "" { // only when it is asked: authd would not start with a table that is not there
				wrong := "(SELECT * FROM odd WHERE uid > (SELECT 1 UNION SELECT 2)) AS o"
				if broken == "first" {
					first = fmt.Sprintf(firstQueries, wrong)
				} else {
					second = fmt.Sprintf(secondQueries, wrong)
				}
			}
			file := directory(t) + "/second.conf"
			write(t, file, head()+second, 0o644)
			n := native(t, head()+first, another(t, second, file))
			o := ours(t, head()+first, n, "--sql="+file)
			var questions, lookups []string
			for _, user := range []string{"one", "two", "both", "closed", "nobody", "BOTH"} {
				for _, password := range []string{"secret1", "secret2", "wrong", ""} {
					questions = append(questions, plainQuestion("imap", user, password, ""))
				}
				lookups = append(lookups, lookupQuestion("USER", "lmtp", user), lookupQuestion("PASS", "lmtp", user))
			}
			want, got := dialWire(t, n.client, true).answers(questions), dialWire(t, o.client, true).answers(questions)
			want = append(want, dialWire(t, n.userdb, false).answers(lookups)...)
			got = append(got, dialWire(t, o.userdb, false).answers(lookups)...)
			accepted := 0
			for i, question := range append(questions, lookups...) {
				if broken != "none" && want[i] == "NOTFOUND " && strings.HasPrefix(got[i], "FAIL") {
					continue // Dovecot forgets that one could not be asked, and mail would bounce
				}
				if reasonless(got[i]) != reasonless(want[i]) && !(strings.HasPrefix(question, "AUTH") && got[i] == want[i]) {
					t.Errorf("%s: got %s, Dovecot says %s", decoded(question), got[i], want[i])
				}
				if word(got[i]) == "OK" {
					accepted++
				}
			}
			if accepted == 0 {
				t.Error("nobody can log in")
			}
			if got, want := sorted(o.doveadm("user", "-a", o.userdb, "*")), sorted(n.doveadm("user", "-a", n.userdb, "*")); got != want {
				t.Errorf("all users: got %s, Dovecot says %s", got, want)
			}
		})
	}
}

// decoded is a question for people.
func decoded(question string) string {
	before, resp, _ := strings.Cut(question, "resp=")
	text, _ := base64.StdEncoding.DecodeString(resp)
	return strings.ReplaceAll(before+strings.ReplaceAll(string(text), "\x00", " "), "\t", " ")
}

// mastersOf has Dovecot's own auth service know the master users of a file. They must want
// to be somebody of the passdb, as with authd.
func mastersOf(file string) string {
	if isModern() {
		return "auth_master_user_separator = *\npassdb masters {\n  driver = passwd-file\n  passwd_file_path = " + file + "\n  master = yes\n  result_success = continue\n}\n"
	}
	return "auth_master_user_separator = *\npassdb {\n  driver = passwd-file\n  args = " + file + "\n  master = yes\n  pass = yes\n}\n"
}

// TestMasters: master users log in as others by "user*master" and by PLAIN's authzid, and
// the session learns who it was.
func TestMasters(t *testing.T) {
	for user, r := range map[string]row{"ann@x.org": {"password": clear}, "closed": {"password": clear, "nologin": "Y", "reason": "closed"}, "nets": {"password": clear, "allow_nets": "10.0.0.0/8"}} {
		insert(t, user, r)
	}
	t.Cleanup(func() { db.Exec("DELETE FROM mail.odd") })
	file := directory(t) + "/masters"
	if err := os.WriteFile(file, []byte("root:{PLAIN}master\nann@x.org:{PLAIN}annmaster\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	n := native(t, head()+layouts["renaming"], "auth_username_chars =\n"+mastersOf(file))
	o := ours(t, head()+layouts["renaming"], n, "--auth_username_chars=", "--auth_master_user_separator=*", "--auth_master_passdb_file="+file)
	question := func(authzid, user, password, more string) string {
		return "AUTH\t%d\tPLAIN\t" + asks("imap") + "\tsecured\tno-penalty" + more + "\tresp=" + base64.StdEncoding.EncodeToString([]byte(authzid+"\x00"+user+"\x00"+password))
	}
	var questions []string
	for _, target := range []string{"ann@x.org", "ANN@X.org", "closed", "nets", "nobody", "root", "", "ann@x.org*root"} {
		for _, master := range []string{"root", "ROOT", "ann@x.org", "nobody", ""} {
			for _, password := range []string{"master", "annmaster", "secret", "wrong", ""} {
				questions = append(questions, question("", target+"*"+master, password, ""), question(target, master, password, ""), question("", target+"*"+master, password, "\trip=10.1.1.1"))
			}
		}
	}
	ask := func(s *side) []string {
		w := dialWire(t, s.base+"/auth-login", true)
		got := w.answers(questions)
		m := dialWire(t, s.base+"/auth-master", false)
		for i, answer := range got {
			if strings.HasPrefix(answer, "OK") && !strings.Contains(answer, "nologin") {
				m.send(fmt.Sprintf("REQUEST\t1\t%d\t%d\t%s\n", w.pid, i+1, w.cookie))
				_, taken := m.answer()
				got[i] += " then " + taken
			}
		}
		var lookups []string
		for _, user := range []string{"ann@x.org*root", "nobody*root", "ann@x.org*nobody", "*root", "ann@x.org*"} {
			lookups = append(lookups, lookupQuestion("USER", "lmtp", user), lookupQuestion("PASS", "lmtp", user))
		}
		return append(got, dialWire(t, s.userdb, false).answers(lookups)...)
	}
	want, got := ask(n), ask(o)
	accepted := 0
	for i := range got {
		what := fmt.Sprintf("lookup %d", i-len(questions))
		if i < len(questions) {
			what = decoded(questions[i])
		}
		if reasonless(got[i]) != reasonless(want[i]) {
			t.Errorf("%s:\n got %s\nwant %s", what, got[i], want[i])
		}
		if strings.Contains(got[i], "master_user=root") {
			accepted++
		}
	}
	if accepted == 0 {
		t.Error("no master user can log in")
	}
	t.Logf("%d comparisons, %d master logins", len(got), accepted)
}

var numberless = regexp.MustCompile(`id=\d+`)

// TestLoginUser: a row that says login_user has its owner log in as somebody else.
func TestLoginUser(t *testing.T) {
	insert(t, "ann", row{"password": clear, "extra": "bob"})
	insert(t, "bob", row{"password": clear, "home": "/vmail/bob"})
	insert(t, "self", row{"password": clear, "extra": "self"})
	insert(t, "lost", row{"password": clear, "extra": "nobody"})
	t.Cleanup(func() { db.Exec("DELETE FROM mail.odd") })
	queries := strings.Replace(layouts["renaming"], "nologin,", "nologin, extra AS login_user,", 1)
	n := native(t, head()+queries, "")
	o := ours(t, head()+queries, n)
	for _, user := range []string{"ann", "ANN", "bob", "self", "lost"} {
		for what, question := range map[string]func(*side) string{
			"login": func(s *side) string {
				return sorted(s.doveadm("auth", "login", "-a", s.base+"/auth-login", "-m", s.base+"/auth-master", user, "secret"))
			},
			"wrong password": func(s *side) string { return sorted(s.auth(user, "wrong", "imap")) },
			"lookup":         func(s *side) string { return account(sorted(s.doveadm("auth", "lookup", "-a", s.userdb, user))) },
		} {
			if got, want := numberless.ReplaceAllString(question(o), "id"), numberless.ReplaceAllString(question(n), "id"); got != want {
				t.Errorf("%s of %s:\n got %s\nwant %s", what, user, got, want)
			}
		}
	}
}
