package auth

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestExampleConf has Dovecot run on the dovecot.conf of contrib for its version, in a directory of
// its own and without TLS: logins and lookups go to authd, and no auth process starts.
func TestExampleConf(t *testing.T) {
	file, quota := "dovecot-2.3.conf", "*:storage=5M"
	if isModern() {
		file, quota = "dovecot-2.4.conf", "5242880B"
	}
	text, err := os.ReadFile("../../../../contrib/dovecot/" + file)
	if err != nil {
		t.Fatal(err)
	}
	site, startSite := prepareIMAP(t, "site", "")
	conf := regexp.MustCompile(`(?m)^ssl_(server_)?(cert|key)(_file)? = .*$`).ReplaceAllString(string(text), "")
	for from, to := range map[string]string{
		"ssl = required": "ssl = no",
		"/var/spool/postfix/private/dovecot-lmtp":   site.dir + "/run/lmtp-back",
		"log_path = /var/log/dovecot.log":           "log_path = " + site.dir + "/log",
		"info_log_path = /var/log/dovecot-info.log": "",
	} {
		if !strings.Contains(conf, from) {
			t.Fatalf("the example has no %q", from)
		}
		conf = strings.ReplaceAll(conf, from, to)
	}
	lab, err := os.ReadFile(site.dir + "/dovecot.conf")
	if err != nil {
		t.Fatal(err)
	}
	own := "service pop3-login {\n  inet_listener pop3 {\n    port = 0\n  }\n  inet_listener pop3s {\n    port = 0\n  }\n}\n"
	write(t, site.dir+"/dovecot.conf", conf+regexp.MustCompile(`(?m)^(protocols|dovecot_.*_version) = .*$`).ReplaceAllString(string(lab), "")+own, 0o644)

	insert(t, "ann@x.org", row{"password": clear, "home": site.dir + "/mail/ann", "quota_rule": "*:storage=5M"})
	t.Cleanup(func() { db.Exec("DELETE FROM mail.odd") })
	run := site.dir + "/run"
	ours(t, head()+layouts["renaming"], nil, "--auth_guard=no", "--listen=master:unix:"+run+"/auth-master,mode=0600", "--listen=userdb:unix:"+run+"/auth-userdb,mode=0666",
		"--listen=client:unix:"+run+"/auth-client,mode=0600", "--listen=login:unix:"+run+"/login/dovepost/login,mode=0600,owner=dovenull")
	startSite()

	c, err := dialRaw(site.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, tt := range []struct{ command, want string }{{"LOGIN ann@x.org secret", "OK "}, {"GETQUOTAROOT INBOX", "(STORAGE 0 5120)"}} {
		if answer, err := c.command(tt.command); err != nil || !strings.Contains(strings.Join(answer, "\n"), tt.want) {
			log, _ := os.ReadFile(site.dir + "/log")
			t.Fatalf("%s: %q, %v; want %q\n%s", tt.command, answer, err, tt.want, log)
		}
	}
	s := &side{conf: site.dir + "/dovecot.conf", client: run + "/auth-client", userdb: run + "/auth-userdb"}
	if got := s.doveadm("auth", "test", "ann@x.org", "secret"); !strings.Contains(got, "auth succeeded") {
		t.Errorf("doveadm auth test: %s", got)
	}
	if got := s.doveadm("user", "ann@x.org"); !strings.Contains(got, quota) {
		t.Errorf("doveadm user: %s", got)
	}
	if got := s.doveadm("process", "status"); strings.Contains(got, "\nauth") {
		t.Errorf("an auth process runs: %s", got)
	}
}
