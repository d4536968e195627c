package sqldb

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"dovepost/auth"
	"dovepost/auth/expand"
)

// a row handles what Dovecot's passdb fields mean. Columns are "name=value", or
// "name" for NULL.
func TestCredentials(t *testing.T) {
	for _, tt := range []struct{ name, row, want string }{
		{"a hash without scheme", "password=$6$x", "alice@a {DEF}$6$x [] []"},
		{"a hash with scheme", "password={SSHA}x", "alice@a {SSHA}x [] []"},
		{"a clear password that starts with a brace", "password={x", "alice@a {DEF}{x [] []"},
		{"password_noscheme", "password_noscheme={SSHA}x", "alice@a {DEF}{SSHA}x [] []"},
		{"an empty password", "password=", "alice@a {DEF} [] []"},
		{"user", "user=Bob@b password=x", "Bob@b {DEF}x [] []"},
		{"username and domain", "username=bob domain=b password=x", "bob@b {DEF}x [] []"},
		{"username with domain", "username=bob@c password=x", "bob@c {DEF}x [] []"},
		{"username alone", "username=bob password=x", "bob@a {DEF}x [] []"},
		{"extra fields in order", "nologin=Y password=x reason=no allow_nets=10.0.0.0/8", "alice@a {DEF}x [nologin=Y reason=no allow_nets=10.0.0.0/8] []"},
		{"NULL fields", "password=x proxy host nologin userdb_home", "alice@a {DEF}x [] []"},
		{"proxy", "password nopassword=Y proxy=Y host=10.0.0.1", "alice@a nopassword [proxy=Y host=10.0.0.1] []"},
		{"nopassword", "password nopassword=Y", "alice@a nopassword [] []"},
		{"nopassword before the password", "nopassword=Y password", "alice@a nopassword [] []"},
		{"nopassword and an empty password", "password= nopassword=Y", "alice@a nopassword [] []"},
		{"nopassword and a password", "password={PLAIN}x nopassword=Y", "alice@a {PLAIN}x [] []"},
		{"nopassword and then a password", "nopassword=Y password={PLAIN}x", "alice@a {PLAIN}x [] []"},
		{"prefetch", "password=x userdb_home=/h userdb_uid=5 userdb_quota_rule=*:storage=1", "alice@a {DEF}x [] [home=/h uid=5 quota_rule=*:storage=1]"},
		{"prefetch of empty ids", "password=x userdb_uid= userdb_gid= userdb_home=/h", "alice@a {DEF}x [] [home=/h]"},
		{"old forms in prefetch", "password=x userdb_mail=Maildir userdb_quota_rule=dirsize:storage=1", "alice@a {DEF}x [] [mail=maildir:~/Maildir quota_rule=*:storage=1]"},
		{"protected", "password=x host=a host:protected=b port:protected=c", "alice@a {DEF}x [host=a port=c] []"},
		{"remove", "password=x host=a port=b host:remove=", "alice@a {DEF}x [port=b] []"},
		{"import", "password=x passdb_import=host=a\tport=b userdb_userdb_import=home=/h\tx", "alice@a {DEF}x [host=a port=b] [home=/h x=]"},
		{"the same field twice", "password=x host=a port=b host=c", "alice@a {DEF}x [host=c port=b] []"},
		{"no password column", "user=alice@a", "error"},
		{"NULL password", "password", "refused"},
		{"two passwords", "password=x password_noscheme=y", "error"},
		{"an empty user", "user= password=x", "error"},
		{"noauthenticate", "password=x noauthenticate=Y", "error"},
		{"noauthenticate of a row without a password", "password noauthenticate=Y", "error"},
		{"noauthenticate by import", "password passdb_import=noauthenticate=Y", "error"},
		{"fail", "password=x fail=Y", "refused"},
		{"tempfail", "password=x userdb_tempfail=Y", "error"},
	} {
		p := newPass(&auth.Request{User: "alice@a"}, "DEF")
		for _, column := range strings.Split(tt.row, " ") {
			if name, value, ok := strings.Cut(column, "="); ok {
				p.set(name, value)
			} else if name == "password" {
				p.asked = true
			}
		}
		c, err := p.credentials()
		var got string
		switch {
		case err == nil:
			password := c.Password
			if c.NoPassword {
				password += "nopassword"
			}
			got = fmt.Sprint(c.User, " ", password, " ", fields(c.Fields), " ", fields(c.Userdb))
		case auth.Refused(err):
			got = "refused"
		default:
			got = "error"
		}
		if got != tt.want {
			t.Errorf("it handles %s: got %s, %v; want %s", tt.name, got, err, tt.want)
		}
	}
}

func fields(f auth.Fields) []string {
	var texts []string
	for _, field := range f {
		texts = append(texts, field.Name+"="+field.Value)
	}
	return texts
}

// a row handles what Dovecot's userdb fields mean.
func TestUser(t *testing.T) {
	for _, tt := range []struct{ name, row, want string }{
		{"the seed's forms", "home=/home/vmail/a/alice mail=Maildir uid=5000 gid=5000 quota_rule=dirsize:storage=1024",
			"alice@a /home/vmail/a/alice maildir:~/Maildir 5000 5000 [quota_rule=*:storage=1024]"},
		{"other mail locations", "mail=maildir:/x:LAYOUT=fs", "alice@a  maildir:/x:LAYOUT=fs   []"},
		{"an absolute path", "mail=/x/Maildir", "alice@a  /x/Maildir   []"},
		{"a path in the home", "mail=~/Maildir", "alice@a  ~/Maildir   []"},
		{"an empty mail", "mail=", "alice@a     []"},
		{"several rules", "quota_rule=*:bytes=1 quota_rule2=dirsize:storage=2 quota_rule3=Trash:storage=+3M", "alice@a     [quota_rule=*:bytes=1 quota_rule2=*:storage=2 quota_rule3=Trash:storage=+3M]"},
		{"a new name", "user=b@c uid=vmail", "b@c   vmail  []"},
		{"import", "userdb_import=uid=1\tx=2 system_user=u", "alice@a   1  [x=2 system_groups_user=u]"},
		{"tempfail", "home=/x tempfail=", "error"},
		{"an empty name", "user=", "error"},
		{"an empty uid", "uid= gid=5000", "error"},
		{"uidgid_file", "uidgid_file=/x", "error"},
	} {
		u := newAccount(&auth.Request{User: "alice@a"})
		for _, column := range strings.Split(tt.row, " ") {
			name, value, _ := strings.Cut(column, "=")
			u.set(name, value)
		}
		user, err := u.user()
		got := "error"
		if err == nil {
			got = fmt.Sprint(user.Name, " ", user.Home, " ", user.Mail, " ", user.UID, " ", user.GID, " ", fields(user.Fields))
		}
		if got != tt.want {
			t.Errorf("it handles %s: got %s, %v; want %s", tt.name, got, err, tt.want)
		}
	}
}

// a home directory made of a name never leaves its place.
func TestPath(t *testing.T) {
	p, err := expand.Parse("/home/vmail/%d/%n", expand.Scan)
	if err != nil {
		t.Fatal(err)
	}
	for user, want := range map[string]string{"alice@example.com": "/home/vmail/example.com/alice", "a.b@c": "/home/vmail/c/a.b", "...@c": "/home/vmail/c/...",
		"..@example.com": "", "alice@..": "", "alice": "", "@example.com": "", ".@c": "", "a/../../b@c": "", "a@b/c": "", "a\x00@b": ""} {
		got, err := expandPath(p, &auth.Request{User: user})
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v; want %q", user, got, err, want)
		}
	}
}

// names that a collation could take for another are unknown without asking.
func TestControlCharacters(t *testing.T) {
	db, err := Seed(nil, SeedOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"", "alice\x00@example.com", "alice\n@example.com", "\x7f"} {
		if _, err := db.LookupUser(t.Context(), &auth.Request{User: user}); !errors.Is(err, auth.ErrUnknownUser) {
			t.Errorf("%q: got %v", user, err)
		}
		if _, err := db.LookupPass(t.Context(), &auth.Request{User: user}); !errors.Is(err, auth.ErrUnknownUser) {
			t.Errorf("%q: got %v", user, err)
		}
	}
}
