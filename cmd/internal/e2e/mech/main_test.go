// Package mech has real clients use every SASL mechanism through Dovecot's login
// processes and Postfix's smtpd, and compares with Dovecot's own auth service.
package mech

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
)

// lab is what the tests share: the mail server with authd, and its twin with
// Dovecot's own auth service.
var lab struct {
	dir          string       // files that both read
	ours, native *stack.Stack // native is nil with Dovecot 2.4
	modern       bool         // Dovecot 2.4, whose imap-login can bind channels
	clients      *clients
	issuer       *issuer
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if err := start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		stop()
		return 1
	}
	defer stop()
	return m.Run()
}

const (
	// mechanisms are all that Dovecot 2.3 has, too.
	mechanisms = "plain login cram-md5 digest-md5 scram-sha-1 scram-sha-256 apop external anonymous xoauth2 oauthbearer"

	// binding are for those who can do it: neither Dovecot 2.3 nor Postfix.
	binding = "scram-sha-1-plus scram-sha-256-plus "
)

func start() (err error) {
	if lab.dir, err = os.MkdirTemp("", "mech"); err != nil {
		return err
	}
	if err := os.Chmod(lab.dir, 0o755); err != nil {
		return err
	}
	if lab.clients, err = newClients(lab.dir); err != nil {
		return err
	}
	if lab.issuer, err = newIssuer(lab.dir); err != nil {
		return err
	}
	version, err := exec.Command("dovecot", "--version").Output()
	if err != nil {
		return err
	}
	lab.modern = !strings.HasPrefix(string(version), "2.3.")
	o := stack.Options{Domains: []string{"example.net"}, Users: []stack.User{{Email: "hash@example.net", Password: "secret"}},
		MainCF:      []string{"smtpd_sasl_security_options = noanonymous"},
		DovecotConf: []string{"auth_ssl_username_from_cert = yes", "ssl_ca = <" + lab.clients.ca, "ssl_verify_client_cert = yes", "ssl_require_crl = no"},
		DaemonArgs: map[string][]string{"authd": {"--auth_mechanisms=" + binding + mechanisms, "--auth_failure_delay=0", "--auth_guard=no", "--auth_verbose=yes",
			"--auth_ssl_username_from_cert=yes", "--auth_anonymous_username=anonymous@example.net", "--oauth2=" + lab.issuer.file}}}
	if lab.modern {
		o.DovecotConf = []string{"auth_ssl_username_from_cert = yes", "ssl_server_ca_file = " + lab.clients.ca, "ssl_server_request_client_cert = yes", "ssl_server_require_crl = no"}
	}
	if lab.ours, err = stack.Start(o); err != nil {
		return err
	}
	if !lab.modern {
		o.Flavour = stack.Native
		// The passdbs are asked in this order; those of the SQL file come first.
		o.DovecotConf = append(o.DovecotConf, "auth_mechanisms = "+mechanisms, "auth_failure_delay = 0", "auth_anonymous_username = anonymous@example.net",
			"service anvil {", "  unix_listener anvil-auth-penalty {", "    mode = 0", "  }", "}",
			"passdb {", "  driver = oauth2", "  mechanisms = xoauth2 oauthbearer", "  args = "+lab.issuer.file, "}",
			"passdb {", "  driver = static", "  mechanisms = external", "  args = nopassword=y", "}")
		if lab.native, err = stack.Start(o); err != nil {
			return err
		}
	}
	rows, err := passwords()
	if err != nil {
		return err
	}
	for _, s := range stacks() {
		if err := s.DB.Exec("USE maildb;" + rows); err != nil {
			return err
		}
	}
	return nil
}

// stacks are ours and, where it runs, the one to compare with.
func stacks() (all []*stack.Stack) {
	for _, s := range []*stack.Stack{lab.ours, lab.native} {
		if s != nil {
			all = append(all, s)
		}
	}
	return all
}

// passwords are rows of users who all have the password "secret", each stored in
// the scheme that names him, as doveadm makes it.
func passwords() (string, error) {
	rows := "INSERT INTO users (email, password) VALUES ('clear@example.net', '{PLAIN}secret'), ('locked@example.net', '!');"
	for user, scheme := range map[string]string{"cram": "CRAM-MD5", "digest": "DIGEST-MD5", "scram1": "SCRAM-SHA-1", "scram256": "SCRAM-SHA-256"} {
		name := user + "@example.net"
		out, err := exec.Command("doveadm", "pw", "-s", scheme, "-u", name, "-p", "secret").Output()
		if err != nil {
			return "", fmt.Errorf("doveadm pw -s %s: %w", scheme, err)
		}
		rows += fmt.Sprintf("INSERT INTO users (email, password) VALUES (%s, %s);", stack.Quote(name), stack.Quote(strings.TrimSpace(string(out))))
	}
	return rows, nil
}

func stop() {
	for _, s := range stacks() {
		if err := s.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	if lab.issuer != nil {
		lab.issuer.server.Close()
	}
	os.RemoveAll(lab.dir)
}

// logs says where to look when something has failed.
func logs(t *testing.T) {
	t.Helper()
	if !t.Failed() {
		return
	}
	for _, path := range []string{filepath.Join(lab.ours.Dir, "dovepost", "authd.log"), filepath.Join(lab.ours.Dir, "dovecot", "dovecot.log")} {
		text, _ := os.ReadFile(path)
		t.Logf("%s:\n%s", path, text[max(0, len(text)-6000):])
	}
}

const patience = 30 * time.Second
