package sqldb

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dovepost/lookup/mysql"
)

func writeAndRead(t *testing.T, text string) (*File, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sql.conf.ext")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return ReadFile(path)
}

const head = "driver = mysql\nconnect = host=h dbname=d user=u password=p\n"

// a file handles the syntax of Dovecot's external files.
func TestReadFile(t *testing.T) {
	t.Setenv("SQLDB_TEST", "from env")
	for _, tt := range []struct{ name, text, want string }{
		{"a plain value", "user_query = SELECT 1", "SELECT 1"},
		{"no blanks", "user_query=SELECT 1", "SELECT 1"},
		{"a continued value", "user_query = SELECT \\\n    a, \\\n\tb", "SELECT a, b"},
		{"a comment behind the value", "user_query = SELECT 1 # one", "SELECT 1"},
		{"a comment without blank", "user_query = SELECT 1#one", "SELECT 1"},
		{"# in quotes", `user_query = SELECT '#', "#" # x`, `SELECT '#', "#"`},
		{"an escaped quote in quotes", `user_query = SELECT 'a\'#' # x`, `SELECT 'a\'#'`},
		{"a quote that is not closed on its line", "user_query = SELECT 'a # b \\\n c' # d", "SELECT 'a # b c' # d"},
		{"a quoted value", `user_query = "SELECT \"a\" \\ 'b'"`, `SELECT "a" \ 'b'`},
		{"a single-quoted value", `user_query = 'SELECT 1'`, `SELECT 1`},
		{"quotes inside a value", `user_query = SELECT 'a' "b"`, `SELECT 'a' "b"`},
		{"a trailing semicolon", "user_query = SELECT 1;", "SELECT 1;"},
		{"the environment", "user_query = SELECT $ENV:SQLDB_TEST x$ENV:SQLDB_TEST $ENV:SQLDB_NONE .", "SELECT from env x$ENV:SQLDB_TEST  ."},
		{"the last of two", "user_query = SELECT 1\nuser_query = SELECT 2", "SELECT 2"},
		{"indented lines, CR and comments", "  # x\r\n\t user_query = SELECT 1\r\n#user_query = SELECT 2\r\n", "SELECT 1"},
	} {
		f, err := writeAndRead(t, head+tt.text)
		if err != nil || f.UserQuery != tt.want {
			t.Errorf("it handles %s: got %+v, %v; want %q", tt.name, f, err, tt.want)
		}
	}
}

// errors name file and line, and never the password.
func TestReadFileErrors(t *testing.T) {
	for text, want := range map[string]string{
		head + "nonsense = 1":                                         ":3: unknown setting: nonsense",
		head + "user_query":                                           ":3: user_query: expecting '='",
		head + "\n\nuser_query = a \\\n b\npassdb {":                  ":7: passdb: expecting '='",
		head + "user_query = a \\":                                    ":3: the file ends",
		head + "!include nosuchfile":                                  ":3: ",
		"connect = host=h":                                            ": driver is not set",
		"driver = mysql":                                              ": connect is not set",
		"driver = pgsql\nconnect = host=h":                            ": driver pgsql is not supported",
		"driver = mysql\nconnect = password=geheim":                   ": connect: no host",
		"driver = mysql\nconnect = host=h geheim":                     ": connect: a word without",
		"driver = mysql\nconnect = host=h pass=p":                     ": connect: pass is not supported",
		"driver = mysql\nconnect = host=h port=x":                     ": connect: bad port",
		"driver = mysql\nconnect = host=h port=70000":                 ": connect: bad port",
		"driver = mysql\nconnect = host=h client_flags=65536":         ": connect: client_flags",
		"driver = mysql\nconnect = host=h option_file=/nonexistent":   ": connect: option_file: open /nonexistent",
		"driver = mysql\nconnect = host=h ssl_verify_server_cert=may": ": connect: ssl_verify_server_cert",
		head + "default_pass_scheme =":                                ": default_pass_scheme is empty",
	} {
		_, err := writeAndRead(t, text)
		if err == nil || !strings.Contains(err.Error(), "sql.conf.ext"+want) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%q: got %v, want ...%s...", text, err, want)
		}
	}
}

// a file may include others, next to it.
func TestInclude(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"main": head + "!include sub*.ext\n!include_try none.ext\n!include_try " + dir + "/sub1.ext\n", "sub1.ext": "user_query = 1\n",
		"sub2.ext": "iterate_query = 2\n", "loop": head + "!include loop\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := ReadFile(filepath.Join(dir, "main"))
	if err != nil || f.UserQuery != "1" || f.IterateQuery != "2" {
		t.Errorf("got %+v, %v", f, err)
	}
	if _, err := ReadFile(filepath.Join(dir, "loop")); err == nil {
		t.Error("a loop of includes ends well")
	}
}

// connect becomes a Config.
func TestConnect(t *testing.T) {
	for connect, want := range map[string]mysql.Config{
		"host=127.0.0.1 dbname=d user=u password=p=x":   {Hosts: "inet:127.0.0.1:3306", DBName: "d", User: "u", Password: "p=x"},
		"host=/run/s.sock host=db port=3310 maxconns=4": {Hosts: "unix:/run/s.sock inet:db:3310"},
		"host=localhost port=3310":                      {Hosts: "unix:/run/mysqld/mysqld.sock"},
		"host=h ssl_cert=/c ssl_cipher=HIGH":            {Hosts: "inet:h:3306"},
		"host=h ssl_ca=/ca ssl_cipher=HIGH": {Hosts: "inet:h:3306",
			TLS: mysql.TLS{CAFile: "/ca", Ciphers: "HIGH", VerifyCert: true}},
		"host=h ssl_ca_path=/cas ssl_verify_server_cert=no ssl_cert=/c ssl_key=/k": {Hosts: "inet:h:3306",
			TLS: mysql.TLS{CAPath: "/cas", CertFile: "/c", KeyFile: "/k"}},
	} {
		if got, err := parseConnect(connect); got != want || err != nil {
			t.Errorf("%s:\n got %+v %q %+v, %v\nwant %+v %q %+v", connect, got, got.Password, got.TLS, err, want, want.Password, want.TLS)
		}
	}
}

// What a file sets, written down again in quotes, reads the same.
func FuzzReadFile(f *testing.F) {
	f.Add(head + "user_query = SELECT '%u' \\\n  AS user # x\n")
	f.Add(`iterate_query = "SELECT \"a\" AS user"` + "\n\tpassword_query='x'#y\n")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "!include") || strings.Contains(text, "$ENV") {
			return
		}
		read := func(text string) (keys, values []string, err error) {
			r := &reader{set: func(key, value string) error {
				keys, values = append(keys, key), append(values, value)
				return nil
			}}
			err = r.read("f", text, 0)
			return keys, values, err
		}
		keys, values, err := read(text)
		if err != nil {
			return
		}
		var b strings.Builder
		for i, key := range keys {
			if strings.ContainsAny(key, "\"'#") || key == "" || key == "}" {
				return
			}
			b.WriteString(key + ` = "` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(values[i]) + "\"\n")
		}
		keys2, values2, err := read(b.String())
		if err != nil || len(keys2) != len(keys) {
			t.Fatalf("%q reads as %q %q, and that as %q %q, %v", text, keys, values, keys2, values2, err)
		}
		for i := range keys {
			if keys[i] != keys2[i] || values[i] != values2[i] {
				t.Errorf("%q reads as %q %q, and that as %q %q", text, keys, values, keys2, values2)
			}
		}
	})
}

// What the connect setting leaves open is taken from the option file.
func TestOptionFile(t *testing.T) {
	options := filepath.Join(t.TempDir(), "my.cnf")
	text := "[client]\nuser = of-client\npassword = 'of client'\nport = 3307\nsocket = /run/client.sock\n[mail]\nuser = of-mail\ndatabase = maildb\nssl-ca = /ca\n[mysqld]\nuser = mysql\n"
	if err := os.WriteFile(options, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for connect, want := range map[string]mysql.Config{
		"host=h option_file=" + options: {Hosts: "inet:h:3307", User: "of-client", Password: "of client"},
		"host=h option_group=mail option_file=" + options: {Hosts: "inet:h:3307", User: "of-mail", Password: "of client", DBName: "maildb",
			TLS: mysql.TLS{CAFile: "/ca"}},
		"host=localhost option_file=" + options:                              {Hosts: "unix:/run/client.sock", User: "of-client", Password: "of client"},
		"host=h port=3308 user=u password=p dbname=d option_file=" + options: {Hosts: "inet:h:3308", User: "u", Password: "p", DBName: "d"},
	} {
		if got, err := parseConnect(connect); err != nil || got != want {
			t.Errorf("%s: got %#v %+v, %v; want %+v", connect, got, got.TLS, err, want)
		}
	}
}
