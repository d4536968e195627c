package stack

import (
	"net"
	"os"
	"strings"
	"testing"
)

// The settings of the server, its life, and that two of them stand side by side.
func TestMariaDB(t *testing.T) {
	first, err := StartMariaDB(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { first.Stop() })
	second, err := StartMariaDB(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { second.Stop() })
	if first.Addr() == second.Addr() {
		t.Errorf("two servers share %s", first.Addr())
	}

	got, err := first.Query("SELECT @@character_set_server, @@collation_server, @@max_connections, @@innodb_buffer_pool_size")
	want := "utf8mb4\tutf8mb4_unicode_ci\t200\t134217728"
	if err != nil || strings.Join(got, "|") != want {
		t.Errorf("settings are %q, %v; want %q", got, err, want)
	}
	if err := first.Exec("CREATE DATABASE d; USE d; CREATE TABLE t (v TEXT); INSERT INTO t VALUES (" + Quote("it's \\ a\tname ✉") + ")"); err != nil {
		t.Fatal(err)
	}
	if err := first.Exec("SELECT nonsense"); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("a wrong statement gives %v; want the server's words", err)
	}

	for name, end := range map[string]func() error{"Stop": first.Stop, "Kill": first.Kill} {
		if err := end(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if c, err := net.Dial("tcp", first.Addr()); err == nil {
			c.Close()
			t.Errorf("after %s the server still accepts", name)
		}
		if err := first.Start(); err != nil {
			t.Fatalf("Start after %s: %v", name, err)
		}
		got, err := first.Query("SELECT v FROM d.t")
		if want := `it's \\ a\tname ✉`; err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("after %s and Start: %q, %v; want %q", name, got, err, want)
		}
	}
	if err := second.Exec("SELECT 1"); err != nil {
		t.Errorf("the other server suffered: %v", err)
	}
}

// A server that cannot start says why, in the words of its own log.
func TestMariaDBFailure(t *testing.T) {
	m, err := StartMariaDB(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Stop(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(m.settingsPath(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("no-such-setting = 1\n")
	f.Close()
	err = m.Start()
	if err == nil || !strings.Contains(err.Error(), "no-such-setting") {
		t.Errorf("Start with a wrong setting: %v; want the log's words", err)
	}
}
