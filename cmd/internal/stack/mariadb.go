package stack

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// mysqldSettings are the settings of the mail server that dovepost was written
// for, and what lets a second server stand beside the system's own.
const mysqldSettings = `[mysqld]
pid-file = %[1]s/mariadb.pid
socket = %[2]s
datadir = %[1]s/data
log-error = %[3]s
tmpdir = %[1]s/tmp
port = %[4]d
user = %[5]s

character-set-server = utf8mb4
collation-server = utf8mb4_unicode_ci

bind-address = 127.0.0.1
loose-mysqlx-bind-address = 127.0.0.1

max_connections = 200
innodb_buffer_pool_size = 128M

skip-name-resolve
`

// mysqlRoot is a directory with the programs of MySQL in it, which run below it
// instead of MariaDB's, and see the same /tmp; empty: MariaDB. Debian has MySQL in sid alone,
// where it cannot be installed beside Dovecot's and Postfix's clients.
var mysqlRoot = os.Getenv("DOVEPOST_MYSQL_ROOT")

// mysqldMore is what MySQL needs beyond mysqldSettings.
const mysqldMore = `loose-mysqlx = OFF
secure-file-priv = NULL
skip-log-bin
`

// MariaDB is a private database server, on 127.0.0.1 and on a unix socket. Its
// administrator is the user who started it, through the socket alone.
type MariaDB struct {
	dir  string
	port *port
	proc *process // nil before the first Start
}

// StartMariaDB makes an empty database server below dir, which must exist, and
// starts it. The caller must Stop it; nothing is removed.
func StartMariaDB(dir string) (*MariaDB, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	m := &MariaDB{dir: filepath.Join(dir, "mariadb")}
	// The kernel's sockaddr_un has room for 107 octets.
	if len(m.Socket()) > 107 {
		return nil, fmt.Errorf("mariadb: socket path is too long: %s", m.Socket())
	}
	if m.port, err = claimPort(); err != nil {
		return nil, fmt.Errorf("mariadb: %w", err)
	}
	err = m.install()
	if err == nil {
		err = m.Start()
	}
	if err != nil {
		m.Stop()
		m.port.release()
		return nil, err
	}
	return m, nil
}

// install writes the settings and makes the system tables.
func (m *MariaDB) install() error {
	if err := os.MkdirAll(filepath.Join(m.dir, "tmp"), 0o755); err != nil {
		return err
	}
	me, err := user.Current()
	if err != nil {
		return err
	}
	settings := fmt.Sprintf(mysqldSettings, m.dir, m.Socket(), m.logPath(), m.port.number, me.Username)
	if mysqlRoot != "" {
		settings += mysqldMore
	}
	if err := os.WriteFile(m.settingsPath(), []byte(settings), 0o644); err != nil {
		return err
	}
	if mysqlRoot != "" {
		out, err := exec.Command("chroot", mysqlRoot, "mysqld", "--defaults-file="+m.settingsPath(), "--initialize-insecure").CombinedOutput()
		if err != nil {
			return fmt.Errorf("mysqld --initialize-insecure: %w\n%s%s", err, out, tail(m.logPath(), 15))
		}
		return nil
	}
	install, err := program("mariadb-install-db")
	if err != nil {
		return err
	}
	out, err := exec.Command(install, "--defaults-file="+m.settingsPath(), "--skip-test-db",
		"--auth-root-authentication-method=socket", "--auth-root-socket-user="+me.Username).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mariadb-install-db: %w\n%s%s", err, out, tail(m.logPath(), 15))
	}
	return nil
}

// Addr returns host:port.
func (m *MariaDB) Addr() string { return m.port.addr() }

// Port returns the port of Addr.
func (m *MariaDB) Port() int { return m.port.number }

// Socket returns the path of the unix socket.
func (m *MariaDB) Socket() string { return filepath.Join(m.dir, "mariadb.sock") }

func (m *MariaDB) settingsPath() string { return filepath.Join(m.dir, "my.cnf") }
func (m *MariaDB) logPath() string      { return filepath.Join(m.dir, "mariadb.log") }

// Start starts the server again after Stop or Kill, at the same addresses, and
// waits until it answers.
func (m *MariaDB) Start() error {
	if m.running() {
		return errors.New("mariadb: already running")
	}
	cmd := exec.Command("chroot", mysqlRoot, "mysqld", "--defaults-file="+m.settingsPath())
	if mysqlRoot == "" {
		server, err := program("mariadbd")
		if err != nil {
			return err
		}
		cmd = exec.Command(server, "--defaults-file="+m.settingsPath())
	}
	cmd.Dir = m.dir
	var err error
	m.proc, err = startProcess("mariadb", m.logPath(), cmd)
	if err != nil {
		return err
	}
	return m.proc.waitReady(60*time.Second, m.greets)
}

// greets reports whether the server sends its greeting on both listeners.
func (m *MariaDB) greets() error {
	for _, at := range []struct{ network, addr string }{{"unix", m.Socket()}, {"tcp", m.Addr()}} {
		c, err := net.DialTimeout(at.network, at.addr, time.Second)
		if err != nil {
			return err
		}
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err = c.Read(make([]byte, 1))
		c.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *MariaDB) running() bool {
	if m.proc == nil {
		return false
	}
	select {
	case <-m.proc.done:
		return false
	default:
		return true
	}
}

// Stop shuts the server down and waits until it has ended. Addr stays reserved.
func (m *MariaDB) Stop() error { return m.proc.stop(syscall.SIGTERM, 30*time.Second) }

// Kill ends the server as a power failure would.
func (m *MariaDB) Kill() error { return m.proc.stop(syscall.SIGKILL, 30*time.Second) }

// Signal sends sig to the server: SIGSTOP makes it hang, SIGCONT lets it go on. See Freeze.
func (m *MariaDB) Signal(sig syscall.Signal) error { return m.proc.signal(sig) }

// Exec runs SQL statements as the administrator, in the database that a USE
// among them names.
func (m *MariaDB) Exec(sql string) error {
	_, err := m.Query(sql)
	return err
}

// Query runs SQL statements as Exec does, and returns the rows: one a line,
// columns separated by tabs, NULL and special characters as mariadb --batch writes them.
func (m *MariaDB) Query(sql string) ([]string, error) {
	client, err := program("mariadb")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(client, "--no-defaults", "--batch", "--skip-column-names",
		"--default-character-set=utf8mb4", "--socket="+m.Socket())
	cmd.Stdin = strings.NewReader(sql)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("mariadb: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	text := strings.TrimSuffix(string(out), "\n")
	if text == "" {
		return nil, nil
	}
	return strings.Split(text, "\n"), nil
}

// Quote returns s as an SQL string literal.
func Quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\x00", `\0`, "\n", `\n`, "\r", `\r`, "\x1a", `\Z`).Replace(s) + "'"
}
