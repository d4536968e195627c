package mysql

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"time"

	mysqldriver "github.com/go-sql-driver/mysql"
)

const (
	defaultSocket = "/run/mysqld/mysqld.sock"
	defaultPort   = "3306"

	connectTimeout = 20 * time.Second // for all hosts; whoever waits for a connection has his own limit
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
func Hosts(names []string, port string) (string, error) { return HostsAt(names, "", port) }

// HostsAt is Hosts with the socket that localhost means; empty is the usual one.
func HostsAt(names []string, socket, port string) (string, error) {
	port, socket = cmp.Or(port, defaultPort), cmp.Or(socket, defaultSocket)
	hosts := make([]string, 0, len(names))
	for _, name := range names {
		if strings.HasPrefix(name, "/") {
			name = "unix:" + name
		} else if strings.Contains(name, ":") {
			name = "[" + strings.Trim(name, "[]") + "]" // an IPv6 address: there is no port in it
		}
		host, err := parseHost(name, socket, port)
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
	hosts   []*host // unix sockets first
	inOrder bool
	retry   time.Duration
}

// host is one server of the list.
type host struct {
	name   string
	open   driver.Connector
	until  atomic.Int64 // tried after the others until then, Unix nanoseconds
	looked time.Time    // the last time that Pool.look had an answer; its own
}

// lineKey has the context tell Connect, which the driver and database/sql stand between,
// about the line that is opened.
type lineKey struct{}

func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	l, ok := ctx.Value(lineKey{}).(*line)
	if !ok {
		l = new(line)
	}
	c, err := (&net.Dialer{Timeout: l.patience}).DialContext(ctx, network, addr)
	if err == nil {
		c = poll(c, l)
	}
	l.net = c
	return c, err
}

func newConnector(c Config) (*connector, error) {
	tlsConfig, err := c.TLS.load()
	if err != nil {
		return nil, err
	}
	k := &connector{retry: c.RetryInterval, inOrder: c.InOrder}
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
			d.AllowFallbackToPlaintext = !c.TLS.enforced()
		}
		// Deadlines of queries are set on the network connection, see conn.run.
		d.DialFunc = dial
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

// order returns the hosts in the order in which they are to be tried: those that
// failed lately come last. Else it is random among the unix sockets and then among
// the others, as in Postfix, unless the order of the list counts.
func (k *connector) order(now time.Time) []*host {
	if len(k.hosts) == 1 {
		return k.hosts
	}
	groups := make([][]*host, 4)
	for _, h := range k.hosts {
		g := 0
		if !k.inOrder && !strings.HasPrefix(h.name, "unix:") {
			g = 1
		}
		if now.UnixNano() < h.until.Load() {
			g += 2
		}
		groups[g] = append(groups[g], h)
	}
	var hosts []*host
	for _, group := range groups {
		if !k.inOrder {
			rand.Shuffle(len(group), func(i, j int) { group[i], group[j] = group[j], group[i] })
		}
		hosts = append(hosts, group...)
	}
	return hosts
}

// Connect opens a connection to the first host that gives one. One that says nothing is
// waited for as long as the context lasts only if there is no other to try.
func (k *connector) Connect(ctx context.Context) (driver.Conn, error) {
	l, ok := ctx.Value(lineKey{}).(*line)
	if !ok {
		l = new(line)
	}
	hosts, probe := k.order(time.Now()), l.only != nil
	if probe {
		hosts = []*host{l.only}
	}
	failed := &hostsError{}
	for i, h := range hosts {
		l.host.Store(h)
		if l.patience = 0; probe || i < len(hosts)-1 {
			l.patience = patience
		}
		conn, err := h.open.Connect(ctx)
		if err == nil {
			h.until.Store(0)
			return conn, nil
		}
		failed.errs = append(failed.errs, fmt.Errorf("connect to %s: %w", h.name, err))
		if ctx.Err() != nil {
			break // nothing is known
		}
		if !probe {
			h.fail(k.retry)
		}
	}
	return nil, failed
}

// fail has h tried after the others for a while.
func (h *host) fail(retry time.Duration) { h.until.Store(time.Now().Add(retry).UnixNano()) }

// Driver is part of driver.Connector.
func (k *connector) Driver() driver.Driver { return mysqldriver.MySQLDriver{} }
