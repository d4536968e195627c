package auth

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dovepost/cmd/internal/stack"
)

// site is a whole Dovecot with one of the two auth services.
type site struct {
	side
	name              string
	imap, pop3, sieve string // addresses
	smtp              string // of the Postfix that asks it
}

const siteConf = `protocols = imap pop3 lmtp sieve
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
instance_name = auth-site-%[2]s
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
first_valid_uid = 100
mail_location = maildir:~/Maildir
mail_uid = 5000
mail_gid = 5000
mail_plugins = quota
plugin {
  quota = maildir:User quota
}
protocol imap {
  mail_plugins = quota imap_quota
}
` + siteServices

const siteServices = `service imap-login {
  inet_listener imap {
    port = %[3]d
  }
  inet_listener imaps {
    port = 0
  }
  process_min_avail = 1
}
service pop3-login {
  inet_listener pop3 {
    port = %[4]d
  }
  inet_listener pop3s {
    port = 0
  }
}
service managesieve-login {
  inet_listener sieve {
    port = %[5]d
  }
}
service lmtp {
  unix_listener lmtp {
    mode = 0666
  }
}
service stats {
  client_limit = 10000
}
`

// siteConf24 is siteConf for Dovecot 2.4.
const siteConf24 = `dovecot_config_version = %[6]s
dovecot_storage_version = %[6]s
protocols = imap pop3 lmtp sieve
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
instance_name = auth-site-%[2]s
listen = 127.0.0.1
ssl = no
auth_allow_cleartext = yes
first_valid_uid = 100
mail_driver = maildir
mail_path = ~/Maildir
mail_inbox_path = ~/Maildir
mail_uid = 5000
mail_gid = 5000
mail_plugins {
  quota = yes
}
quota "User quota" {
}
protocol imap {
  mail_plugins {
    imap_quota = yes
  }
}
namespace inbox {
  inbox = yes
  separator = .
}
sieve_script personal {
  path = ~/sieve
  active_path = ~/.dovecot.sieve
}
` + siteServices

// siteAuth24 lets Dovecot 2.4 ask the database itself; what asks it comes behind it.
const siteAuth24 = `auth_mechanisms = plain login
auth_failure_delay = 0
auth_verbose = yes
auth_allow_weak_schemes = yes
service auth-worker {
  process_limit = 12
}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
userdb prefetch {
}
service auth {
  inet_listener client {
    type = auth
    listen = 127.0.0.1
    port = %[1]d
  }
}
`

// siteAuth lets Dovecot ask the database itself.
const siteAuth = `auth_mechanisms = plain login
auth_failure_delay = 0
auth_verbose = yes
auth_worker_max_count = 12
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
passdb {
  driver = sql
  args = %[1]s
}
userdb {
  driver = prefetch
}
userdb {
  driver = sql
  args = %[1]s
}
service auth {
  inet_listener client {
    address = 127.0.0.1
    port = %[2]d
  }
}
`

// prepareSite makes the directory and the ports of a site.
func prepareSite(t *testing.T, name string) (s *site, dir, conf string) {
	t.Helper()
	dir = directory(t)
	s = &site{name: name, side: side{conf: dir + "/dovecot.conf", base: dir + "/run", log: dir + "/log"}}
	s.client, s.userdb = s.base+"/auth-client", s.base+"/auth-userdb"
	os.Mkdir(s.base, 0o755)
	ports := freePorts(t, 3)
	s.imap, s.pop3, s.sieve = address(ports[0]), address(ports[1]), address(ports[2])
	if isModern() {
		return s, dir, fmt.Sprintf(siteConf24, dir, name, ports[0], ports[1], ports[2], dovecotVersion())
	}
	return s, dir, fmt.Sprintf(siteConf, dir, name, ports[0], ports[1], ports[2])
}

func startNativeSite(t *testing.T, l *layout, file string, postfix *submission) *site {
	t.Helper()
	s, _, conf := prepareSite(t, "native")
	if isModern() {
		conf += fmt.Sprintf(siteAuth24, postfix.sasl[0]) + l.inline(t, file) + settings24(t, l.settings)
	} else {
		conf += fmt.Sprintf(siteAuth, file, postfix.sasl[0]) + l.settings
	}
	write(t, s.conf, conf, 0o644)
	s.proc = start(t, s.log, "dovecot", "-F", "-c", s.conf)
	appear(t, s.client, s.log)
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(s.log)
			t.Logf("native: %s", lastPart(string(text), 1500))
		}
	})
	return s
}

func startOurSite(t *testing.T, l *layout, file string, postfix *submission) *site {
	t.Helper()
	s, dir, conf := prepareSite(t, "authd")
	if err := os.MkdirAll(s.base+"/login/dovepost", 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/authd.cf", l.settings, 0o600)
	authd := start(t, dir+"/authd.log", filepath.Join(bin, "authd"), "--config="+dir+"/authd.cf", "--sql="+file,
		"--listen=login:unix:"+s.base+"/login/dovepost/login,mode=0666", "--listen=login:unix:"+s.base+"/auth-login",
		"--listen=client:unix:"+s.client, fmt.Sprintf("--listen=client:inet:127.0.0.1:%d", postfix.sasl[1]), "--listen=master:unix:"+s.base+"/auth-master",
		"--listen=userdb:unix:"+s.userdb, "--auth_failure_delay=0", "--auth_verbose", "--auth_guard_allow_nets=127.0.0.0/8")
	appear(t, s.client, dir+"/authd.log")
	write(t, s.conf, conf+stack.NoAuth("imap", "pop3", "managesieve"), 0o644)
	s.proc = start(t, s.log, "dovecot", "-F", "-c", s.conf)
	appear(t, s.base+"/lmtp", s.log)
	t.Cleanup(func() {
		if authd.ProcessState != nil {
			t.Error("authd has died")
		}
		if t.Failed() {
			text, _ := os.ReadFile(dir + "/authd.log")
			t.Logf("authd: %s", lastPart(string(text), 3000))
		}
	})
	return s
}

func lastPart(text string, n int) string { return text[max(0, len(text)-n):] }

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// freePorts finds ports that nobody uses, nor will.
func freePorts(t *testing.T, n int) (ports []int) {
	t.Helper()
	for range n {
		port, err := stack.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, port)
	}
	return ports
}

// submission is a Postfix whose two ports ask the two auth services. It greets nobody
// before they are there, and is therefore started with the first of them.
type submission struct {
	dir  string
	sasl [2]int // ports of the auth services: Dovecot's own, authd
	*stack.Postfix
}

func newSubmission(t *testing.T) *submission {
	ports := freePorts(t, 2)
	p := &submission{dir: directory(t), sasl: [2]int(ports)}
	t.Cleanup(func() {
		if p.Postfix != nil {
			p.Stop()
		}
	})
	return p
}

func (p *submission) start(t *testing.T) {
	t.Helper()
	if p.Postfix != nil {
		return
	}
	var listeners [][]string
	for _, port := range p.sasl {
		listeners = append(listeners, []string{"smtpd_sasl_auth_enable=yes", "smtpd_sasl_type=dovecot", fmt.Sprintf("smtpd_sasl_path=inet:127.0.0.1:%d", port),
			"smtpd_tls_security_level=none", "smtpd_error_sleep_time=0", "max_use=1"})
	}
	var err error
	p.Postfix, err = stack.StartPostfix(p.dir, strings.Join([]string{"myhostname = mail.example.com", "compatibility_level = 3.6",
		"smtpd_sasl_security_options = noanonymous", "smtpd_relay_restrictions = permit_sasl_authenticated, reject", ""}, "\n"), listeners...)
	if err != nil {
		t.Fatal(err)
	}
}
