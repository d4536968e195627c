package policy

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// login opens a session that has logged in through authd.
func (s *mailsite) login(name, password string) *session {
	s.t.Helper()
	c := s.dial(0)
	c.want("235", c.ask("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+name+"\x00"+password))))
	return c
}

// logins lets smtpd log users in by authd.
func (s *mailsite) logins() {
	s.t.Helper()
	s.daemon("authd", "client", filepath.Join(s.Spool(), "dovepost/auth"), "--sql="+s.sql, "--auth_username_chars=")
	run(s.t, "/usr/sbin/postconf", "-c", s.ConfigDir(), "-e", "smtpd_sasl_auth_enable=yes", "smtpd_sasl_type=dovecot",
		"smtpd_sasl_path=dovepost/auth", "smtpd_sasl_security_options=noanonymous")
	must(s.t, s.PostfixReload())
	waitFor(s.t, func() bool {
		c := s.dial(0)
		defer c.Close()
		return strings.Contains(c.ask("EHLO client.test"), "AUTH")
	})
}

// TestSenderBelongsToTheLogin sends as many addresses with real logins, on the tables of several layouts: the
// logins, senders, and whether they may.
func TestSenderBelongsToTheLogin(t *testing.T) {
	type row struct {
		login, sender string
		may           bool
	}
	all := []row{
		{"alice@example.com", "alice@example.com", true},
		{"Alice@Example.COM", "alice@example.com", true},
		{"alice@example.com", "ALICE@example.com", true},
		{"alice@example.com", "alice+shop@example.com", true},
		{"alice@example.com", "", true},
		{"alice@example.com", "postmaster@example.com", true},
		{"alice@example.com", "postmaster+x@example.com", true},
		{"alice@example.com", "team@example.com", true},
		{"alice@example.com", "alice@alias.example", true},
		{"alice@example.com", "team@alias.example", true},
		{"alice@example.com", "bob@example.com", false},
		{"alice@example.com", "bob@alias.example", false},
		{"alice@example.com", "bob+alice@example.com", false},
		{"alice@example.com", "carol@example.net", false},
		{"alice@example.com", "sales@example.net", false},
		{"alice@example.com", "anybody@example.net", false},
		{"alice@example.com", "nosuchuser@example.com", false},
		{"alice@example.com", "boss@elsewhere.example", false},
		{"alice@example.com", "o'brien@example.com", false},
		{"alice@example.com", "alice@example.com.elsewhere.example", false},
		{"alice@example.com", "x' OR '1'='1@example.com", false},
		{"alice@example.com", "alice", false},
		{"o'brien@example.com", "o'brien@example.com", true},
		{"o'brien@example.com", "o'brien+x@alias.example", true},
		{"o'brien@example.com", "alice@example.com", false},
		{"carol@example.net", "sales@example.net", true},
		{"carol@example.net", "anybody@example.net", true},
		{"carol@example.net", "alice@example.net", true}, // there is no such user: it is hers, by the catch-all
		{"carol@example.net", "alice@example.com", false},
	}
	aliases := []row{
		{"alice@example.com", "chain1@example.com", true},
		{"alice@example.com", "levels@example.com", true},
		{"carol@example.net", "levels@example.com", true},
		{"carol@example.net", "chain1@example.com", false},
		{"o'brien@example.com", "mixed@alias.example", true},
		{"alice@example.com", "circle1@example.com", true}, // sender_on_error
	}
	// Where smtpd_sender_login_maps is a list of mailboxes that is searched for the base, too, Postfix lets alice.
	whole := append(aliases[:len(aliases):len(aliases)],
		row{"alice@example.com", "alice+vip@example.com", false}, row{"alice@example.com", "Alice+VIP@example.com", false},
		row{"alice@example.com", "alice+vips@example.com", true}, row{"carol@example.net", "alice+vip@example.com", true})
	for layout, tt := range map[string]struct {
		sql  string
		more []row
	}{
		"seed":         {moreSQL("", ""), whole},
		"postfixadmin": {moreSQL(", domain", ", 'example.com'"), aliases},
		"vimbadmin":    {moreSQL(", Domain_id", ", 1"), aliases},
		"modoboa": {"", []row{
			{"alice@example.com", "ceo@remote.example", true},
			{"alice@example.com", "cfo@remote.example", false},
			{"carol@example.net", "anybody@partner.example", true},
			{"alice@example.com", "anybody@partner.example", false},
		}},
	} {
		if layout == "vimbadmin" && os.Getenv("DOVEPOST_LONG") == "" {
			continue
		}
		t.Run(layout, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			db.exec(`INSERT INTO sender_grants (address, login) VALUES ('info@example.com', 'alice@example.com'), ('@granted.example', 'o''brien@example.com'), ('*@starred.example', 'Alice@example.com')`)
			s := newMailsite(t, layout, tt.sql, "", "--rules=sender", "--sender_grants", "--mysql="+db.file(server.Addr()), "--sender_local=REJECT log in first", "--sender_local_exempt=")
			s.logins()
			passwords := map[string]string{"alice@example.com": "alice-secret", "o'brien@example.com": "obrien-secret", "carol@example.net": "carol-secret"}
			sessions := map[string]*session{}
			rows := append(append([]row{
				{"alice@example.com", "info@example.com", true},
				{"o'brien@example.com", "info@example.com", false},
				{"o'brien@example.com", "anybody@granted.example", true},
				{"alice@example.com", "anybody@granted.example", false},
				{"alice@example.com", "Anybody+x@Starred.example", true},
				{"alice@example.com", "anybody@sub.starred.example", false},
			}, all...), tt.more...)
			for _, r := range rows {
				c := sessions[r.login]
				if c == nil {
					c = s.login(r.login, passwords[strings.ToLower(r.login)])
					sessions[r.login] = c
				}
				want := "250 "
				if !r.may {
					want = "553 5.7.1 <you@abroad.example>: Recipient address rejected: <" + r.sender + ">: Sender address rejected: not owned by user " + r.login
				}
				from := r.sender
				if strings.Contains(from, " ") {
					from = `"` + strings.Replace(from, "@", `"@`, 1)
				}
				if got := c.rcpt(from, "you@abroad.example"); !strings.HasPrefix(got, want) {
					t.Errorf("%s sends as %s: %s; want %s", r.login, r.sender, got, want)
				}
			}
			for sender, want := range map[string]string{
				"alice@example.com": "554 5.7.1 <you@abroad.example>: Recipient address rejected: log in first", "nosuchuser@example.net": "554 ",
				"boss@elsewhere.example": "250 ", "": "250 ",
			} {
				c := s.dial(0)
				if got := c.rcpt(sender, "you@abroad.example"); !strings.HasPrefix(got, want) {
					t.Errorf("without a login as %s: %s; want %s", sender, got, want)
				}
			}
		})
	}
}
