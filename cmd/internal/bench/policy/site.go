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
	policyd *stack.Daemon
	postfix *stack.Postfix
	postfwd *postfwd
}

func (b *bench) policySocket() string { return filepath.Join(b.dir, "postfix/spool/dovepost/policy") }

// mainCF throws away what it accepts.
const mainCF = `myhostname = mail.example.com
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mydestination = example.com
local_recipient_maps =
local_transport = discard:
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_restriction_classes = policyd
policyd = check_policy_service { unix:dovepost/policy, timeout=10s, default_action=DUNNO }
smtpd_client_connection_count_limit = 0
`

func (b *bench) setUp() (err error) {
	if b.dir, err = os.MkdirTemp("", "bench-policy-"); err != nil {
		return err
	}
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	bin := filepath.Join(b.dir, "policyd")
	if out, err := exec.Command("go", "build", "-o", bin, "dovepost/cmd/policyd").CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	if b.db, err = stack.StartMariaDB(b.dir); err != nil {
		return err
	}
	if err := b.fill(); err != nil {
		return err
	}
	if b.postfix, err = stack.StartPostfix(b.dir, mainCF, nil,
		[]string{"smtpd_recipient_restrictions = policyd",
			"smtpd_end_of_data_restrictions = check_sasl_access static:policyd, check_sender_access inline:{ { <> = policyd } }"}); err != nil {
		return err
	}
	files, err := b.writeFiles()
	if err != nil {
		return err
	}
	if b.policyd, err = stack.StartDaemon(bin, b.dir, "policy", b.policySocket(), files...); err != nil {
		return err
	}
	b.postfwd, err = startPostfwd(b.dir)
	return err
}

// writeFiles writes what policyd reads, and returns its arguments.
func (b *bench) writeFiles() ([]string, error) {
	mysql, access := filepath.Join(b.dir, "mysql.cf"), filepath.Join(b.dir, "access")
	err := errors.Join(
		os.WriteFile(mysql, []byte("hosts = unix:"+b.db.Socket()+"\nuser = dovepost_policyd\npassword = change-me-policyd\ndbname = maildb\n"), 0o600),
		os.WriteFile(access, []byte("client 192.0.2.0/24 REJECT no mail from this network\nsender bad.example REJECT no mail from this domain\n"), 0o600))
	return []string{"--mysql=" + mysql, "--access=" + access, "--rules=" + b.rules, "--rate_limits=1000000 messages/1h"}, err
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
	if b.policyd != nil {
		err = errors.Join(err, b.policyd.Stop())
	}
	if b.postfix != nil {
		err = errors.Join(err, b.postfix.Stop())
	}
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
