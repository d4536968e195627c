package policy

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What the administrator sees and changes with dovepost policy is what policyd does.
func TestTheAdministratorsCommands(t *testing.T) {
	s := newSite(t, 1)
	m := s.policyds[0]
	m.start("--rules", "rate,shield,greylist", "--rate_limits", "2 messages/1h, 9 recipients/1d", "--rate_total_limits", "50 messages/1h",
		"--shield_networks", "1", "--shield_regions", "0", "--mynetworks", "")
	bin := filepath.Join(binaries(), "dovepost")
	config := filepath.Join(s.dir, "policyd.cf")
	must(t, os.WriteFile(config, fmt.Appendf(nil, "rules = rate, shield,\n  greylist\nmysql = %s\nrate_limits = 2 messages/1h, 9 recipients/1d\nrate_total_limits = 50 messages/1h\n", s.cf()), 0o644))
	command := func(code int, args string) []string {
		t.Helper()
		cmd := exec.Command(bin, append([]string{"policy"}, strings.Fields(args+" --config "+config)...)...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		exit := new(exec.ExitError)
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if got := cmd.ProcessState.ExitCode(); got != code || (stderr.Len() > 0) != (code != 0) {
			t.Errorf("dovepost policy %s: exit code %d, %s; want %d", args, got, stderr.String(), code)
		}
		return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	}
	has := func(args string, lines ...string) {
		t.Helper()
		got := command(0, args)
		if len(got) != len(lines) {
			t.Fatalf("dovepost policy %s: %q, want %d lines", args, got, len(lines))
		}
		for i, line := range lines {
			if !regexp.MustCompile("^" + line + "$").MatchString(got[i]) {
				t.Errorf("dovepost policy %s: line %d is %q, want %q", args, i+1, got[i], line)
			}
		}
	}
	const when = `2\d{3}-\d\d-\d\d \d\d:\d\d:\d\d`

	t.Run("rate", func(t *testing.T) {
		one := func() string { return m.mail("joe@example.com", "joe@example.com", "x@example.com", "y@example.com") }
		s.want(t, "250", one())
		s.want(t, "250", one())
		s.want(t, overLimit, one())
		eventually(t, "the count", "2", func() string {
			return s.sql("SELECT COALESCE(SUM(messages), 0) FROM rate_counts WHERE name = 'joe@example.com' AND step = 60")[0]
		})
		s.sql("INSERT INTO rate_limits (name, limits, total) VALUES ('@other.example', '7 messages/1d', NULL), ('free@example.com', 'unlimited', NULL)")
		has("rate show Joe@example.com @example.com free@example.com jim@other.example", "NAME +OF +LIMIT +USED",
			"joe@example.com +login +2 messages/1h +2", "joe@example.com +login +9 recipients/1d +4", "@example.com +domain +50 messages/1h +2",
			"free@example.com +login +unlimited +-", "jim@other.example +login +7 messages/1d +0")
		for range 2 { // the same twice is the same
			command(0, "rate reset JOE@example.com")
		}
		has("rate show joe@example.com", "NAME.*", "joe@example.com +login +2 messages/1h +0", "joe@example.com .* 0")
		eventually(t, "the reset", "250", one)
		s.want(t, "250", one())
		s.want(t, overLimit, one())
		has("rate show @example.com", "NAME.*", "@example.com +domain +50 messages/1h +[0-9]+")
	})
	t.Run("shield", func(t *testing.T) {
		has("held", "LOGIN +SINCE +RULE +REASON")
		for i := range 2 {
			s.want(t, "250", m.from(fmt.Sprintf("198.18.%d.1", i), "jim@example.com", "x@example.com"))
		}
		eventually(t, "the hold", "jim@example.com", func() string { return strings.Join(command(0, "held")[1:], "") })
		has("held", "LOGIN.*", "jim@example.com +"+when+" +shield +sends from 2 networks of /24 or /64 within 1h0m0s")
		has("release Jim@example.com", "")
		has("held --all", "LOGIN +SINCE +RULE +REASON +STATE", "jim@example.com .* released")
		has("held", "LOGIN.*")
		command(67, "release jim@example.com nobody@example.com")
	})
	t.Run("greylist", func(t *testing.T) {
		command(67, "greylist show 192.0.2.77")
		command(67, "greylist remove 192.0.2.0/24")
		c := m.smtpd.dial(t, "192.0.2.1", "")
		defer c.quit()
		c.want("450", c.rcpt("a@far.example", "x@example.com"))
		has("greylist show 192.0.2.77", "NETWORK +SENDER +RECIPIENT +FIRST SEEN +STATE +UNTIL", "192.0.2.0/24 +a@far.example +x@example.com +"+when+" +waits +"+when)
		s.sql("UPDATE greylist SET first_seen = first_seen - 1000")
		c.want("250", c.rcpt("a@far.example", "x@example.com"))
		has("greylist show 192.0.2.0/24", "NETWORK.*", `192.0.2.0/24 +\* +\* +- +1 passes +`+when, ".* passes +"+when)
		has("greylist remove ::ffff:192.0.2.9", "")
		command(67, "greylist show 192.0.2.77")
		if rows := s.sql("SELECT (SELECT COUNT(*) FROM greylist) + (SELECT COUNT(*) FROM greylist_networks)"); rows[0] != "0" {
			t.Errorf("%s rows are left", rows[0])
		}
	})
}
