package auth

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

// layout is how one mail server keeps its users: a database, and the files with
// which its Dovecot asks it.
type layout struct {
	name     string
	database string
	files    []string // copies of dovecot-sql*.conf.ext that ask the database of this layout
	modern   string   // the copy of dovecot-2.4-sql.conf, where there is one
	settings string   // settings.conf: auth_ settings of this layout
	cast     []string // those of expect-auth.tsv
}

// siteLayouts loads those of testdata/layouts and those that DOVEPOST_LAYOUTS names.
// Tables of a layout that cmd/internal/e2e/lookup has, too, are there.
func siteLayouts(t *testing.T) (all []*layout) {
	t.Helper()
	dirs := []string{"testdata/layouts"}
	if more := os.Getenv("DOVEPOST_LAYOUTS"); more != "" {
		dirs = append(dirs, filepath.SplitList(more)...)
	}
	for _, dir := range dirs {
		found, err := filepath.Glob(filepath.Join(dir, "*/dovecot-sql*.conf.ext"))
		if err != nil {
			t.Fatal(err)
		}
		alone, _ := filepath.Glob(filepath.Join(dir, "dovecot-sql*.conf.ext"))
		sites := map[string]bool{}
		for _, file := range append(found, alone...) {
			sites[filepath.Dir(file)] = true
		}
		if len(sites) == 0 {
			t.Fatalf("%s: there is no layout", dir)
		}
		for _, site := range slices.Sorted(maps.Keys(sites)) {
			all = append(all, loadLayout(t, site, fmt.Sprintf("site%d", len(all))))
		}
	}
	return all
}

var (
	connectSetting = regexp.MustCompile(`(?m)^connect[ \t]*=(?:.*\\\n)*.*$`)
	modernServer   = regexp.MustCompile(`(?m)^mysql [^{]*\{(?:[^}]*)\}`)
	absolutePath   = regexp.MustCompile(`(^|[^\w/])(/(?:var|srv|home)/)`)
)

// loadLayout loads one layout into a database of its own. Homes move below a scratch
// directory that everybody may write to.
func loadLayout(t *testing.T, dir, database string) *layout {
	t.Helper()
	l := &layout{name: filepath.Base(dir), database: database, cast: castOf(dir)}
	scratch := directory(t)
	for _, sub := range []string{"", "/var", "/srv", "/home"} {
		os.Mkdir(scratch+sub, 0o777)
		os.Chmod(scratch+sub, 0o777)
	}
	move := func(text string) string { return absolutePath.ReplaceAllString(text, "${1}"+scratch+"${2}") }
	sql := fmt.Sprintf(`DROP DATABASE IF EXISTS %[1]s; CREATE DATABASE %[1]s CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
		GRANT SELECT, EXECUTE ON %[1]s.* TO reader@127.0.0.1; USE %[1]s;`, database)
	for _, file := range []string{"schema.sql", "data.sql"} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			text, err = os.ReadFile(filepath.Join("../lookup/testdata/layouts", l.name, file))
		}
		if err != nil {
			t.Fatal(err)
		}
		sql += "\n" + cheaper(t, move(string(text)), l.cast)
	}
	// A keyword of MySQL 9, and a column of mailcow's that no login needs.
	sql = strings.NewReplacer("external TINYINT", "`external` TINYINT", ",external)", ",`external`)", ", external,", ", `external`,").Replace(sql)
	if err := db.Exec(sql); err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	connect := fmt.Sprintf("connect = host=127.0.0.1 port=%d dbname=%s user=reader password=secret2", db.Port(), database)
	files, _ := filepath.Glob(filepath.Join(dir, "dovecot-sql*.conf.ext"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(scratch, filepath.Base(file))
		write(t, copied, move(connectSetting.ReplaceAllString(string(text), connect)), 0o644)
		l.files = append(l.files, copied)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "dovecot-2.4-sql.conf")); err == nil {
		server := fmt.Sprintf("mysql 127.0.0.1 {\n  port = %d\n  user = reader\n  password = secret2\n  dbname = %s\n}", db.Port(), database)
		l.modern = filepath.Join(scratch, "dovecot-2.4-sql.conf")
		write(t, l.modern, move(modernServer.ReplaceAllString(string(text), server)), 0o644)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "settings.conf")); err == nil {
		l.settings = string(text)
	} else {
		l.settings = "auth_username_chars =\n" // the cast has an apostrophe in it
	}
	return l
}

// questions are the files that authd is given: all but those that Dovecot 2.4, where it
// is installed, could not be asked the same with; and there, the form of 2.4, too.
func (l *layout) questions(t *testing.T) (files []string) {
	if !isModern() {
		return l.files
	}
	for _, file := range l.files {
		text, err := twin24(t, file, l.database)
		switch {
		case err == nil:
			twin := strings.TrimSuffix(file, ".conf.ext") + "-twin.conf"
			write(t, twin, text, 0o644)
			files = append(files, file, twin)
		case l.modern == "":
			t.Errorf("%s needs a dovecot-2.4-sql.conf: %v", l.name, err)
		}
	}
	if l.modern != "" {
		files = append(files, l.modern)
	}
	return files
}

// inline is what has Dovecot 2.4 itself ask what a file asks.
func (l *layout) inline(t *testing.T, file string) string {
	t.Helper()
	if strings.HasSuffix(file, ".conf.ext") {
		file = strings.TrimSuffix(file, ".conf.ext") + "-twin.conf"
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// castOf returns the users of expect-auth.tsv: the second column.
func castOf(dir string) []string {
	text, _ := os.ReadFile(filepath.Join(dir, "expect-auth.tsv"))
	users := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if columns := strings.Split(strings.TrimSpace(line), "\t"); len(columns) >= 3 && !strings.HasPrefix(line, "#") {
			users[columns[1]] = true
		}
	}
	return slices.Sorted(maps.Keys(users))
}

// strangers are asked for everywhere, and are somebody hardly anywhere.
var strangers = []string{"nobody@example.com", "alice", "Alice@EXAMPLE.com", "alice@alias.example", "postmaster@example.com", "alice+x@example.com",
	"alice@example.com ", "%u@example.com", "' OR '1'='1", "root", "@example.com", "bob@", "alice@example.com@example.net"}

// passwordOf is the right password of a member of the cast.
func passwordOf(user string) string {
	local, _, _ := strings.Cut(user, "@")
	return strings.NewReplacer("'", "", " ", "").Replace(strings.ToLower(local)) + "-secret"
}

// startSites starts Dovecot's own auth service and authd for the same layout, each with a
// Dovecot of its own.
func startSites(t *testing.T, l *layout, file string, postfix *submission) (native, ours *site) {
	t.Helper()
	native = startNativeSite(t, l, file, postfix)
	ours = startOurSite(t, l, file, postfix)
	postfix.start(t)
	native.smtp, ours.smtp = postfix.Addr(0), postfix.Addr(1)
	return native, ours
}
