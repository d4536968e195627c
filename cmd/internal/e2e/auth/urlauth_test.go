package auth

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"dovepost/cmd/internal/stack"
)

// urlauthConf has the tokens of imap sessions checked by authd.
const urlauthConf = `imap_urlauth_host = x.org
mail_attribute_dict = file:%h/dovecot-attributes
service imap-urlauth-login {
  executable = imap-urlauth-login dovepost/tokenlogin
}
`

// urlauthConf24 is urlauthConf for Dovecot 2.4.
const urlauthConf24 = `imap_urlauth_host = x.org
mail_attribute {
  dict file {
    path = %{home}/dovecot-attributes
  }
}
service imap-urlauth-login {
  executable = imap-urlauth-login dovepost/tokenlogin
}
`

// TestURLAuth: bob reads a message of ann with a URL that she has made for him. His imap
// process shows imap-urlauth the token that it got when it took his login over.
func TestURLAuth(t *testing.T) {
	conf := frontConf + urlauthConf
	if isModern() {
		conf = frontConf + urlauthConf24
	}
	front, startFront := prepareIMAP(t, "front", conf)
	if err := db.Exec("DROP TABLE IF EXISTS mail.wire;" + fmt.Sprintf(wireSchema, columns(wireFields, " VARCHAR(100)"))); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"ann@x.org", "bob@x.org"} {
		if err := db.Exec(fmt.Sprintf("INSERT INTO mail.wire (name, home) VALUES (%s, %s);", stack.Quote(user), stack.Quote(front.dir+"/mail/"+user))); err != nil {
			t.Fatal(err)
		}
	}
	run := front.dir + "/run"
	if err := os.MkdirAll(run+"/token-login/dovepost", 0o755); err != nil {
		t.Fatal(err)
	}
	ours(t, head()+wireQueries(), nil, "--auth_guard=no", "--listen=master:unix:"+run+"/auth-master,mode=0600", "--listen=userdb:unix:"+run+"/auth-userdb,mode=0666",
		"--listen=login:unix:"+run+"/login/dovepost/login,mode=0600,owner=dovenull", "--listen=token-login:unix:"+run+"/token-login/dovepost/tokenlogin,mode=0600,owner=dovenull")
	startFront()

	command := func(c *rawIMAP, command, want string) string {
		t.Helper()
		answer, err := c.command(command)
		text := strings.Join(answer, "\n")
		if err != nil || !strings.Contains(text, want) {
			log, _ := os.ReadFile(front.dir + "/log")
			t.Fatalf("%s: %q, %v; want %q\n%s", command, text, err, want, log)
		}
		return text
	}
	connect := func(user string) *rawIMAP {
		t.Helper()
		c, err := dialRaw(front.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		command(c, "LOGIN "+user+" secret", "OK ")
		return c
	}
	ann := connect("ann@x.org")
	command(ann, "APPEND INBOX {11+}\r\nA: b\r\n\r\nhey", "OK ")
	made := command(ann, `GENURLAUTH "imap://ann%40x.org@x.org/INBOX/;uid=1;urlauth=user+bob%40x.org" INTERNAL`, "GENURLAUTH")
	url := regexp.MustCompile(`"(imap:[^"]*)"`).FindStringSubmatch(made)
	if url == nil {
		t.Fatalf("no URL in %q", made)
	}
	bob := connect("bob@x.org")
	command(bob, `URLFETCH "`+url[1]+`"`, "hey")
}
