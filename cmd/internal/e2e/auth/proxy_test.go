package auth

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"dovepost/cmd/internal/stack"
)

// imapConf is a Dovecot with IMAP alone.
const imapConf = `protocols = imap
base_dir = %[1]s/run
state_dir = %[1]s
log_path = %[1]s/log
instance_name = %[2]s
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
login_trusted_networks = 127.0.0.0/8
mail_location = maildir:~/Maildir
imap_id_send = name %[2]s
service imap-login {
  inet_listener imap {
    port = %[3]d
  }
  inet_listener imaps {
    port = 0
  }
}
`

// imapConf24 is imapConf for Dovecot 2.4.
const imapConf24 = `dovecot_config_version = %[4]s
dovecot_storage_version = %[4]s
protocols = imap
base_dir = %[1]s/run
state_dir = %[1]s
log_path = %[1]s/log
instance_name = %[2]s
listen = 127.0.0.1
ssl = no
auth_allow_cleartext = yes
login_trusted_networks = 127.0.0.0/8
mail_driver = maildir
mail_path = ~/Maildir
mail_inbox_path = ~/Maildir
imap_id_send {
  name = %[2]s
}
namespace inbox {
  inbox = yes
  separator = .
}
service imap-login {
  inet_listener imap {
    port = %[3]d
  }
  inet_listener imaps {
    port = 0
  }
}
`

// backendConf24 is backendConf for Dovecot 2.4.
const backendConf24 = `passdb static {
  password = secret
}
userdb static {
  fields {
    uid = 5000
    gid = 5000
    home = %[1]s/mail/%%{user}
  }
}
`

// backendConf lets the users of one backend in.
const backendConf = `passdb {
  driver = static
  args = password=secret
}
userdb {
  driver = static
  args = uid=5000 gid=5000 home=%[1]s/mail/%%u
}
`

// frontConf has the logins handed to authd.
var frontConf = stack.NoAuth("imap")

// imapServer is a Dovecot that runs until the test ends, and its directory.
type imapServer struct {
	dir, addr string
	port      int
}

func prepareIMAP(t *testing.T, name, more string) (s *imapServer, start_ func()) {
	t.Helper()
	port := freePorts(t, 1)[0]
	s = &imapServer{dir: directory(t), addr: address(port), port: port}
	for _, sub := range []string{"/run/login/dovepost", "/mail"} {
		if err := os.MkdirAll(s.dir+sub, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	os.Chown(s.dir+"/mail", 5000, 5000)
	if strings.Contains(more, "%[1]s") {
		more = fmt.Sprintf(more, s.dir)
	}
	conf := fmt.Sprintf(imapConf, s.dir, name, s.port)
	if isModern() {
		conf = fmt.Sprintf(imapConf24, s.dir, name, s.port, dovecotVersion())
	}
	write(t, s.dir+"/dovecot.conf", conf+more, 0o644)
	return s, func() {
		start(t, s.dir+"/log", "dovecot", "-F", "-c", s.dir+"/dovecot.conf")
		appearTCP(t, s.addr, s.dir+"/log")
	}
}

// backendsFile is the example of contrib with the server of the tests, whose Dovecots
// have ports of their own and no TLS.
func backendsFile(t *testing.T, home string) string {
	text, err := os.ReadFile("../../../../contrib/dovecot/dovecot-sql-backends.conf.ext")
	if err != nil {
		t.Fatal(err)
	}
	s := string(text)
	for from, to := range map[string]string{
		"driver = mysql\nconnect = host=127.0.0.1 dbname=mail user=dovepost-auth password=change-me\n": head(),
		"host, IF(host IS NULL, NULL, 'yes') AS `ssl`":                                                 "host, port",
		"'/home/vmail/%d/%n'": "'" + home + "/mail/%u'",
	} {
		if strings.Count(s, from) != 1 {
			t.Fatalf("the example has no %q", from)
		}
		s = strings.Replace(s, from, to, 1)
	}
	return s
}

// TestProxy: one Dovecot with authd passes the logins of its users on to the two servers
// that have their mail, as the rows say, and serves those whose mail it has itself.
func TestProxy(t *testing.T) {
	backend := backendConf
	if isModern() {
		backend = backendConf24
	}
	one, startOne := prepareIMAP(t, "one", backend)
	two, startTwo := prepareIMAP(t, "two", backend)
	front, startFront := prepareIMAP(t, "front", frontConf)
	startOne()
	startTwo()

	if err := db.Exec(fmt.Sprintf(`USE mail;
DROP TABLE IF EXISTS users;
CREATE TABLE users (email VARCHAR(100) NOT NULL PRIMARY KEY, password VARCHAR(100) DEFAULT '{PLAIN}secret', quota BIGINT DEFAULT 0, host VARCHAR(64) DEFAULT '127.0.0.1', port INT);
INSERT INTO users (email, port) VALUES ('ann@x.org', %d), ('bob@x.org', %d), ('own@x.org', %d), ('lost@x.org', 1);
INSERT INTO users (email, host) VALUES ('here@x.org', NULL);`, one.port, two.port, front.port)); err != nil {
		t.Fatal(err)
	}
	ours(t, backendsFile(t, front.dir), nil, "--auth_guard=no", "--listen=master:unix:"+front.dir+"/run/auth-master,mode=0600",
		"--listen=login:unix:"+front.dir+"/run/login/dovepost/login,mode=0600,owner=dovenull")
	startFront()

	for _, tt := range []struct{ user, password, want, server string }{
		{"ann@x.org", "secret", "OK ", "one"}, {"Bob@X.org", "secret", "OK ", "two"}, {"own@x.org", "secret", "OK ", "front"}, {"here@x.org", "secret", "OK ", "front"},
		{"ann@x.org", "wrong", "NO [AUTHENTICATIONFAILED]", ""}, {"lost@x.org", "secret", "NO [UNAVAILABLE]", ""},
	} {
		c, err := dialRaw(front.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		answer, err := c.command("LOGIN " + tt.user + " " + tt.password)
		if err != nil || !strings.HasPrefix(answer[len(answer)-1], tt.want) {
			log, _ := os.ReadFile(front.dir + "/log")
			t.Errorf("%s with %s: %q, %v; want %q\n%s", tt.user, tt.password, answer, err, tt.want, log)
			continue
		}
		if tt.server == "" {
			continue
		}
		answer, err = c.command("ID NIL")
		if want := `* ID ("name" "` + tt.server + `")`; err != nil || answer[0] != want {
			t.Errorf("%s is served by %q, %v; want %q", tt.user, answer, err, want)
		}
		answer, err = c.command("CREATE here")
		if err != nil || !strings.HasPrefix(answer[0], "OK ") {
			t.Errorf("%s: %q, %v", tt.user, answer, err)
		}
		home := map[string]*imapServer{"one": one, "two": two, "front": front}[tt.server].dir + "/mail/" + strings.ToLower(tt.user)
		if _, err := os.Stat(home + "/Maildir/.here"); err != nil {
			t.Errorf("%s: the mail is elsewhere: %v", tt.user, err)
		}
	}
}
