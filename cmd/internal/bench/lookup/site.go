package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	sd "github.com/coreos/go-systemd/v22/daemon"

	"dovepost/cmd/internal/stack"
)

// bench is a site: a database with users, lookupd, and Postfix's postmap.
type bench struct {
	rounds, keys, users int
	only                []string // comparisons; empty: all

	dir     string
	bin     string
	db      *stack.MariaDB
	lookupd *stack.Daemon
	echo    *stack.Daemon // does nothing
	next    int           // user that was not asked for yet
	serial  int           // of files
}

// The accounts: so it is known whose connections there are.
const (
	native = "native"
	ours   = "ours"
)

// queries are the tables, by name: the large one, the small one, and the aliases of
// the catch-all kind.
var queries = map[string]string{
	"users":   "SELECT home FROM users WHERE email='%s'",
	"few":     "SELECT home FROM few WHERE email='%s'",
	"aliases": "SELECT goto FROM aliases WHERE address='%s'",
}

func (b *bench) setUp() (err error) {
	if b.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return err
	}
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	if err := stack.Build(filepath.Join(b.dir, "bin")); err != nil {
		return err
	}
	b.bin = filepath.Join(b.dir, "bin/lookupd")
	if b.db, err = stack.StartMariaDB(b.dir); err != nil {
		return err
	}
	if err := b.fill(); err != nil {
		return err
	}
	for _, account := range []string{native, ours} {
		for name, query := range queries {
			text := fmt.Sprintf("hosts = %s\nuser = %s\npassword = secret\ndbname = mail\nquery = %s\n", b.db.Addr(), account, query)
			path := b.cf(account, name)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				return err
			}
			// Postfix waits until a file is older than a second.
			old := time.Now().Add(-time.Hour)
			if err := os.Chtimes(path, old, old); err != nil {
				return err
			}
		}
	}
	if err := os.WriteFile(filepath.Join(b.dir, "main.cf"), []byte("compatibility_level = 3.6\n"), 0o644); err != nil {
		return err
	}
	if b.lookupd, err = b.startLookupd("lookupd"); err != nil {
		return err
	}
	return b.startEcho()
}

// fill makes the tables. One read of all brings them into memory.
func (b *bench) fill() error {
	return b.db.Exec(fmt.Sprintf(`SET GLOBAL innodb_buffer_pool_size = 512 * 1024 * 1024;
		CREATE DATABASE mail; USE mail;
		CREATE TABLE users (email VARCHAR(255) PRIMARY KEY, home VARCHAR(255) NOT NULL);
		CREATE TABLE few LIKE users;
		CREATE TABLE aliases (address VARCHAR(255) PRIMARY KEY, goto TEXT NOT NULL);
		INSERT INTO users SELECT CONCAT('user', LPAD(seq, 7, '0'), '@example.com'), CONCAT('/home/', seq) FROM seq_0_to_%[1]d;
		INSERT INTO few SELECT email, home FROM users ORDER BY email LIMIT 1000;
		INSERT INTO aliases SELECT CONCAT('@dom', LPAD(seq, 7, '0'), '.example'), 'alice@example.com' FROM seq_0_to_%[1]d;
		CREATE USER native@127.0.0.1 IDENTIFIED BY 'secret'; GRANT SELECT ON mail.* TO native@127.0.0.1;
		CREATE USER ours@127.0.0.1 IDENTIFIED BY 'secret'; GRANT SELECT ON mail.* TO ours@127.0.0.1;
		ANALYZE TABLE users, few, aliases;
		SELECT SUM(LENGTH(home)) FROM users; SELECT SUM(LENGTH(goto)) FROM aliases;`, b.users-1))
}

func (b *bench) cf(account, table string) string {
	return filepath.Join(b.dir, account+"-"+table+".cf")
}

// socket returns the path of the socketmap of a server.
func (b *bench) socket(server string) string { return filepath.Join(b.dir, server, "socket") }

// startLookupd starts a lookupd of that name with the settings that it has by
// default, and more.
func (b *bench) startLookupd(name string, more ...string) (*stack.Daemon, error) {
	args := []string{"--recipient_delimiter=+"}
	for table := range queries {
		args = append(args, "--map="+table+"=address:"+b.cf(ours, table))
	}
	dir := filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	return stack.StartDaemon(b.bin, dir, "socketmap", b.socket(name), append(args, more...)...)
}

// startEcho starts the server that does nothing as lookupd is started, under its name, so that both have the settings
// of the same unit: a session of their own (the kernel's autogroups, sched(7), prefer who shares the session of the
// clients) and the slack of their timers.
func (b *bench) startEcho() (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir := filepath.Join(b.dir, "echo")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	bin := filepath.Join(dir, "lookupd")
	if err := os.Symlink(self, bin); err != nil {
		return err
	}
	b.echo, err = stack.StartDaemon(bin, dir, "socketmap", b.socket("echo"), "echo")
	return err
}

func (b *bench) tearDown() (err error) {
	if b.echo != nil {
		err = b.echo.Kill()
	}
	if b.lookupd != nil {
		if n := b.lookupd.Starts(); n != 1 {
			err = errors.Join(err, fmt.Errorf("lookupd was started %d times", n))
		}
		err = errors.Join(err, b.lookupd.Stop())
	}
	if b.db != nil {
		err = errors.Join(err, b.db.Stop())
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}

// echo is a socketmap server that does nothing: it reads a request and says OK. The socket is systemd's.
func echo() error {
	sockets, err := activation.Listeners()
	if err == nil && len(sockets) != 1 {
		err = fmt.Errorf("%d sockets; want one", len(sockets))
	}
	if err == nil {
		_, err = sd.SdNotify(false, sd.SdNotifyReady)
	}
	for err == nil {
		var c net.Conn
		if c, err = sockets[0].Accept(); err == nil {
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					length, err := r.ReadSlice(':')
					if err != nil {
						return
					}
					n, err := strconv.Atoi(string(bytes.TrimSuffix(length, []byte(":"))))
					if err != nil {
						return
					}
					if _, err := r.Discard(n + 1); err != nil {
						return
					}
					if _, err := io.WriteString(c, "14:OK /home/12345,"); err != nil {
						return
					}
				}
			}()
		}
	}
	return err
}
