package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"dovepost/cmd/internal/stack"
)

// bench is MariaDB with the tables of contrib, policyd, postfwd, and a Postfix with two smtpds.
type bench struct {
	rounds, messages int
	rules            string

	dir     string
	db      *stack.MariaDB
	bare    *mailServer // takes everything, and throws it away
	site    *mailServer // looks domains, mailboxes and aliases up with lookupd, and throws away what it takes
	postfwd *postfwd
}

func (b *bench) policySocket() string { return b.bare.socket("policy") }

// mailServer is a Postfix with two smtpds, of which the second one asks a policyd.
type mailServer struct {
	dir     string
	daemons []*stack.Daemon
	postfix *stack.Postfix
}

func (m *mailServer) socket(name string) string {
	return filepath.Join(m.dir, "postfix/spool/dovepost", name)
}

// mainCF is what both have, with the contrib of policyd.
const mainCF = `myhostname = mail.example.com
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_restriction_classes = policyd
policyd = check_policy_service { unix:dovepost/policy, timeout=10s, default_action=DUNNO }
smtpd_client_connection_count_limit = 0
`

const bareCF = mainCF + `mydestination = example.com
local_recipient_maps =
local_transport = discard:
`

const siteCF = mainCF + `mydestination =
virtual_mailbox_domains = socketmap:unix:dovepost/lookup:virtual_mailbox_domains
virtual_mailbox_maps = socketmap:unix:dovepost/lookup:virtual_mailbox_maps
virtual_alias_maps = socketmap:unix:dovepost/lookup:virtual_alias_maps
virtual_alias_domains =
virtual_transport = discard:
`

// asking are the settings of the smtpd that asks. Nobody can log in there, so check_sasl_access is left out, as contrib's
// main.cf says: smtpd would log a warning about it for each message.
var asking = []string{"smtpd_recipient_restrictions = policyd",
	"smtpd_end_of_data_restrictions = check_sender_access inline:{ { <> = policyd } }"}

func (b *bench) setUp() (err error) {
	if b.dir, err = os.MkdirTemp("", "bench-policy-"); err != nil {
		return err
	}
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	bin := filepath.Join(b.dir, "bin")
	if out, err := exec.Command("go", "build", "-o", bin+"/", "dovepost/cmd/policyd", "dovepost/cmd/lookupd").CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	if b.db, err = stack.StartMariaDB(b.dir); err != nil {
		return err
	}
	if err := b.fill(); err != nil {
		return err
	}
	mysql := "--mysql=" + filepath.Join(b.dir, "mysql.cf")
	files, err := b.writeFiles()
	if err != nil {
		return err
	}
	b.bare, b.site = &mailServer{dir: filepath.Join(b.dir, "bare")}, &mailServer{dir: filepath.Join(b.dir, "site")}
	for m, main := range map[*mailServer]string{b.bare: bareCF, b.site: siteCF} {
		if err := os.Mkdir(m.dir, 0o755); err != nil {
			return err
		}
		if m.postfix, err = stack.StartPostfix(m.dir, main, nil, asking); err != nil {
			return err
		}
		if err := m.start(bin, "policyd", "policy", "policy", append(files, mysql)...); err != nil {
			return err
		}
	}
	if err := b.site.start(bin, "lookupd", "socketmap", "lookup", mysql); err != nil {
		return err
	}
	b.postfwd, err = startPostfwd(b.dir)
	return err
}

// start starts one of the daemons, with a socket of that name.
func (m *mailServer) start(bin, daemon, kind, name string, args ...string) error {
	d, err := stack.StartDaemon(filepath.Join(bin, daemon), m.dir, kind, m.socket(name), args...)
	if err != nil {
		return err
	}
	m.daemons = append(m.daemons, d)
	return nil
}

func (m *mailServer) stop() (err error) {
	if m == nil {
		return nil
	}
	for _, d := range m.daemons {
		err = errors.Join(err, d.Stop())
	}
	if m.postfix != nil {
		err = errors.Join(err, m.postfix.Stop())
	}
	return err
}

// writeFiles writes what the daemons read, and returns what policyd is told beside --mysql.
func (b *bench) writeFiles() ([]string, error) {
	mysql, access := filepath.Join(b.dir, "mysql.cf"), filepath.Join(b.dir, "access")
	err := errors.Join(
		os.WriteFile(mysql, []byte("hosts = unix:"+b.db.Socket()+"\nuser = dovepost_policyd\npassword = change-me-policyd\ndbname = maildb\n"), 0o600),
		os.WriteFile(access, []byte("client 192.0.2.0/24 REJECT no mail from this network\nsender bad.example REJECT no mail from this domain\n"), 0o600))
	return []string{"--access=" + access, "--rules=" + b.rules, "--rate_limits=1000000 messages/1h"}, err
}

// fill makes the tables, the users, and networks that have passed greylisting.
func (b *bench) fill() error {
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("go env: %w", err)
	}
	contrib := filepath.Join(filepath.Dir(strings.TrimSpace(string(mod))), "contrib/mysql")
	var sql bytes.Buffer
	for _, name := range []string{"schema.sql", "grants.sql", "policy.sql"} {
		text, err := os.ReadFile(filepath.Join(contrib, name))
		if err != nil {
			return err
		}
		sql.Write(text)
	}
	sql.WriteString("INSERT INTO domains (domain) VALUES ('example.com');\n")
	for n := range people {
		fmt.Fprintf(&sql, "INSERT INTO users (email, password, quota) VALUES ('%s', 'x', 1048576);\n", user(n))
		fmt.Fprintf(&sql, "INSERT INTO greylist_networks (network, passes, expires) VALUES ('198.51.%d.0/24', 5, UNIX_TIMESTAMP() + 86400 * 35);\n", n)
	}
	return b.db.Exec(sql.String())
}

func (b *bench) tearDown() (err error) {
	if b.postfwd != nil {
		err = b.postfwd.stop()
	}
	err = errors.Join(err, b.bare.stop(), b.site.stop())
	if b.db != nil {
		err = errors.Join(err, b.db.Stop())
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}

// postfwd is Debian's, with the part of the question that it can answer.
type postfwd struct {
	addr string
	cmd  *exec.Cmd
	pipe io.Closer
}

const postfwdRules = `id=A1; client_address=192.0.2.0/24; action=REJECT no mail from this network
id=A2; sender_domain=bad.example; action=REJECT no mail from this domain
id=R1; protocol_state==END-OF-MESSAGE; sasl_username=~.+; action=rate(sasl_username/1000000/3600/450 4.7.1 sending limit reached)
`

func startPostfwd(dir string) (*postfwd, error) {
	rules := filepath.Join(dir, "postfwd.cf")
	if err := os.WriteFile(rules, []byte(postfwdRules), 0o644); err != nil {
		return nil, err
	}
	addr, port, err := freePort()
	if err != nil {
		return nil, err
	}
	_, cache, err := freePort()
	if err != nil {
		return nil, err
	}
	// As Debian starts it, with its cache of requests; but it logs no rule that hits, asks no DNS, and has
	// a process for each connection from the start.
	// It puts itself into the background; a shell ends it when this process closes the pipe, or dies.
	pidfile := filepath.Join(dir, "postfwd.pid")
	p := &postfwd{addr: addr, cmd: exec.Command("sh", "-c", `"$@"; read closed; kill "$(cat "$PIDFILE")"`, "sh",
		"postfwd", "--file", rules, "--interface", "127.0.0.1", "--port", port, "--cache_port", cache,
		"--user", "postfw", "--group", "postfw", "--pidfile", pidfile, "--summary=0", "--cache=600",
		"--cache-rdomain-only", "--cache-no-size", "--norulelog", "--nodns",
		"--min_servers="+strconv.Itoa(clients+4), "--max_servers="+strconv.Itoa(2*clients+8), "--min_spare_servers=4", "--max_spare_servers="+strconv.Itoa(clients+8))}
	p.cmd.Env = append(os.Environ(), "PIDFILE="+pidfile)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt is not for the shell
	if p.pipe, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			return p, c.Close()
		}
		if time.Now().After(deadline) {
			return p, fmt.Errorf("postfwd: %w", err)
		}
	}
}

func freePort() (addr, port string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	addr = l.Addr().String()
	_, port, err = net.SplitHostPort(addr)
	return addr, port, errors.Join(err, l.Close())
}

// stop ends postfwd and its children.
func (p *postfwd) stop() error {
	p.pipe.Close()
	return p.cmd.Wait()
}
