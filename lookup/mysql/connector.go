package mysql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	mysqldriver "github.com/go-sql-driver/mysql"
)

const (
	defaultSocket = "/run/mysqld/mysqld.sock"
	defaultPort   = "3306"

	connectTimeout = 5 * time.Second  // for one host, if the context allows as much
	ioTimeout      = 10 * time.Second // a server that says nothing for so long is hanging
	defaultRetry   = time.Minute
	defaultIdle    = time.Minute
)

// parseHost normalises one word of mysql_table(5) hosts: "unix:/path",
// "inet:host:port", "host" or "host:port". The name localhost stands for the
// default unix socket, whatever the port, as in the client library.
func parseHost(word, socket, port string) (string, error) {
	if path, ok := strings.CutPrefix(word, "unix:"); ok {
		if !strings.HasPrefix(path, "/") {
			return "", fmt.Errorf("host %q: the socket needs an absolute path", word)
		}
		return word, nil
	}
	name := strings.TrimPrefix(word, "inet:")
	if i := strings.LastIndexByte(name, ':'); i >= 0 && !strings.HasSuffix(name, "]") {
		service := name[i+1:]
		number, err := net.LookupPort("tcp", service)
		if err != nil || number == 0 {
			return "", fmt.Errorf("host %q: unknown service: %s/tcp", word, service)
		}
		name, port = name[:i], fmt.Sprint(number)
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if name == "" {
		return "", fmt.Errorf("host %q: no name", word)
	}
	if strings.EqualFold(name, "localhost") {
		return "unix:" + socket, nil
	}
	return "inet:" + net.JoinHostPort(name, port), nil
}

// parseHosts normalises a list of hosts; unix sockets go first, as they do in Postfix.
func parseHosts(list, socket, port string) (string, error) {
	var unix, inet []string
	for _, word := range splitList(list) {
		host, err := parseHost(word, socket, port)
		switch {
		case err != nil:
			return "", err
		case strings.HasPrefix(host, "unix:"):
			unix = append(unix, host)
		default:
			inet = append(inet, host)
		}
	}
	return strings.Join(append(unix, inet...), " "), nil
}

// Hosts makes Config.Hosts of names as the client library takes them: a path is a
// unix socket, localhost the default one, anything else a host. An empty port is 3306.
func Hosts(names []string, port string) (string, error) {
	if port == "" {
		port = defaultPort
	}
	hosts := make([]string, 0, len(names))
	for _, name := range names {
		if strings.HasPrefix(name, "/") {
			name = "unix:" + name
		} else if strings.Contains(name, ":") {
			name = "[" + strings.Trim(name, "[]") + "]" // an IPv6 address: there is no port in it
		}
		host, err := parseHost(name, defaultSocket, port)
		if err != nil {
			return "", err
		}
		hosts = append(hosts, host)
	}
	return strings.Join(hosts, " "), nil
}

// splitList splits at commas and blanks, as Postfix lists are.
func splitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })
}

// connector opens connections to the first host that gives one.
type connector struct {
	hosts []*host
	retry time.Duration
}

// host is one server of the list.
type host struct {
	name  string
	open  driver.Connector
	until atomic.Int64 // tried after the others until then, Unix nanoseconds
}

func newConnector(c Config) (*connector, error) {
	tlsConfig, err := c.TLS.load()
	if err != nil {
		return nil, err
	}
	k := &connector{retry: c.RetryInterval}
	if k.retry == 0 {
		k.retry = defaultRetry
	}
	for _, name := range strings.Fields(c.Hosts) {
		d := mysqldriver.NewConfig()
		d.User, d.Passwd, d.DBName = c.User, c.Password, c.DBName
		d.Net, d.Addr = "tcp", strings.TrimPrefix(name, "inet:")
		if path, ok := strings.CutPrefix(name, "unix:"); ok {
			d.Net, d.Addr = "unix", path
		}
		if tlsConfig != nil {
			d.TLS = tlsConfig.forHost(d.Addr)
		}
		d.Timeout, d.ReadTimeout, d.WriteTimeout = connectTimeout, ioTimeout, ioTimeout
		d.Logger = &mysqldriver.NopLogger{} // what it would log also comes back as an error
		charset := c.Charset
		if charset == "" {
			charset = "utf8mb4"
		}
		// SET NAMES without COLLATE: the server's own default collation of the
		// charset, so that comparisons come out as they do for Postfix.
		if err := d.Apply(mysqldriver.Charset(charset, "")); err != nil {
			return nil, err
		}
		open, err := mysqldriver.NewConnector(d)
		if err != nil {
			return nil, err
		}
		k.hosts = append(k.hosts, &host{name: name, open: open})
	}
	if len(k.hosts) == 0 {
		return nil, errors.New("no hosts")
	}
	return k, nil
}

// Connect opens a connection to the first host that gives one. Hosts that
// failed lately come last. The time of ctx is shared among those still to be tried.
func (k *connector) Connect(ctx context.Context) (driver.Conn, error) {
	now := time.Now()
	hosts := make([]*host, 0, len(k.hosts))
	var late []*host
	for _, h := range k.hosts {
		if now.UnixNano() < h.until.Load() {
			late = append(late, h)
		} else {
			hosts = append(hosts, h)
		}
	}
	hosts = append(hosts, late...)

	failed := &hostsError{}
	for i, h := range hosts {
		conn, err := h.connect(ctx, len(hosts)-i)
		if err == nil {
			h.until.Store(0)
			return conn, nil
		}
		failed.errs = append(failed.errs, fmt.Errorf("connect to %s: %w", h.name, err))
		if ctx.Err() != nil {
			break
		}
		h.until.Store(time.Now().Add(k.retry).UnixNano())
	}
	return nil, failed
}

// connect tries h, leaving time for the other hosts of those that remain.
func (h *host) connect(ctx context.Context, remain int) (driver.Conn, error) {
	limit := connectTimeout
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline)/time.Duration(remain))
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return h.open.Connect(ctx)
}

// Driver is part of driver.Connector.
func (k *connector) Driver() driver.Driver { return mysqldriver.MySQLDriver{} }
