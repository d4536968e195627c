package mysql

import (
	"context"
	"crypto/x509"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"
)

// fakeHost connects, or says why not.
type fakeHost struct {
	name string
	err  error
	log  *[]string
}

type fakeConn struct{ sqldriver.Conn }

func (h *fakeHost) Connect(ctx context.Context) (sqldriver.Conn, error) {
	*h.log = append(*h.log, h.name)
	if h.err == nil {
		return fakeConn{}, nil
	}
	if errors.Is(h.err, context.DeadlineExceeded) {
		<-ctx.Done()
	}
	return nil, h.err
}

func (h *fakeHost) Driver() sqldriver.Driver { return nil }

// loggedHost says when it is tried.
type loggedHost struct {
	sqldriver.Connector
	name string
	log  *[]string
}

func (h loggedHost) Connect(ctx context.Context) (sqldriver.Conn, error) {
	*h.log = append(*h.log, h.name)
	return h.Connector.Connect(ctx)
}

// hosts are tried in order, those that failed lately last.
func TestConnectOrder(t *testing.T) {
	var log []string
	a := &fakeHost{"a", nil, &log}
	b := &fakeHost{"b", nil, &log}
	c := &fakeHost{"c", nil, &log}
	k := &connector{inOrder: true, retry: time.Hour, hosts: []*host{{name: "a", open: a}, {name: "b", open: b}, {name: "c", open: c}}}
	away := errors.New("away")
	for _, tt := range []struct {
		name    string
		a, b, c error
		want    string
		ok      bool
	}{
		{"the first", nil, nil, nil, "a", true},
		{"the second when the first is away", away, nil, nil, "ab", true},
		{"the second at once from then on", nil, nil, nil, "b", true},
		{"the third when the second is away, too", away, away, nil, "bc", true},
		{"the dead when all others are", nil, nil, away, "ca", true},
		{"the revived first", nil, nil, nil, "a", true},
		{"none", away, away, away, "abc", false},
	} {
		log = nil
		a.err, b.err, c.err = tt.a, tt.b, tt.c
		_, err := k.Connect(context.Background())
		if got := strings.Join(log, ""); got != tt.want || (err == nil) != tt.ok {
			t.Errorf("it takes %s: got %s, %v; want %s", tt.name, got, err, tt.want)
		}
		if err != nil && (!Unreachable(err) || !errors.Is(err, away)) {
			t.Errorf("got %v, want unreachable", err)
		}
	}
}

// a host that says nothing is left for the next one, and waited for where there is none.
func TestConnectSilent(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	var log []string
	k, err := newConnector(Config{Hosts: "inet:" + silent.Addr().String(), InOrder: true})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	if _, err := k.Connect(ctx); err == nil || time.Since(start) < 2*patience {
		t.Errorf("alone: got %v after %v", err, time.Since(start))
	}
	k.hosts[0].open = loggedHost{k.hosts[0].open, "silent", &log}
	k.hosts = append(k.hosts, &host{open: &fakeHost{"b", nil, &log}})
	start = time.Now()
	ctx = context.WithValue(context.Background(), lineKey{}, new(line))
	if _, err := k.Connect(ctx); err != nil || strings.Join(log, " ") != "silent b" || time.Since(start) < patience {
		t.Errorf("got %v, %v after %v; want a connection to b", log, err, time.Since(start))
	}
	log = nil
	if _, err := k.Connect(ctx); err != nil || strings.Join(log, " ") != "b" {
		t.Errorf("the next time: got %v, %v", log, err)
	}
}

// connections are spread over the hosts, but unix sockets go first.
func TestConnectRandom(t *testing.T) {
	var log []string
	k := &connector{retry: time.Hour}
	for _, name := range []string{"unix:/a", "unix:/b", "inet:c", "inet:d"} {
		k.hosts = append(k.hosts, &host{name: name, open: &fakeHost{name, nil, &log}})
	}
	seen := map[string]int{}
	tryAll := func() {
		clear(seen)
		for range 64 {
			log = nil
			k.Connect(context.Background())
			seen[log[len(log)-1]]++
		}
	}
	if tryAll(); len(seen) != 2 || seen["unix:/a"] == 0 || seen["unix:/b"] == 0 {
		t.Errorf("got %v", seen)
	}
	k.hosts[0].open = &fakeHost{"unix:/a", errors.New("away"), &log}
	if tryAll(); seen["unix:/b"] != 64 {
		t.Errorf("got %v", seen)
	}
	k.hosts[1].open = &fakeHost{"unix:/b", errors.New("away"), &log}
	if tryAll(); len(seen) != 2 || seen["inet:c"] == 0 || seen["inet:d"] == 0 {
		t.Errorf("got %v", seen)
	}
}

func TestHosts(t *testing.T) {
	for names, want := range map[string]string{
		"127.0.0.1":         "inet:127.0.0.1:3310",
		"localhost":         "unix:/run/mysqld/mysqld.sock",
		"/tmp/s.sock db2":   "unix:/tmp/s.sock inet:db2:3310",
		"::1 [fe80::1]":     "inet:[::1]:3310 inet:[fe80::1]:3310",
		"db2 /tmp/s.sock a": "inet:db2:3310 unix:/tmp/s.sock inet:a:3310",
	} {
		if got, err := Hosts(strings.Fields(names), "3310"); got != want || err != nil {
			t.Errorf("%s: got %q, %v; want %q", names, got, err, want)
		}
	}
}

// the two kinds of error, and which of them deserve another try.
func TestErrorClasses(t *testing.T) {
	said := func(number uint16, state string) error {
		err := &driver.MySQLError{Number: number}
		copy(err.SQLState[:], state)
		return fmt.Errorf("wrapped: %w", err)
	}
	refused := &net.OpError{Op: "dial", Err: errors.New("refused")}
	for _, tt := range []struct {
		name              string
		err               error
		unreachable, lost bool
	}{
		{"no error", nil, false, false},
		{"access denied", said(1045, "28000"), false, false},
		{"unknown column", said(1054, "42S22"), false, false},
		{"no rights on a column", said(1143, "42000"), false, false},
		{"syntax", said(1064, "42000"), false, false},
		{"unknown database", said(1049, "42000"), false, false},
		{"too many connections", said(1040, "08004"), true, false},
		{"too many connections of the user", said(1203, "42000"), true, false},
		{"shutdown", said(1053, "08S01"), true, true},
		{"no quorum", said(1047, "08S01"), true, false},
		{"killed", said(1927, "70100"), true, true},
		{"idle for too long", said(4031, "HY000"), true, true},
		{"statement must be prepared again", said(1615, "HY000"), true, true},
		{"deadlock", said(1213, "40001"), true, false},
		{"read-only", said(1290, "HY000"), true, false},
		{"a server without a state", said(1105, ""), false, false},
		{"refused", refused, true, true},
		{"dead connection", driver.ErrInvalidConn, true, true},
		{"bad connection", sqldriver.ErrBadConn, true, true},
		{"end of file", io.ErrUnexpectedEOF, true, true},
		{"no time left", context.DeadlineExceeded, true, false},
		{"given up", context.Canceled, true, false},
		{"a certificate of somebody else's", fmt.Errorf("tls: %w", x509.HostnameError{Certificate: &x509.Certificate{}, Host: "h"}), false, false},
		{"a certificate of an unknown authority", &hostsError{[]error{x509.UnknownAuthorityError{}}}, false, false},
		{"no TLS", driver.ErrNoTLS, false, false},
		{"no result set", ErrNoResultSet, false, false},
		{"all hosts refuse", &hostsError{[]error{refused, refused}}, true, false},
		{"one host refuses, one denies", &hostsError{[]error{said(1045, "28000"), refused}}, true, false},
		{"all hosts deny", &hostsError{[]error{said(1045, "28000")}}, false, false},
		{"anything else", errors.New("?"), true, false},
	} {
		if got := Unreachable(tt.err); got != tt.unreachable {
			t.Errorf("%s: unreachable is %v", tt.name, got)
		}
		if got := lost(tt.err); got != tt.lost {
			t.Errorf("%s: lost is %v", tt.name, got)
		}
	}
}

// a Config that cannot work says so in every answer, and never asks.
func TestBadConfig(t *testing.T) {
	for _, c := range []Config{
		{Hosts: "", DBName: "d"},
		{Hosts: "inet:h:1", TLS: TLS{CAFile: "/nonexistent"}},
		{Hosts: "inet:h:1", TLS: TLS{CAPath: t.TempDir()}},
		{Hosts: "inet:h:1", TLS: TLS{CertFile: "/nonexistent"}},
		{Hosts: "inet:h:1", TLS: TLS{Ciphers: "NULL-MD5"}},
		{Hosts: "inet:h:1", TLS: TLS{Ciphers: "HIGH:!AES"}},
	} {
		p := OpenPool(c, 1)
		_, err := p.Query(context.Background(), "SELECT 1")
		if err == nil || Unreachable(err) {
			t.Errorf("%+v %+v: got %v", c, c.TLS, err)
		}
		if prepared := p.Prepare(context.Background(), "SELECT 1"); !errors.Is(prepared, err) {
			t.Errorf("Prepare says %v", prepared)
		}
		p.Stats()
		p.Close()
	}
	if got, err := cipherSuites("HIGH:!aNULL:ECDHE-RSA-AES256-GCM-SHA384"); err != nil || len(got) != 1 {
		t.Errorf("got %v, %v", got, err)
	}
}
