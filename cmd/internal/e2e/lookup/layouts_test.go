package lookup

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// layout is how one mail server keeps its users: a database, the files that ask
// it, and the parameters of Postfix that name the files.
type layout struct {
	name  string
	dir   string   // where the files come from
	files []string // copies that ask the database of this layout
	keys  []string // those of expect-lookup.tsv
}

// layouts loads those of testdata and those that DOVEPOST_LAYOUTS names.
func layouts(t *testing.T) (all []*layout) {
	t.Helper()
	dirs := []string{"testdata/layouts"}
	if more := os.Getenv("DOVEPOST_LAYOUTS"); more != "" {
		dirs = append(dirs, filepath.SplitList(more)...)
	}
	for _, dir := range dirs {
		found, err := filepath.Glob(filepath.Join(dir, "*/schema.sql"))
		must(t, err)
		if _, err := os.Stat(filepath.Join(dir, "schema.sql")); err == nil {
			found = append(found, filepath.Join(dir, "schema.sql"))
		}
		if len(found) == 0 {
			t.Fatalf("%s: there is no layout", dir)
		}
		for _, schema := range found {
			if why := unfit[filepath.Base(filepath.Dir(schema))]; why != "" && isMySQL(t) {
				t.Logf("%s: MySQL cannot load it: %s", schema, why)
				continue
			}
			all = append(all, load(t, filepath.Dir(schema), fmt.Sprintf("layout%d", len(all))))
		}
	}
	return all
}

// unfit are the layouts that MySQL 9 cannot serve, whatever asks it, and why.
var unfit = map[string]string{
	"mailcow":    "its column external has the name of a keyword",
	"procedures": "it uses the function MD5, which is gone",
}

func isMySQL(t *testing.T) bool {
	version, err := db.Query("SELECT VERSION()")
	must(t, err)
	return !strings.Contains(version[0], "MariaDB")
}

// load loads one layout into a database.
func load(t *testing.T, dir, database string) *layout {
	t.Helper()
	l := &layout{name: filepath.Base(dir), dir: dir}
	sql := fmt.Sprintf(`DROP DATABASE IF EXISTS %[1]s; CREATE DATABASE %[1]s CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
		DROP USER IF EXISTS %[1]s@127.0.0.1, %[1]s@localhost;
		CREATE USER %[1]s@127.0.0.1 IDENTIFIED BY 'secret2', %[1]s@localhost IDENTIFIED BY 'secret2';
		GRANT SELECT, EXECUTE ON %[1]s.* TO %[1]s@127.0.0.1, %[1]s@localhost; USE %[1]s;`, database)
	for _, file := range []string{"schema.sql", "data.sql"} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		must(t, err)
		sql += "\n" + string(text)
	}
	if err := db.Exec(sql); err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "mysql*.cf"))
	must(t, err)
	copies := newDir(t, l.name)
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		// Of a setting that is there twice, the last one counts.
		account := fmt.Sprintf("\nhosts = %s\nuser = %s\npassword = secret2\ndbname = %[2]s\n", host(text), database)
		file = filepath.Join(copies, filepath.Base(file))
		must(t, os.WriteFile(file, append(text, account...), 0o644))
		l.files = append(l.files, file)
	}
	l.keys = l.expected(t)
	return l
}

// local are the hosts that mean a unix socket.
var local = regexp.MustCompile(`(?m)^hosts\s*=\s*(unix:|localhost)`)

// host returns how the server of the tests is reached in the way of a file.
func host(file []byte) string {
	if local.Match(file) {
		return "unix:" + db.Socket()
	}
	return db.Addr()
}

// expected returns the keys of expect-lookup.tsv: the second column.
func (l *layout) expected(t *testing.T) []string {
	text, err := os.ReadFile(filepath.Join(l.dir, "expect-lookup.tsv"))
	must(t, err)
	keys := map[string]bool{}
	for _, line := range splitLines(string(text)) {
		if columns := strings.Split(line, "\t"); len(columns) >= 3 && !strings.HasPrefix(line, "#") {
			keys[columns[1]] = true
		}
	}
	if len(keys) == 0 {
		t.Fatalf("%s: expect-lookup.tsv has no keys", l.dir)
	}
	return slices.Sorted(maps.Keys(keys))
}

// addresses returns the cast: every key and every recipient of
// expect-resolve.tsv that looks like an address.
func (l *layout) addresses(t *testing.T) []string {
	all := map[string]bool{}
	for _, key := range l.keys {
		all[key] = true
	}
	if text, err := os.ReadFile(filepath.Join(l.dir, "expect-resolve.tsv")); err == nil {
		for _, line := range splitLines(string(text)) {
			recipient, _, _ := strings.Cut(line, "\t")
			all[recipient] = true
		}
	}
	maps.DeleteFunc(all, func(key string, _ bool) bool {
		at := strings.LastIndexByte(key, '@')
		return at < 1 || at == len(key)-1 || strings.ContainsAny(key, "# \t")
	})
	return slices.Sorted(maps.Keys(all))
}

func splitLines(text string) []string {
	if text = strings.TrimSuffix(text, "\n"); text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

func joinLines(lines []string) string { return strings.Join(lines, "\n") }

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}
