package sqldb

import (
	"fmt"
	"strings"
	"testing"

	"dovepost/auth"
)

const modernHead = "sql_driver = mysql\nmysql 127.0.0.1 {\n  user = u\n  password = p\n  dbname = d\n  port = 3307\n}\n"

// a file handles the inline form of Dovecot 2.4.
func TestReadModern(t *testing.T) {
	f, err := writeAndRead(t, `dovecot_config_version = 2.4.1
mail_home = /x/%{user}   # not ours
`+modernHead+`mysql /run/mysqld.sock {
  user = u
  password = p
  dbname = d
  port = 3307
}
passdb static {
  password = x
}
passdb sql {
  default_password_scheme = ARGON2ID
  query = SELECT username AS user, password FROM mailbox \
    WHERE username = '%{user}' AND '%{protocol}' <> ''
}
userdb sql {
  query = SELECT '/v/%{user | domain}/%{user | username}' AS home FROM m WHERE u = '%{user}'
  iterate_query = SELECT u AS user FROM m
  fields {
    uid = 5000
    gid:default = %{user | length}
  }
}
`)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%s|%s|%s|%s|%s", f.PasswordQuery, f.UserQuery, f.IterateQuery, f.DefaultPassScheme, f.Config())
	want := "SELECT username AS user, password FROM mailbox WHERE username = '%{user}' AND '%{protocol}' <> ''|" +
		"SELECT '/v/%{user | domain}/%{user | username}' AS home FROM m WHERE u = '%{user}'|SELECT u AS user FROM m|ARGON2ID|"
	if !strings.HasPrefix(got, want) || !strings.Contains(got, "3307") || !strings.Contains(got, "mysqld.sock") {
		t.Errorf("got %s, want %s", got, want)
	}
	db, err := Open(f, nil)
	if err != nil {
		t.Fatal(err)
	}
	values, err := db.user.values(&auth.Request{User: "o'b@x", Service: "imap"})
	if err != nil {
		t.Fatal(err)
	}
	if _, args, err := db.user.template.Expand(values); err != nil || fmt.Sprint(args) != "[/v/x/o'b o'b@x]" {
		t.Errorf("arguments %v, %v", args, err)
	}
	u := newAccount(&auth.Request{User: "alice@a"})
	u.set("gid", "7")
	u.static(db.fields)
	if user, err := u.user(); err != nil || user.UID != "5000" || user.GID != "7" {
		t.Errorf("fields: %+v, %v", user, err)
	}
}

func TestReadModernRefuses(t *testing.T) {
	for _, text := range []string{
		"sql_driver = mysql\n", "sql_driver = pgsql\n" + strings.TrimPrefix(modernHead, "sql_driver = mysql\n"), modernHead + "passdb sql {\n",
		modernHead + "}\n", modernHead + "mysql other {\n user = v\n}\n", modernHead + "passdb sql {\n query = a\n query = b\n}\n",
		"sql_driver = mysql\nmysql h {\n option_file = x\n}\n", modernHead + "userdb sql {\n fields {\n  home = %{nonsense}\n }\n}\n",
		"sql_driver = mysql\n" + strings.Repeat("a b {\n", 20) + strings.Repeat("}\n", 20),
	} {
		if f, err := writeAndRead(t, text); err == nil {
			t.Errorf("%q is taken: %+v", text, f)
		} else if strings.Contains(err.Error(), "password = p") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// names of 2.4's settings become those of 2.3.
func TestInOldTerms(t *testing.T) {
	for _, tt := range []struct{ row, want string }{
		{"home=/h quota_storage_size=1024M", "[home=/h quota_rule=*:bytes=1024M]"},
		{"quota_storage_size=1G quota_message_count=10 x=y", "[x=y quota_rule=*:bytes=1G:messages=10]"},
		{"mail_driver=maildir mail_path=~/Maildir mail_inbox_path=/i home=/h", "[home=/h mail=maildir:~/Maildir:INBOX=/i]"},
		{"mail_path=/x", "[mail=maildir:/x]"},
		{"uid=1 quota_rule=*:storage=1", "[uid=1 quota_rule=*:storage=1]"},
	} {
		var row auth.Fields
		for _, column := range strings.Split(tt.row, " ") {
			name, value, _ := strings.Cut(column, "=")
			row = setField(row, name, value)
		}
		if got := fmt.Sprint(fields(inOldTerms(row))); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.row, got, tt.want)
		}
	}
}
