package main

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dovepost/cmd/internal/daemon/daemontest"
	"dovepost/cmd/internal/faultproxy"
)

// run starts authd with a database that is away. descriptors are sockets that it gets as
// from systemd, by FileDescriptorName=.
func run(t *testing.T, descriptors map[string]*os.File, args ...string) *daemontest.Daemon {
	t.Helper()
	sql := fmt.Sprintf("driver = mysql\nconnect = host=127.0.0.1 port=%d dbname=d user=u\npassword_query = SELECT password FROM users WHERE email = '%%u'\n", faultproxy.ClosedPort(t))
	cmd := daemontest.Command(t, append(args, "--sql="+daemontest.WriteFile(t, "sql.conf", sql))...)
	if len(descriptors) > 0 {
		daemontest.Pass(cmd, descriptors)
	}
	a := daemontest.Start(t, cmd)
	a.WaitFor("msg=ready")
	return a
}

// hello connects and returns the mechanisms that are offered.
func hello(t *testing.T, path string) (c net.Conn, in *bufio.Reader, mechanisms string) {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprint(c, "VERSION\t1\t2\nCPID\t1\n")
	in = bufio.NewReader(c)
	var names []string
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		word, rest, _ := strings.Cut(strings.TrimSpace(line), "\t")
		name, _, _ := strings.Cut(rest, "\t")
		switch word {
		case "MECH":
			names = append(names, name)
		case "DONE":
			return c, in, strings.Join(names, " ")
		}
	}
}

// TestListsOfListeners: a listener offers the mechanisms of its own kind, whether it is
// of --listen or of systemd.
func TestListsOfListeners(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	ln, err := net.Listen("unix", path("d"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	file, err := ln.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, tt := range []struct {
		name        string
		args        []string
		descriptors map[string]*os.File
		want        map[string]string
	}{
		{"listeners of its own", []string{"--listen=client:unix:" + path("a"), "--listen=client=scram-sha-256 plain:unix:" + path("b"), "--listen=login=login:unix:" + path("c")}, nil,
			map[string]string{"a": "PLAIN LOGIN", "b": "SCRAM-SHA-256 PLAIN", "c": "LOGIN"}},
		{"listeners of systemd", nil, map[string]*os.File{"client=login plain": file}, map[string]string{"d": "LOGIN PLAIN"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run(t, tt.descriptors, tt.args...)
			for name, want := range tt.want {
				if _, _, got := hello(t, path(name)); got != want {
					t.Errorf("socket %s offers %q, want %q", name, got, want)
				}
			}
		})
	}
}

// TestReload: SIGHUP reads the file of --oauth2, and keeps the old one's settings when
// the new one has a mistake.
func TestReload(t *testing.T) {
	keys := t.TempDir()
	file := daemontest.WriteFile(t, "oauth2.conf", "")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	settings := "introspection_mode = local\nlocal_validation_key_dict = fs:posix:prefix=" + keys + "/\nscope = "
	write(settings + "old")
	socket := filepath.Join(t.TempDir(), "client")
	a := run(t, nil, "--auth_mechanisms=xoauth2", "--auth_failure_delay=0", "--oauth2="+file, "--listen=client:unix:"+socket)
	c, in, _ := hello(t, socket)
	id := 0
	scope := func() string {
		id++
		fmt.Fprintf(c, "AUTH\t%d\tXOAUTH2\tservice=imap\tresp=%s\n", id, base64.StdEncoding.EncodeToString([]byte("user=alice\x01auth=Bearer x\x01\x01")))
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		_, text, _ := strings.Cut(strings.TrimSpace(line), fmt.Sprintf("CONT\t%d\t", id))
		b, _ := base64.StdEncoding.DecodeString(text)
		_, rest, _ := strings.Cut(string(b), `"scope":"`)
		scope, _, _ := strings.Cut(rest, `"`)
		return scope
	}
	if got := scope(); got != "old" {
		t.Errorf("scope %q, want that of the file", got)
	}
	write(settings + "new")
	a.Signal(syscall.SIGHUP)
	a.WaitFor("msg=reloaded")
	if got := scope(); got != "new" {
		t.Errorf("scope %q after SIGHUP, want that of the new file", got)
	}
	write("what = x\n")
	a.Signal(syscall.SIGHUP)
	a.WaitFor("the old state stays")
	if got := scope(); got != "new" {
		t.Errorf("scope %q after SIGHUP with a mistake, want that of the file before", got)
	}
}

// TestCacheStatus: CACHE-STATUS tells what the cache of rows has done, and sets it back.
func TestCacheStatus(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "master")
	run(t, nil, "--lookup_timeout=1s", "--listen=master:unix:"+socket)
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	in := bufio.NewReader(c)
	fmt.Fprint(c, "VERSION\t1\t1\n")
	for _, tt := range []struct{ question, answer string }{
		{"", "VERSION\t"}, {"", "SPID\t"},
		{"CACHE-STATUS\t1", "OK\t1\thits=0\tmisses=0\tpos_entries=0\t"},
		{"PASS\t2\talice@example.com\tservice=imap", "FAIL\t2\t"},
		{"CACHE-STATUS\t3\treset", "OK\t3\thits=0\tmisses=1\tpos_entries=0\t"},
		{"CACHE-STATUS\t4", "OK\t4\thits=0\tmisses=0\tpos_entries=0\t"},
	} {
		if tt.question != "" {
			fmt.Fprintln(c, tt.question)
		}
		if line, err := in.ReadString('\n'); !strings.HasPrefix(line, tt.answer) {
			t.Errorf("%q: got %q, %v; want %q", tt.question, line, err, tt.answer)
		}
	}
}
