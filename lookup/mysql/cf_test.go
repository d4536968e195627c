package mysql

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func init() { systemOptionFiles = nil } // what is in /etc must not matter

const minimal = "dbname = mail\nquery = SELECT '%s'\n"

// a .cf file handles the syntax of Postfix.
func TestSettings(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"aligned and unaligned names", "a=1\nbb   =  2\nc =3", "a=1 bb=2 c=3"},
		{"continued lines", "a = x\n  y\n\tz", "a=x  y\tz"},
		{"comments and blanks between continued lines", "a = x\n# no\n\n   # nor this\n  y\n", "a=x  y"},
		{"a value with # and quotes", `a = "x" # y`, `a="x" # y`},
		{"trailing blanks and CR", "a = x \t\r\nb =\r\n", "a=x b="},
		{"equal signs in values", "a = b = c", "a=b = c"},
		{"no final newline", "a = 1\nb = 2", "a=1 b=2"},
		{"blanks at the start of comments", "  # x\na = 1", "a=1"},
	}
	for _, tt := range tests {
		settings, err := parseSettings("f", []byte(tt.text))
		var got []string
		for _, s := range settings {
			got = append(got, s.name+"="+s.value)
		}
		if err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("it handles %s: got %q, %v; want %q", tt.name, got, err, tt.want)
		}
	}
	for text, want := range map[string]string{
		"a = 1\nnonsense\n": "f:2: missing '='",
		"a b = 1":           "f:1: missing '='",
		"= 1":               "f:1: missing attribute name",
		"  a = 1":           "f:1: the first line",
		"a = 1\nb = \x00":   "f:2: NUL",
	} {
		if _, err := parseSettings("f", []byte(text)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: got %v, want %s...", text, err, want)
		}
	}
}

// every option of mysql_table(5) arrives where it belongs.
func TestParseFile(t *testing.T) {
	f, err := parseFile("f.cf", []byte(`
hosts = host1.example:3307, unix:/run/x.sock localhost:1 inet:10.0.0.1 inet:[::1]:33
user = u
password = p # w
dbname = db
charset = latin1
query = SELECT '%s'
result_format = <%s>
domain = example.com
expansion_limit = 7
require_result_set = NO
idle_interval = 5
retry_interval = 6
tls_cert_file = /c
tls_key_file = /k
tls_CAfile = /ca
tls_CApath = /cas
tls_ciphers = HIGH
tls_verify_cert = yes
`))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Hosts: "unix:/run/x.sock unix:/run/mysqld/mysqld.sock inet:host1.example:3307 inet:10.0.0.1:3306 inet:[::1]:33",
		User:  "u", Password: "p # w", DBName: "db", Charset: "latin1",
		TLS:           TLS{CertFile: "/c", KeyFile: "/k", CAFile: "/ca", CAPath: "/cas", Ciphers: "HIGH", VerifyCert: true},
		RetryInterval: 6 * time.Second, IdleInterval: 5 * time.Second,
	}
	if got := f.Config(); got != want {
		t.Errorf("got  %#v %v\nwant %#v %v", got, got.TLS, want, want.TLS)
	}
	if f.resultFormat != "<%s>" || f.expansionLimit != 7 || f.requireResultSet || !f.domains.match("example.com") || !f.HasQuery() || len(f.Warnings) != 0 {
		t.Errorf("got %+v", f)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, f.Config()); strings.Contains(got, "p # w") {
			t.Errorf("%s shows the password: %s", verb, got)
		}
	}

	f, err = parseFile("f.cf", []byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	want = Config{Hosts: "unix:/run/mysqld/mysqld.sock", DBName: "mail", Charset: "utf8mb4", RetryInterval: time.Minute, IdleInterval: time.Minute}
	if got := f.Config(); got != want || !f.requireResultSet || f.resultFormat != "%s" {
		t.Errorf("defaults: got %v %+v", got, f)
	}
}

// the old style becomes a query.
func TestParseFileLegacy(t *testing.T) {
	f, err := parseFile("f.cf", []byte("dbname = d\nquery =\ntable = alias\nselect_field = goto\nwhere_field = address\nadditional_conditions = AND active = 1\n"))
	if want := "SELECT goto FROM alias WHERE address='%s' AND active = 1"; err != nil || f.query != want {
		t.Errorf("got %+v, %v; want %q", f, err, want)
	}
}

// errors say where they are, and what Postfix would ignore is a warning.
func TestParseFileErrors(t *testing.T) {
	for text, want := range map[string]string{
		"query = x":                           "f.cf: dbname is not set",
		"dbname =\nquery = x":                 "f.cf:1: dbname: must not be empty",
		minimal + "expansion_limit = x":       "f.cf:3: expansion_limit: bad number",
		minimal + "expansion_limit = -1":      "f.cf:3: expansion_limit: bad number",
		minimal + "require_result_set = 1":    "f.cf:3: require_result_set:",
		minimal + "charset = utf8; DROP x":    "f.cf:3: charset:",
		minimal + "hosts = unix:relative":     "f.cf:3: hosts:",
		minimal + "hosts = h:nosuchservice":   "f.cf:3: hosts:",
		minimal + "hosts = ,":                 "f.cf:3: hosts: no host",
		minimal + "result_format =":           "f.cf:3: result_format:",
		minimal + "domain = pcre:/x":          "f.cf:3: domain:",
		minimal + "domain = $mydomain":        "f.cf:3: domain:",
		minimal + "domain = /nonexistent":     "f.cf:3: domain:",
		minimal + "option_file = /nonexisten": "f.cf:3: option_file:",
		"dbname = d\ntable = t":               "f.cf:2: table: 'select_field'",
	} {
		if _, err := parseFile("f.cf", []byte(text)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: got %v, want %s...", text, err, want)
		}
	}
	f, err := parseFile("f.cf", []byte(minimal+"user = a\nuser = b\nnonsense = 1\n"))
	want := []string{"f.cf:4: user: overrides line 3", "f.cf:5: nonsense: unknown parameter, ignored"}
	if err != nil || !reflect.DeepEqual(f.Warnings, want) || f.Config().User != "b" {
		t.Errorf("got %+v, %v; want warnings %q", f, err, want)
	}
}

// a domain list handles what a Postfix string list does.
func TestDomains(t *testing.T) {
	more := filepath.Join(t.TempDir(), "more")
	if err := os.WriteFile(more, []byte("# comment\nc.example, !d.example\n\te.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := parseDomains("A.example, !b.example straße.example "+more+" !"+more, readBounded)
	if err != nil {
		t.Fatal(err)
	}
	for domain, want := range map[string]bool{"a.example": true, "b.example": false, "strasse.example": true, "c.example": true,
		"d.example": false, "e.example": true, "x.a.example": false, "": false, "other.example": false} {
		if got := d.match(domain); got != want {
			t.Errorf("%q: got %v, want %v", domain, got, want)
		}
	}
	if _, err := parseDomains("!", readBounded); err == nil {
		t.Error("a lone ! is taken")
	}
}

// an option file gives what the table file leaves open.
func TestOptionFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	included := write("more.cnf", "[client-server]\nsocket=/run/other.sock\n[mysqld]\nport=1\n")
	path := write("my.cnf", "# x\n!include "+included+"\n[mysql]\nuser=no\nssl\n[client]\nuser = 'opt user'\npassword=secret\nsocket = \"/run/a#b.sock\" # comment\nport=3310\nssl_ca=/ca\nquick\n[postfix]\nssl-verify-server-cert\n")
	f, err := parseFile("f.cf", []byte(minimal+"hosts = localhost h\noption_file = "+path+"\noption_group = postfix\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{Hosts: "unix:/run/a#b.sock inet:h:3310", User: "opt user", DBName: "mail", Charset: "utf8mb4",
		TLS: TLS{CAFile: "/ca", VerifyCert: true}, RetryInterval: time.Minute, IdleInterval: time.Minute}
	if got := f.Config(); got != want {
		t.Errorf("got  %+v %q %v\nwant %+v %q %v", got, got.Password, got.TLS, want, want.Password, want.TLS)
	}
	f, err = parseFile("f.cf", []byte(minimal+"option_file = "+write("tls.cnf", "[client]\nssl\nssl-enforce=on")))
	if got := f.Config().TLS; err != nil || got != (TLS{Preferred: true}) {
		t.Errorf("got %+v, %v; want TLS", f, err)
	}
	for _, text := range []string{"[client]\nprotocol=tcp", "[client]\nssl-mode=REQUIRED", "[client", "!include " + write("loop.cnf", "!include "+filepath.Join(dir, "loop.cnf"))} {
		if _, err := parseFile("f.cf", []byte(minimal+"option_file = "+write("bad.cnf", text))); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// the files of the system give the same, where the table file does not forbid it, and
// what is in them for other programs does no harm.
func TestSystemOptionFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "my.cnf")
	text := "[client-server]\nsocket = /run/other.sock\n[client]\nhost = elsewhere\nport=3310\nssl\nprotocol = tcp\nuser = somebody\npassword = secret\n" +
		"!include /nonexistent\n[mysqld]\nport=1\n[postfix]\nssl_ca=/ca\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	systemOptionFiles = []string{"/nonexistent/my.cnf", path}
	defer func() { systemOptionFiles = nil }()
	for options, want := range map[string]Config{
		"":                        {Hosts: "unix:/run/other.sock", User: "somebody", TLS: TLS{Preferred: true}},
		"hosts = h\nuser = u":     {Hosts: "inet:h:3310", User: "u", TLS: TLS{Preferred: true}},
		"option_group = postfix":  {Hosts: "unix:/run/other.sock", User: "somebody", TLS: TLS{Preferred: true, CAFile: "/ca"}},
		"option_group =":          {Hosts: "unix:/run/mysqld/mysqld.sock"},
		"option_file = /dev/null": {Hosts: "unix:/run/mysqld/mysqld.sock"},
	} {
		f, err := parseFile("f.cf", []byte(minimal+options))
		if err != nil {
			t.Error(err)
			continue
		}
		got := f.Config()
		if got.Hosts != want.Hosts || got.User != want.User || got.Password != want.Password || got.TLS != want.TLS {
			t.Errorf("%q: got %v %v, want %v %v", options, got, got.TLS, want, want.TLS)
		}
		warned := len(f.Warnings) == 2 && strings.Contains(f.Warnings[0], "protocol") && strings.Contains(f.Warnings[1], "nonexistent")
		if reads := want.User != ""; warned != reads {
			t.Errorf("%q: got warnings %q", options, f.Warnings)
		}
	}
}

// hosts are taken in their order where that is wanted.
func TestHostOrder(t *testing.T) {
	for order, want := range map[string]bool{"": false, "host_order = random": false, "host_order = first": true} {
		if f, err := parseFile("f.cf", []byte(minimal+order)); err != nil || f.Config().InOrder != want || len(f.Warnings) > 0 {
			t.Errorf("%q: got %+v, %v", order, f, err)
		}
	}
	if _, err := parseFile("f.cf", []byte(minimal+"host_order = any")); err == nil || !strings.HasPrefix(err.Error(), "f.cf:3: host_order:") {
		t.Errorf("got %v", err)
	}
}

// Seed keeps the server and gives each parameter its query.
func TestSeed(t *testing.T) {
	f, err := parseFile("f.cf", []byte("dbname = mail\nuser = u\nresult_format = <%s>\n"))
	if err != nil || f.HasQuery() {
		t.Fatal(f, err)
	}
	files := Seed(f)
	if len(files) != 4 {
		t.Errorf("got %d files", len(files))
	}
	for parameter, file := range files {
		if file.Config() != f.Config() || file.resultFormat != "%s" {
			t.Errorf("%s: got %+v", parameter, file)
		}
		if _, err := NewTable(file, OpenPool(file.Config(), 1)); err != nil {
			t.Errorf("%s: %v", parameter, err)
		}
	}
	if _, err := NewTable(f, OpenPool(f.Config(), 1)); err == nil {
		t.Error("a file without query makes a table")
	}
}

// What is read, written down again setting by setting, reads the same; and no
// file gives a lookup without a server or a database.
func FuzzParseFile(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte("user = mailuser\npassword = mailpassword\nhosts = 127.0.0.1\ndbname = maildb\nquery = SELECT 1 FROM domains WHERE domain = '%s'\n"))
	f.Add([]byte("a = x\n# no\n\n  y\nhosts = unix:/a inet:b:3306 [::1]:1\nresult_format=%d\ndomain = a !b\ndbname=d\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		settings, err := parseSettings("f", data)
		if err != nil {
			return
		}
		var b strings.Builder
		for _, s := range settings {
			fmt.Fprintf(&b, "%s = %s\n", s.name, s.value)
		}
		again, err := parseSettings("f", []byte(b.String()))
		if err != nil || len(again) != len(settings) {
			t.Fatalf("%q reads as %v, and that as %v, %v", data, settings, again, err)
		}
		for i := range settings {
			if settings[i].name != again[i].name || settings[i].value != again[i].value {
				t.Fatalf("%q reads as %v, and that as %v", data, settings, again)
			}
		}
		if strings.Contains(string(data), "/") {
			return // never let the fuzzer name files
		}
		file, err := parseFile("f", data)
		if err != nil {
			return
		}
		if c := file.Config(); c.DBName == "" || c.Hosts == "" {
			t.Errorf("%q gives %v", data, c)
		}
		again2, err := parseFile("f", []byte(b.String()))
		if err != nil || again2.Config() != file.Config() || again2.query != file.query {
			t.Errorf("%q gives %+v, and then %+v, %v", data, file, again2, err)
		}
	})
}

// Digest changes with the text of every file that the answers depend on.
func TestDigest(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	inner := write("inner", "a.example\n")
	list := write("list", inner+" b.example\n")
	more := write("more.cnf", "[client]\nuser = u\n")
	client := write("my.cnf", "!include "+more+"\n")
	table := write("table.cf", "hosts = h\ndbname = d\nquery = SELECT '%s'\ndomain = "+list+"\noption_file = "+client+"\n")
	seen := map[string]string{}
	check := func(when string, fresh bool) {
		t.Helper()
		f, err := ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		if before, ok := seen[f.Digest()]; ok == fresh {
			t.Errorf("%s: %s, as %q", when, f.Digest(), before)
		}
		seen[f.Digest()] = when
		if f.WithQuery("SELECT 1").Digest() != f.Digest() {
			t.Errorf("%s: another query, another digest", when)
		}
	}
	check("at first", true)
	check("read again", false)
	write("inner", "c.example\n")
	check("the list in the list", true)
	write("list", inner+"\n")
	check("the list", true)
	write("more.cnf", "[client]\nuser = v\n")
	check("the option file in the option file", true)
	write("my.cnf", "!include "+more+"\n# x\n")
	check("the option file", true)
	write("table.cf", "hosts = h\ndbname = d\nquery = SELECT '%s'\n")
	check("the table", true)
}
