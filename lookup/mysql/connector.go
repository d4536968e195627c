package mysql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	mysqldriver "github.com/go-sql-driver/mysql"
)

const (
	defaultSocket = "/run/mysqld/mysqld.sock"
	defaultPort   = "3306"

	connectTimeout = 5 * time.Second // for one host, if the context allows as much
	hangTime       = time.Second / 2 // a connection that takes longer and fails means that the host hangs
	probeInterval  = time.Second / 2 // how often one that hangs is tried again
	probeLimit     = time.Second     // and for how long, mostly
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
	hosts   []*host // unix sockets first
	inOrder bool
	retry   time.Duration
}

// host is one server of the list.
type host struct {
	name  string
	open  driver.Connector
	until atomic.Int64 // tried after the others until then, Unix nanoseconds
	probe atomic.Int64 // not 0 for a host that hangs: not tried at all until then

	probing atomic.Int32 // attempts of that kind that run
	probes  atomic.Int32 // how many there were
	patient atomic.Bool  // one of them has more time than the others

	// Those of Pool.look alone:
	looked time.Time // the last time
	unseen int       // how often in a row it could not be asked
}

// maxProbing is how many may wait for a host that hangs at a time.
const maxProbing = 3

// hanging reports whether h is known to hang and is not to be tried now.
func (h *host) hanging(now time.Time) bool {
	probe := h.probe.Load()
	return probe != 0 && (now.UnixNano() < probe || h.probing.Load() >= maxProbing)
}

// hanging reports whether all hosts are known to hang, so that nobody needs to wait
// for a connection.
func (k *connector) hanging() bool {
	now := time.Now()
	return !slices.ContainsFunc(k.hosts, func(h *host) bool { return !h.hanging(now) })
}

var (
	errHanging    = errors.New("does not answer")
	errAllHanging = fmt.Errorf("database %w", errHanging)
)

// dialed tells who called Connect, through the context, what came of it: the
// driver keeps the network connection to itself.
type dialed struct {
	net  net.Conn
	host *host
}

type dialedKey struct{}

// onlyKey has Connect try one host alone, through the context.
type onlyKey struct{}

func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err == nil {
		c = poll(c)
	}
	if to, ok := ctx.Value(dialedKey{}).(*dialed); ok {
		to.net = c
	}
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
		d.DialFunc, d.Timeout = dial, connectTimeout
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

// Connect opens a connection to the first host that gives one. The time of ctx is
// shared among those still to be tried.
func (k *connector) Connect(ctx context.Context) (driver.Conn, error) {
	hosts := k.order(time.Now())
	if only, ok := ctx.Value(onlyKey{}).(*host); ok {
		hosts = []*host{only}
	}
	failed := &hostsError{}
	for i, h := range hosts {
		conn, err := h.connect(ctx, len(hosts)-i, k.retry)
		if err == nil {
			if to, ok := ctx.Value(dialedKey{}).(*dialed); ok {
				to.host = h
			}
			return conn, nil
		}
		failed.errs = append(failed.errs, fmt.Errorf("connect to %s: %w", h.name, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

// connect tries h, leaving time for the other hosts of those that remain. A host
// that hangs is tried by one caller each half of a second, mostly for no longer than a
// second, and the others get an error at once. One that refuses costs nothing and is tried by everybody.
func (h *host) connect(ctx context.Context, remain int, retry time.Duration) (driver.Conn, error) {
	start := time.Now()
	limit := connectTimeout
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, deadline.Sub(start)/time.Duration(remain))
	}
	if probe := h.probe.Load(); probe != 0 {
		if h.hanging(start) || !h.probe.CompareAndSwap(probe, start.Add(probeInterval).UnixNano()) {
			return nil, errHanging
		}
		h.probing.Add(1)
		defer h.probing.Add(-1)
		// A server that only greets slowly is found by the fourth, which must not keep the others
		// from finding one that is back.
		if h.probes.Add(1)%4 == 0 && h.patient.CompareAndSwap(false, true) {
			defer h.patient.Store(false)
			limit = min(limit, 2*probeLimit)
		} else {
			limit = min(limit, probeLimit)
		}
	}
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := h.open.Connect(within)
	end := time.Now()
	switch {
	case err == nil:
		h.until.Store(0)
		h.probe.Store(0)
	case ctx.Value(onlyKey{}) != nil: // Pool.look has its own opinion
	case end.Sub(start) >= hangTime:
		h.fail(retry)
		h.hang(end.Add(probeInterval))
	case within.Err() == nil:
		h.fail(retry)
		h.probe.Store(0)
	} // else the caller had no time, and nothing is known
	return conn, err
}

// hang has h count as one that hangs, unless it does already.
func (h *host) hang(probe time.Time) { h.probe.CompareAndSwap(0, probe.UnixNano()) }

// fail has h tried after the others for a while.
func (h *host) fail(retry time.Duration) { h.until.Store(time.Now().Add(retry).UnixNano()) }

// Driver is part of driver.Connector.
func (k *connector) Driver() driver.Driver { return mysqldriver.MySQLDriver{} }
