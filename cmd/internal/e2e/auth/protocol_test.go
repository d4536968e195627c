package auth

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
)

// wireSchema is a table with a column for each field that the protocol treats in a
// way of its own. NULL is a field that is not there.
const wireSchema = `
USE mail;
CREATE TABLE wire (name VARCHAR(100) NOT NULL PRIMARY KEY, renamed VARCHAR(100), password VARCHAR(100) DEFAULT '{PLAIN}secret',
	home VARCHAR(100) DEFAULT '/vmail/x', uid VARCHAR(20) DEFAULT '5000', quota VARCHAR(100), %s);
`

// wireFields are passdb fields, and columns of the table.
var wireFields = []string{"allow_nets", "nologin", "reason", "proxy", "proxy_maybe", "host", "hostip", "port", "destuser", "pass", "master", "proxy_timeout", "ssl",
	"starttls", "nodelay", "original_user", "user_alt", "forward_a", "postlogin_socket", "anonymous", "delay_until"}

func wireQueries() string {
	return fmt.Sprintf(`default_pass_scheme = PLAIN
password_query = SELECT IFNULL(renamed, name) AS user, password, %s FROM wire WHERE name = '%%u'
user_query = SELECT home, uid, '5000' AS gid, quota AS quota_rule FROM wire WHERE name = '%%u'
iterate_query = SELECT name AS user FROM wire
`, columns(wireFields, ""))
}

// columns is a list of columns, each with something behind it.
func columns(names []string, more string) string {
	var all []string
	for _, name := range names {
		all = append(all, "`"+name+"`"+more)
	}
	return strings.Join(all, ", ")
}

// wireUsers are the rows, by name.
var wireUsers = map[string]row{
	"alice@x.org": {"quota": "*:storage=5M"}, "renamed@x.org": {"renamed": "alice@x.org"}, "blank@x.org": {"renamed": "Al Ice"},
	"nets@x.org": {"allow_nets": "127.0.0.0/8"}, "local@x.org": {"allow_nets": "local"},
	"nologin@x.org": {"nologin": "y", "reason": "closed, come\tback"}, "nologin0@x.org": {"nologin": "0"},
	"proxy@x.org":     {"proxy": "y", "host": "127.0.0.9", "port": "1143", "destuser": "d", "proxy_timeout": "5", "ssl": "any-cert", "starttls": "y"},
	"proxyself@x.org": {"proxy": "y", "host": "127.0.0.1", "port": "1143"}, "nohost@x.org": {"proxy": "y"},
	"name@x.org": {"proxy": "y", "host": "localhost"}, "hostip@x.org": {"proxy": "y", "host": "nowhere.invalid", "hostip": "127.0.0.9"},
	"master@x.org": {"proxy": "y", "host": "127.0.0.9", "pass": "other", "master": "m"},
	"maybe@x.org":  {"proxy_maybe": "y", "host": "127.0.0.1", "port": "1143"}, "maybeuser@x.org": {"proxy_maybe": "y", "host": "127.0.0.1", "destuser": "maybeuser@x.org"},
	"maybeother@x.org": {"proxy_maybe": "y", "host": "127.0.0.1", "destuser": "other"}, "maybehost@x.org": {"proxy_maybe": "y", "host": "localhost"}, "maybenohost@x.org": {"proxy_maybe": "y"},
	"referral@x.org": {"host": "127.0.0.9"}, "nodelay@x.org": {"nodelay": "y"}, "original@x.org": {"original_user": "whoever"}, "kick@x.org": {"user_alt": "b", "forward_a": "mine"},
	"post@x.org": {"postlogin_socket": "/x"}, "chroot@x.org": {"home": "/srv/x/./user"}, "relative@x.org": {"home": "vmail/x"}, "nohome@x.org": {"home": null},
}

// hello is the client's part of the handshake.
const hello = "VERSION\t1\t2\nCPID\t4711\n"

// silences are how long a server says nothing more: where one has said less than the other they
// are asked again, and have more time.
var silences = []time.Duration{1200 * time.Millisecond, 6 * time.Second}

// same asks both servers, and returns their answers.
func same(ask func(s *side, quiet time.Duration) []string, n, o *side) (got, want []string) {
	for _, quiet := range silences {
		other := make(chan struct{})
		go func() { defer close(other); want = ask(n, quiet) }()
		got = ask(o, quiet)
		<-other
		if len(got) == len(want) {
			break
		}
	}
	return got, want
}

// atATime is how many questions are open. The auth process of 2.4 does not bear as many
// as that of 2.3.
func atATime() int {
	if isModern() {
		return 16
	}
	return 100
}

// heard says text at a socket and returns what comes back, without the handshake and
// in one order: the answers to different requests have none. "closed" is the end. Behind
// the first AUTH each word waits for the answer to the one before.
func heard(t *testing.T, socket, text string, quiet time.Duration) (lines []string) {
	c, err := dialUnix(socket)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer c.Close()
	c.SetWriteDeadline(time.Now().Add(time.Minute))
	r := bufio.NewReader(c)
	hear := func() bool { // the next line; false: there is none
		for wait := 3 * quiet; ; wait = quiet { // at first the server may be starting
			c.SetReadDeadline(time.Now().Add(wait))
			line, err := r.ReadString('\n')
			if nerr, ok := err.(net.Error); ok && nerr.Timeout() {
				return false
			}
			if err != nil {
				if !slices.Contains(lines, "closed") {
					lines = append(lines, "closed")
				}
				return false
			}
			word, _, _ := strings.Cut(line, "\t")
			if !slices.Contains([]string{"VERSION", "MECH", "SPID", "CUID", "COOKIE", "DONE\n"}, word) {
				lines = append(lines, normal(line))
				return true
			}
		}
	}
	var said strings.Builder
	begun := false
	for line := range strings.Lines(text) {
		word, _, _ := strings.Cut(line, "\t")
		if begun && slices.Contains([]string{"AUTH", "CONT", "CANCEL"}, word) {
			io.WriteString(c, said.String())
			said.Reset()
			hear()
		}
		begun = begun || word == "AUTH"
		said.WriteString(line)
	}
	io.WriteString(c, said.String()) // an error: the server has closed it, and the lines say so
	for hear() {
	}
	slices.Sort(lines)
	return lines
}

// normal is a line with its parameters in one order; without the empty ones, an
// original_user that is no other, and what Dovecot says of a failure to nobody's use.
func normal(line string) string {
	fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
	if len(fields) < 2 {
		return line
	}
	user := slices.IndexFunc(fields, func(f string) bool { return strings.HasPrefix(f, "user=") })
	params := slices.DeleteFunc(slices.Clone(fields[2:]), func(f string) bool {
		name, value, _ := strings.Cut(f, "=")
		return f == "" || name == "hostip" && !strings.Contains(line, "\thost=") || (name == "user" || name == "original_user") && value == "" || user > 0 && f == "original_"+fields[user] ||
			fields[0] == "FAIL" && (strings.HasPrefix(name, "forward_") || value == "temporary failure, see the log of authd")
	})
	for i, f := range params {
		switch name, value, _ := strings.Cut(f, "="); {
		case name == "proxy" || name == "nologin":
			params[i] = name // 2.4 says proxy=yes
		case fields[0] == "OK" && strings.Trim(f, "0123456789") == "" && value == "":
			params[i] = "entries" // CACHE-FLUSH: authd has a cache
		}
	}
	slices.Sort(params)
	return strings.Join(append(fields[:2], params...), " ")
}

// sameProtocol starts Dovecot's auth service and authd over the rows of wireUsers,
// with one token secret.
func sameProtocol(t *testing.T) (theirs, ours_ *side) {
	if err := db.Exec("DROP TABLE IF EXISTS mail.wire;" + fmt.Sprintf(wireSchema, columns(wireFields, " VARCHAR(100)"))); err != nil {
		t.Fatal(err)
	}
	if isModern() {
		delete(wireUsers, "original@x.org") // such a column ends its auth process
	}
	for name, r := range wireUsers {
		names, values := []string{"name"}, []string{stack.Quote(name)}
		for column, value := range r {
			names = append(names, column)
			if value == null {
				values = append(values, "NULL")
			} else {
				values = append(values, stack.Quote(value))
			}
		}
		if err := db.Exec(fmt.Sprintf("INSERT INTO mail.wire (%s) VALUES (%s);", columns(names, ""), strings.Join(values, ","))); err != nil {
			t.Fatal(err)
		}
	}
	n := native(t, head()+wireQueries(), "")
	greet(t, n.client, hello) // its secret is there when it answers
	secret := n.base + "/auth-token-secret.dat"
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if info, err := os.Stat(secret); err == nil && info.Size() == 32 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("Dovecot makes no token secret")
		}
	}
	return n, ours(t, head()+wireQueries(), n, "--auth_token_secret="+secret, "--auth_guard=no")
}

// not24 are the words that Dovecot 2.4 takes in another way than 2.3. authd stays with
// 2.3: nobody says them but to break something.
var not24 = map[string]bool{"CPID with more": true, "an escaped NUL in the service": true, "an escaped TAB in it": true, "VERSION with more": true,
	"CANCEL with more": true, "a short cookie": true, "LIST without parameters": true, "LIST with id 0": true}

// TestSameWords says the same to Dovecot's auth service and to authd, right and
// wrong: the answers have to be the same.
func TestSameWords(t *testing.T) {
	n, o := sameProtocol(t)
	var wait sync.WaitGroup
	slots := make(chan struct{}, atATime()) // most of them wait
	check := func(name string, ask func(*side, time.Duration) []string) {
		if word, _, _ := strings.Cut(name[strings.LastIndex(name, ": ")+1:], ", minor"); isModern() && not24[strings.TrimSpace(word)] {
			return
		}
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			if got, want := same(ask, n, o); !slices.Equal(got, want) {
				t.Errorf("it handles %s:\nauthd   %q\nDovecot %q", name, got, want)
			}
		})
	}
	for _, v := range violations() {
		for _, minor := range []string{"2", "0"} {
			text := v.text
			if minor == "0" && (isModern() || !strings.HasPrefix(text, hello)) {
				continue
			}
			text = strings.Replace(text, "VERSION\t1\t2", "VERSION\t1\t"+minor, 1)
			check(v.name+", minor "+minor, func(s *side, quiet time.Duration) []string { return heard(t, s.client, text, quiet) })
		}
	}
	for _, v := range masterViolations() {
		check("USER and its kin: "+v.name, func(s *side, quiet time.Duration) []string { return heard(t, s.userdb, v.text, quiet) })
		check("REQUEST and its kin: "+v.name, func(s *side, quiet time.Duration) []string { return heard(t, s.base+"/auth-master", v.text, quiet) })
	}
	wait.Wait()
}

// TestSameFields logs all users in at both servers, takes the logins over, and looks
// the users up: login process and session have to learn the same.
func TestSameFields(t *testing.T) {
	n, o := sameProtocol(t)
	type question struct{ name, params, resp string }
	forward := "forward_fields=a=b\x01te=x\x011ty"
	if !isModern() { // where a value that is empty makes another field of it
		forward += "\x01tc=\x01td"
	}
	var wait sync.WaitGroup
	var pid atomic.Int32
	slots := make(chan struct{}, atATime())
	for user := range wireUsers {
		b64 := func(user, password string) string {
			return base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
		}
		for _, q := range []question{
			{"a login", "service=imap\tsession=S1\tlip=127.0.0.1\tlport=1143\trip=127.0.0.1", b64(strings.ToUpper(user), "secret")},
			{"a login at another port", "service=imap\tlip=127.0.0.1\tlport=143\trip=127.0.0.1\t" + forward, b64(user, "secret")},
			{"a login through a proxy", "service=pop3\tsecured=tls\tlip=10.0.0.9\tlport=110\trip=10.0.0.1\treal_lip=127.0.0.1\treal_lport=1143\treal_rip=127.0.0.1", b64(user, "secret")},
			{"another one", "service=pop3\tlip=10.0.0.9\tlport=1143\trip=10.0.0.1\treal_lip=127.0.0.1\treal_lport=110\treal_rip=127.0.0.1", b64(user, "secret")},
			{"a wrong password", "service=imap\trip=127.0.0.1", b64(user, "wrong")},
		} {
			slots <- struct{}{}
			wait.Go(func() {
				defer func() { <-slots }()
				cpid := int(pid.Add(1))
				got, want := same(func(s *side, quiet time.Duration) []string { return s.handOver(t, cpid, q.params, q.resp, quiet) }, n, o)
				if !slices.Equal(got, want) {
					t.Errorf("%s: it handles %s:\nauthd   %q\nDovecot %q", user, q.name, got, want)
				}
			})
		}
	}
	for user := range wireUsers {
		for _, text := range []string{
			"PASS\t1\t" + user + "\tservice=doveadm\n", "PASS\t1\t" + strings.ToUpper(user) + "\tservice=lmtp\trip=10.0.0.1\tlip=127.0.0.1\tlport=1143\t" + forward + "\n",
			"USER\t1\t" + user + "\tservice=lmtp\tlip=127.0.0.1\tlport=24\n",
		} {
			slots <- struct{}{}
			wait.Go(func() {
				defer func() { <-slots }()
				got, want := same(func(s *side, quiet time.Duration) []string { return heard(t, s.userdb, "VERSION\t1\t1\n"+text, quiet) }, n, o)
				if !slices.Equal(got, want) {
					t.Errorf("it handles %q:\nauthd   %q\nDovecot %q", text, got, want)
				}
			})
		}
	}
	wait.Wait()
}

// handOver logs in at the login socket and takes the login over, as imap does.
func (s *side) handOver(t *testing.T, cpid int, params, resp string, quiet time.Duration) (lines []string) {
	c, err := dialUnix(s.base + "/auth-login")
	if err != nil {
		t.Error(err)
		return nil
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(c, "VERSION\t1\t2\nCPID\t%d\nAUTH\t1\tPLAIN\t%s\tresp=%s\n", cpid, params, resp)
	cookie := ""
	for r := bufio.NewReader(c); len(lines) == 0; {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Error(err)
			return nil
		}
		if rest, ok := strings.CutPrefix(line, "COOKIE\t"); ok {
			cookie = strings.TrimSpace(rest)
		}
		if strings.HasPrefix(line, "OK\t") || strings.HasPrefix(line, "FAIL\t") {
			lines = append(lines, normal(line))
		}
	}
	return append(lines, heard(t, s.base+"/auth-master", fmt.Sprintf("VERSION\t1\t1\nREQUEST\t9\t%d\t1\t%s\tsession_pid=%d\trequest_auth_token\n", cpid, cookie, os.Getpid()), quiet)...)
}
