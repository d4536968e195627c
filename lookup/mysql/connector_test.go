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
	"testing/synctest"
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

// a host that hangs leaves time for the next one.
func TestConnectHang(t *testing.T) {
	var log []string
	k := &connector{inOrder: true, hosts: []*host{{open: &fakeHost{"a", context.DeadlineExceeded, &log}}, {open: &fakeHost{"b", nil, &log}}}}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := k.Connect(ctx); err != nil || strings.Join(log, "") != "ab" {
		t.Errorf("got %v, %v; want a connection to b", log, err)
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

// a host that hangs holds up two callers a second and not all of them.
func TestConnectProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		h := &fakeHost{"a", context.DeadlineExceeded, &log}
		k := &connector{retry: time.Minute, hosts: []*host{{name: "a", open: h}}}
		connect := func() (time.Duration, error) {
			start := time.Now()
			_, err := k.Connect(t.Context())
			return time.Since(start), err
		}
		check := func(when string, got time.Duration, err error, want time.Duration) {
			t.Helper()
			if err == nil || !Unreachable(err) || got != want {
				t.Errorf("%s: got %v after %v, want an error after %v", when, err, got, want)
			}
		}
		took, err := connect()
		check("at first", took, err, connectTimeout)
		for range 100 {
			took, err = connect()
			check("right after", took, err, 0)
		}
		time.Sleep(probeInterval)
		done := make(chan struct{})
		go func() {
			defer close(done)
			took, err := connect()
			check("a moment later", took, err, probeLimit)
		}()
		synctest.Wait()
		took, err = connect()
		check("meanwhile", took, err, 0)
		if !k.hanging() {
			t.Error("meanwhile: others wait")
		}
		<-done
		if len(log) != 2 {
			t.Errorf("%d attempts, want 2", len(log))
		}
		for n := range 3 {
			took, err = connect()
			check("now and then", took, err, []time.Duration{probeLimit, probeLimit, 2 * probeLimit}[n])
		}
		if k.hanging() {
			t.Error("the next one is not let through")
		}
		log = log[:2]
		time.Sleep(probeInterval)
		h.err = nil
		if took, err = connect(); err != nil || took != 0 {
			t.Errorf("back again: got %v after %v", err, took)
		}
		h.err = errors.New("refused")
		for range 3 {
			took, err = connect()
			check("refusing", took, err, 0)
		}
		if len(log) != 6 {
			t.Errorf("%d attempts, want 6: who refuses is tried by everybody", len(log))
		}
	})
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
