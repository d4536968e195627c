package mech

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// owner is whose password a mechanism with a stored secret of its own uses.
var owner = map[string]string{"CRAM-MD5": "cram", "SCRAM-SHA-1": "scram1", "SCRAM-SHA-256": "scram256"}

// served says which client knows which mechanism in which protocol. curl has no
// SCRAM in Debian, and gsasl no POP3: TestScript has those.
var served = []struct {
	client     string
	protocols  string
	mechanisms string
}{
	{"curl", "imap pop3 smtp", "PLAIN LOGIN CRAM-MD5"},
	{"curl", "pop3", "APOP"},
	{"gsasl", "imap smtp", "PLAIN LOGIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256"},
}

// both runs the logins through authd and, where it is to be compared, through
// Dovecot's own auth service.
func both(t *testing.T, tries map[login]bool, compare bool) {
	t.Helper()
	slots := make(chan struct{}, 4)
	var wait sync.WaitGroup
	for l, want := range tries {
		for _, s := range stacks() {
			if s == lab.native && !compare {
				continue
			}
			slots <- struct{}{}
			wait.Go(func() {
				defer func() { <-slots }()
				if ok, said := lab.clients.try(s, l); ok != want || strings.HasPrefix(said, errHangs) {
					t.Errorf("%s: %v: %t, want %t\n%s", s.Flavour, l, ok, want, said)
				}
			})
		}
	}
	wait.Wait()
	logs(t)
}

// TestPasswords: each client with each mechanism that it has.
func TestPasswords(t *testing.T) {
	tries := map[login]bool{}
	for _, k := range served {
		for _, protocol := range strings.Fields(k.protocols) {
			for _, mech := range strings.Fields(k.mechanisms) {
				l := login{client: k.client, protocol: protocol, mech: mech, user: "clear@example.net", password: "secret"}
				tries[l] = true
				wrong := l
				wrong.password = "Secret"
				tries[wrong] = false
				unknown := l
				unknown.user = "nobody@example.net"
				tries[unknown] = false
				if user, ok := owner[mech]; ok {
					stored := l
					stored.user = user + "@example.net"
					tries[stored] = true
					hash := l
					hash.user = "hash@example.net"
					tries[hash] = false
				}
			}
		}
	}
	both(t, tries, true)
}

// TestDigest: what is hashed is name and realm as the client has them, so the whole
// address can only be compared with a clear password, which Dovecot does not do.
func TestDigest(t *testing.T) {
	tries, alone := map[login]bool{}, map[login]bool{}
	for _, protocol := range []string{"imap", "smtp"} {
		for user, want := range map[string]bool{"clear": true, "digest": true, "hash": false, "nobody": false} {
			l := login{client: "gsasl", protocol: protocol, mech: "DIGEST-MD5", user: user, realm: "example.net", password: "secret"}
			tries[l] = want
			l.password = "Secret"
			tries[l] = false
			l.realm = "example.org"
			tries[l] = false
		}
	}
	for _, protocol := range []string{"imap", "pop3", "smtp"} {
		for user, want := range map[string]bool{"clear": true, "digest": false, "hash": false, "nobody": false} {
			l := login{client: "curl", protocol: protocol, mech: "DIGEST-MD5", user: user + "@example.net", password: "secret"}
			alone[l] = want
			l.password = "Secret"
			alone[l] = false
		}
	}
	both(t, tries, true)
	both(t, alone, false)
}

// TestCertificates: EXTERNAL, with a certificate that the server trusts.
func TestCertificates(t *testing.T) {
	tries := map[login]bool{}
	for _, protocol := range []string{"imap", "pop3"} {
		l := login{client: "curl", protocol: protocol, mech: "EXTERNAL", user: "clear@example.net", cert: "clear"}
		tries[l] = true
		l.user = "hash@example.net" // authzid of another
		tries[l] = false
		l.user, l.cert = "nobody@example.net", "nobody"
		tries[l] = false
		l.user, l.cert = "clear@example.net", "foreign"
		tries[l] = false
		l.cert = ""
		tries[l] = false
		// The certificate's name overrides the one that is typed; the password has to be his.
		tries[login{client: "curl", protocol: protocol, mech: "PLAIN", user: "hash@example.net", password: "secret", cert: "clear"}] = true
		tries[login{client: "curl", protocol: protocol, mech: "PLAIN", user: "clear@example.net", password: "secret", cert: "nobody"}] = false
	}
	both(t, tries, true)
}

// TestTokens: XOAUTH2 and OAUTHBEARER by introspection, then by local validation.
func TestTokens(t *testing.T) {
	tries := map[login]bool{}
	add := func(good, bad []string) {
		clear(tries)
		for _, protocol := range []string{"imap", "pop3", "smtp"} {
			for _, mech := range []string{"XOAUTH2", "OAUTHBEARER"} {
				l := login{client: "curl", protocol: protocol, mech: mech, user: "locked@example.net"}
				for _, l.password = range good {
					tries[l] = true
				}
				for _, l.password = range bad {
					tries[l] = false
				}
			}
		}
	}
	add([]string{"good-locked@example.net", "good-Locked@Example.NET"}, []string{"good-hash@example.net", "narrow-locked@example.net", "over-locked@example.net", "what"})
	both(t, tries, true)
	// Dovecot lets in whom only the token knows; here the user has to exist.
	both(t, map[login]bool{{client: "curl", protocol: "imap", mech: "XOAUTH2", user: "nobody@example.net", password: "good-nobody@example.net"}: false}, false)

	lab.issuer.away.Store(true)
	_, said := lab.clients.try(lab.ours, login{client: "curl", protocol: "imap", mech: "XOAUTH2", user: "locked@example.net", password: "good-locked@example.net"})
	if !strings.Contains(said, "[UNAVAILABLE]") {
		t.Errorf("a server that is away: %s", said)
	}
	_, said = lab.clients.try(lab.ours, login{client: "curl", protocol: "smtp", mech: "XOAUTH2", user: "locked@example.net", password: "good-locked@example.net"})
	if !strings.Contains(said, "454 4.7.0") {
		t.Errorf("a server that is away: %s", said)
	}
	lab.issuer.away.Store(false)

	if err := lab.issuer.write("introspection_mode = local\nlocal_validation_key_dict = fs:posix:prefix=" + lab.issuer.keys + "/\n"); err != nil {
		t.Fatal(err)
	}
	if err := lab.ours.RestartDaemon("authd"); err != nil {
		t.Fatal(err)
	}
	if lab.native != nil {
		if _, err := lab.native.Doveadm("reload"); err != nil {
			t.Fatal(err)
		}
		if err := lab.native.PostfixReload(); err != nil { // its smtpd would stay with the old auth process
			t.Fatal(err)
		}
	}
	good := lab.issuer.sign("locked@example.net", time.Hour)
	for _, protocol := range []string{"imap", "pop3", "smtp"} { // Dovecot and Postfix reload in their own time
		ok := lab.native == nil
		for end := time.Now().Add(time.Minute); !ok && time.Now().Before(end); {
			ok, _ = lab.clients.try(lab.native, login{client: "curl", protocol: protocol, mech: "XOAUTH2", user: "locked@example.net", password: good})
		}
	}
	add([]string{good}, []string{lab.issuer.sign("hash@example.net", time.Hour), lab.issuer.sign("locked@example.net", -time.Minute), good[:len(good)-4] + "AAAA"})
	both(t, tries, true)
}

// TestLists: what the servers offer over TLS is the same, and channel binding is
// offered to whoever can do it.
func TestLists(t *testing.T) {
	for _, protocol := range []string{"imap", "pop3", "smtp"} {
		var lists []string
		for _, s := range stacks() {
			c := dial(t, s, protocol)
			list := c.capabilities(t)
			c.close()
			if !slices.Contains(list, "SCRAM-SHA-256") || slices.Contains(list, "APOP") {
				t.Errorf("%s, %s offers %s", protocol, s.Flavour, list)
			}
			if got, want := slices.Contains(list, "SCRAM-SHA-256-PLUS"), lab.modern && protocol != "smtp"; got != want {
				t.Errorf("%s offers channel binding: %t, want %t: %s", protocol, got, want, list)
			}
			lists = append(lists, strings.Join(list, " "))
		}
		if lists[0] != lists[len(lists)-1] {
			t.Errorf("%s offers %s, Dovecot %s", protocol, lists[0], lists[1])
		}
	}
}

// TestBinding: a client that binds the channel logs in where the login process can do
// it, and does not where it cannot. One that could, and is made to believe that the
// server cannot, is told that it has been betrayed.
func TestBinding(t *testing.T) {
	for _, mech := range []string{"SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS"} {
		for user, right := range map[string]bool{"clear": true, "hash": false, "nobody": false} {
			l := login{client: "gsasl", protocol: "imap", mech: mech, user: user + "@example.net", password: "secret"}
			if ok, said := lab.clients.try(lab.ours, l); ok != (right && lab.modern) {
				t.Errorf("%v: %t\n%s", l, ok, said)
			}
		}
	}
	c := dial(t, lab.ours, "imap")
	defer c.close()
	line := c.authenticate(t, "SCRAM-SHA-256", []string{"=y,,n=clear@example.net,r=x"})
	if refused := strings.Contains(line, "AUTHENTICATIONFAILED"); refused != lab.modern {
		t.Errorf("a downgrade: %s", line)
	}
	logs(t)
}

// TestFailures: the last words are Dovecot's.
func TestFailures(t *testing.T) {
	clearName, wrong := "clear@example.net", "\x00clear@example.net\x00Secret"
	tests := []struct {
		name, mech string
		answers    []string // raw, or as base64 where they begin with =
	}{
		{"a wrong password", "PLAIN", []string{"=" + wrong}},
		{"a cancelled exchange", "PLAIN", []string{"*"}},
		{"bad base64", "PLAIN", []string{"####"}},
		{"nothing", "PLAIN", []string{""}},
		{"bad base64", "CRAM-MD5", []string{"####"}},
		{"a wrong digest", "CRAM-MD5", []string{"=" + clearName + " 00000000000000000000000000000000"}},
		{"no digest", "CRAM-MD5", []string{"=" + clearName}},
		{"a cancelled exchange", "CRAM-MD5", []string{"*"}},
		{"nothing", "DIGEST-MD5", []string{""}},
		{"a wrong nonce", "DIGEST-MD5", []string{`=username="clear@example.net",nonce="x",cnonce="y",nc=00000001,digest-uri="imap/x",response=00000000000000000000000000000000`}},
		{"nothing", "SCRAM-SHA-256", []string{""}},
		{"a broken message", "SCRAM-SHA-256", []string{"=n,,x=y"}},
		{"channel binding", "SCRAM-SHA-256", []string{"=p=tls-unique,,n=clear@example.net,r=x"}},
		{"a wrong final message", "SCRAM-SHA-256", []string{"=n,,n=clear@example.net,r=x", "=c=biws,r=x,p=AAAA"}},
		{"no certificate", "EXTERNAL", []string{""}},
		{"a wrong token", "XOAUTH2", []string{"=user=clear@example.net\x01auth=Bearer what\x01\x01", ""}},
		{"a wrong token", "OAUTHBEARER", []string{"=n,a=clear@example.net,\x01auth=Bearer what\x01\x01", "=\x01"}},
		{"no token", "OAUTHBEARER", []string{"=n,,\x01\x01"}},
		{"anybody", "ANONYMOUS", []string{"=me"}},
		{"a mechanism that is private", "APOP", []string{""}},
		{"an unknown mechanism", "GSSAPI", []string{""}},
	}
	for _, protocol := range []string{"imap", "pop3", "smtp"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			for _, tt := range tests {
				var last []string
				for _, s := range stacks() {
					c := dial(t, s, protocol)
					last = append(last, c.authenticate(t, tt.mech, tt.answers))
					c.close()
				}
				if failure := strings.Fields(last[0] + " -")[0]; failure == "a" && strings.HasPrefix(last[0], "a OK") || failure == "+OK" || failure == "235" {
					t.Errorf("%s, %s: %s", tt.mech, tt.name, last[0])
				}
				if end := last[len(last)-1]; last[0] != end {
					t.Errorf("%s, %s: %s; Dovecot says %s", tt.mech, tt.name, last[0], end)
				}
			}
		})
	}
}

// TestScript: SCRAM over POP3, and with odd names, by a client of our own that
// verifies the server's signature.
func TestScript(t *testing.T) {
	for _, protocol := range []string{"imap", "pop3", "smtp"} {
		for _, mech := range []string{"SCRAM-SHA-1", "SCRAM-SHA-256"} {
			for user, want := range map[string]bool{"clear@example.net": true, owner[mech] + "@example.net": true, "Clear@Example.net": true, "nobody@example.net": false, "hash@example.net": false} {
				c := dial(t, lab.ours, protocol)
				if err := c.scram(t, mech, user, "secret"); (err == nil) != want {
					t.Errorf("%s %s as %s: %v", protocol, mech, user, err)
				}
				c.close()
			}
			c := dial(t, lab.ours, protocol)
			if err := c.scram(t, mech, "clear@example.net", "Secret"); err == nil || !strings.Contains(fmt.Sprint(err), "uthentication failed") {
				t.Errorf("%s %s with a wrong password: %v", protocol, mech, err)
			}
			c.close()
		}
	}
	logs(t)
}
