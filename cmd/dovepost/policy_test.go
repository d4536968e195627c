package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dovepost/cmd/internal/faultproxy"
)

func TestPolicyWithoutADatabase(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	away := write("mysql.cf", fmt.Sprintf("hosts = inet:127.0.0.1:%d\nuser = x\npassword = secret\ndbname = x\n", faultproxy.ClosedPort(t)))
	config := write("policyd.cf", "rules = rate\nmysql = "+away+"\n")
	for _, tt := range []struct {
		name string
		args []string
		code int
		want string // in what is printed
	}{
		{"a command that is none", []string{"policy", "hold"}, exitUsage, "no command"},
		{"no login", []string{"policy", "release", "--config", config}, exitUsage, "usage: dovepost policy release [flags] LOGIN ..."},
		{"settings that are not there", []string{"policy", "held", "--config", dir + "/none"}, exitConfig, "no such file"},
		{"settings that are wrong", []string{"policy", "held", "--config", write("wrong", "nonsense\n")}, exitConfig, "wrong: line 1"},
		{"settings without a database", []string{"policy", "held", "--config", write("without", "rules = access\n")}, exitConfig, "has no mysql = FILE"},
		{"a file that is not there", []string{"policy", "held", "--config", config, "--mysql", dir + "/none"}, exitConfig, "no such file"},
		{"no network", []string{"policy", "greylist", "show", "--config", config, "example.com"}, exitUsage, "neither an address nor a network"},
		{"limits that are wrong", []string{"policy", "rate", "show", "--config", write("limits", "rate_limits = many\nmysql = "+away+"\n"), "joe"}, exitConfig, "want limits"},
		{"a database that is away", []string{"policy", "held", "--config", config}, exitTemp, "refused"},
		{"limits in a database that is away", []string{"policy", "rate", "show", "--config", config, "joe"}, exitTemp, "refused"},
		{"one that is named", []string{"policy", "rate", "reset", "--mysql", away, "joe"}, exitTemp, "refused"},
	} {
		code, stdout, stderr := dovepost(t, "", tt.args...)
		if code != tt.code || !strings.Contains(stderr, tt.want) || stdout != "" || strings.Contains(stderr, "secret") {
			t.Errorf("it handles %s: %d, %q, %q; want %d, %q", tt.name, code, stdout, stderr, tt.code, tt.want)
		}
	}
}
