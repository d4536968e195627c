package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/pflag"

	"dovepost/cmd/internal/daemon/daemontest"
	"dovepost/cmd/internal/faultproxy"
	"dovepost/lookup/postconf"
	"dovepost/lookup/socketmap"
)

// parsed returns the settings of a command line, with --listen as the daemon has it.
func parsed(t *testing.T, args ...string) *settings {
	t.Helper()
	s := &settings{}
	fs := pflag.NewFlagSet("lookupd", pflag.ContinueOnError)
	fs.StringArray("listen", nil, "")
	s.flags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEndpoint(t *testing.T) {
	for _, tt := range []struct{ listen, want string }{
		{"", "socketmap:unix:dovepost/lookup"},
		{"socketmap:unix:/var/spool/postfix/x/lookup,mode=0660", "socketmap:unix:x/lookup"},
		{"socketmap:unix:/run/lookup", "socketmap:unix:/run/lookup"},
		{"socketmap:inet:127.0.0.1:2100", "socketmap:inet:127.0.0.1:2100"},
		{"tcp_table=x:inet:127.0.0.1:2100", "socketmap:unix:dovepost/lookup"},
		{"socketmap:inet:127.0.0.1:2100 socketmap:unix:/var/spool/postfix/x metrics:inet:127.0.0.1:1", "socketmap:unix:x"},
	} {
		var args []string
		for _, l := range strings.Fields(tt.listen) {
			args = append(args, "--listen="+l)
		}
		c, err := postconf.Parse("/etc/postfix", "", "")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parsed(t, args...).endpoint(c); got != tt.want || err != nil {
			t.Errorf("%s: %q, %v; want %q", tt.listen, got, err, tt.want)
		}
	}
}

// What main.cf says holds unless lookupd was told something else.
func TestWithMainCf(t *testing.T) {
	c, err := postconf.Parse("/etc/postfix", "recipient_delimiter = +-\npropagate_unmatched_extensions =\nmyorigin = one.example\nmydestination = two.example\n", "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := parsed(t).withMainCf(c)
	if err != nil || s.delimiter != "+-" || s.propagate != "" || s.localDomains != "one.example two.example" || !strings.Contains(s.parents, "relay_domains") {
		t.Errorf("from main.cf: %+v, %v", s, err)
	}
	s, err = parsed(t, "--recipient_delimiter=_", "--local_domains=").withMainCf(c)
	if err != nil || s.delimiter != "_" || s.localDomains != "" {
		t.Errorf("from the command line: %+v, %v", s, err)
	}
}

// postfixDir makes a configuration directory with one table.
func postfixDir(t *testing.T, main string) string {
	dir := t.TempDir()
	table := fmt.Sprintf("hosts = 127.0.0.1:%d\npassword = s3cret\ndbname = d\nquery = SELECT 1 FROM t WHERE k='%%s'\n", faultproxy.ClosedPort(t))
	for name, text := range map[string]string{"main.cf": main, "t.cf": table, "master.cf": "smtp inet n - y - - smtpd\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestPrintMainCf(t *testing.T) {
	dir := postfixDir(t, "relocated_maps = mysql:${config_directory}/t.cf\nalias_maps = mysql:/etc/aliases.cf\n")
	socket := "--listen=socketmap:unix:" + filepath.Join(t.TempDir(), "s") // nobody listens while it prints
	set := "postconf -e -c " + dir + " 'relocated_maps = "
	forth := set + "${dovepost?{socketmap:inet:127.0.0.1:99:relocated_maps}:{mysql:${config_directory}/t.cf}}'\npostconf -e -c " + dir + " 'dovepost = yes'\n"
	back := set + "mysql:${config_directory}/t.cf'\npostconf -X -c " + dir + " dovepost\n"
	for _, tt := range []struct{ mode, want string }{
		{"--print-main-cf=back", back},
		{"--print-main-cf=switch", "# To have Postfix ask lookupd, which must be running:\n# alias_maps: stays with mysql: local(8) takes no socketmap\n" + forth + "# Then: postfix reload\n"},
		{"--print-main-cf", "# To have Postfix ask lookupd, which must be running:\n# alias_maps: stays with mysql: local(8) takes no socketmap\n" + forth + "# Then: postfix reload\n#\n# To go back:\n#" +
			strings.ReplaceAll(strings.TrimSpace(back), "\n", "\n#") + "\n# Then: postfix reload\n"},
	} {
		out, err := daemontest.Command(t, "--postfix="+dir, "--listen=socketmap:inet:127.0.0.1:99", tt.mode).Output()
		if string(out) != tt.want || err != nil {
			t.Errorf("%s: %v, got\n%swant\n%s", tt.mode, err, out, tt.want)
		}
	}
	for _, args := range [][]string{{"--print-main-cf", socket}, {"--print-main-cf=x", "--postfix=" + dir}, {"--print-main-cf", "--postfix=/nonexistent"}} {
		daemontest.Exits(t, 78, "", args...)
	}
}

// lookupd does not start when Postfix asks for maps that it would not have.
func TestPostfixRefused(t *testing.T) {
	for _, tt := range []struct{ name, main, says string }{
		{"a main.cf without tables", "relocated_maps = hash:/x\n", "no map to serve"},
		{"a bad main.cf", "relocated_maps\n", "line 1"},
		{"a table whose file is not there", "relocated_maps = mysql:/nonexistent/x.cf\n", "/nonexistent/x.cf"},
		{"a map whose tables are not known", "canonical_maps = mysql:${config_directory}/t.cf\nrelocated_maps = socketmap:unix:dovepost/lookup:relocated_maps\n", "relocated_maps asks for the map relocated_maps"},
		{"a bad setting of Postfix", "canonical_maps = mysql:${config_directory}/t.cf\npropagate_unmatched_extensions = all\n", "unknown class"},
	} {
		dir := postfixDir(t, tt.main)
		t.Run("it handles "+tt.name, func(t *testing.T) { daemontest.Exits(t, 78, tt.says, "--check", "--postfix="+dir) })
	}
	dir := postfixDir(t, "canonical_maps = mysql:${config_directory}/t.cf\nrelocated_maps = socketmap:unix:dovepost/lookup:other\n")
	// With a --map of the name it is the database that does not answer.
	daemontest.Exits(t, 75, "", "--check", "--postfix="+dir, "--map=other=address:"+dir+"/t.cf")
}

// A file that is not there, or no table, costs the map that needs it: Postfix goes on to ask MySQL
// where it did, and gets temporary errors where it asks lookupd already. --check says so.
func TestBrokenFiles(t *testing.T) {
	const asked = "dovepost = yes\nrecipient_bcc_maps = ${dovepost?{socketmap:unix:dovepost/lookup:recipient_bcc_maps}:{mysql:/nonexistent/bcc.cf}}\n"
	dir := postfixDir(t, "relocated_maps = mysql:${config_directory}/t.cf\ncanonical_maps = mysql:${config_directory}/main.cf\n"+
		"smtpd_sender_restrictions = check_sender_access mysql:/nonexistent/x.cf, check_recipient_access mysql:${config_directory}/t.cf\n"+asked)
	out, err := daemontest.Command(t, "--postfix="+dir, "--print-main-cf=switch").Output()
	for _, want := range []string{
		"\n# check_sender_access: cannot be served: open /nonexistent/x.cf: no such file or directory\n",
		"\n# canonical_maps stays as it is: the map canonical_maps cannot be served. Then:\n#postconf ",
		"\n# smtpd_sender_restrictions stays as it is: the map check_sender_access cannot be served. Then:\n#postconf ",
		"\npostconf -e -c " + dir + " 'relocated_maps = ${dovepost?",
	} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("it prints %v, %s; want %q", err, out, want)
		}
	}
	daemontest.Exits(t, 78, "map recipient_bcc_maps: open /nonexistent/bcc.cf", "--check", "--postfix="+dir)

	socket := filepath.Join(t.TempDir(), "s")
	l := daemontest.Start(t, daemontest.Command(t, "--postfix="+dir, "--listen=socketmap:unix:"+socket))
	l.WaitFor("a file is wrong: all keys of its map are a temporary error")
	l.WaitFor("msg=ready")
	client, err := socketmap.Dial(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for name, want := range map[string]string{
		"recipient_bcc_maps": "TEMP lookup failed", "relocated_maps": "TEMP lookup failed", "check_recipient_access": "TEMP lookup failed",
		"canonical_maps": "TEMP unknown map", "check_sender_access": "TEMP unknown map",
	} {
		var reply *socketmap.ReplyError
		if value, err := client.Lookup(t.Context(), name, "user@example.com"); !errors.As(err, &reply) || reply.Reply != want {
			t.Errorf("%s: %q, %v; want %q", name, value, err, want)
		}
	}
	l.Stop()
}

// A file that lookupd may not read is no broken table: Postfix reads it, and so does root, who would
// switch to a map that there is not.
func TestForbiddenFile(t *testing.T) {
	dir := postfixDir(t, "relocated_maps = mysql:${config_directory}/t.cf\n")
	for path, mode := range map[string]os.FileMode{filepath.Dir(dir): 0o755, dir: 0o755, filepath.Join(dir, "main.cf"): 0o644, filepath.Join(dir, "master.cf"): 0o644, filepath.Join(dir, "t.cf"): 0} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		if err := syscall.Seteuid(65534); err != nil {
			t.Fatal(err)
		}
		defer syscall.Seteuid(0)
	}
	if _, _, err := parsed(t, "--postfix="+dir).plan(); !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "t.cf") {
		t.Errorf("it handles a file that may not be read: %v", err)
	}
}
