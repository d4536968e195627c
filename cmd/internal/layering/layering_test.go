// Package layering holds the import rules of the repository, as a test.
//
//	level 0  vocabulary  lookup auth lmtp policy: the standard library without net, os and SQL
//	level 1  wire        one protocol each, and nothing of the schema
//	         rules       ladders, caches, mechanisms, mailboxes: neither SQL nor protocols
//	         store       lookup/mysql, auth/sqldb: the only packages that see sqlx or the driver
//	         client      auth/oauth2: asks servers over HTTP
//	         loop        cmd/internal/loop, cmd/internal/serve
//	level 2  skeleton    cmd/internal/daemon
//	level 3  cmd/*       the only place where store, wire and rules meet
package layering

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "dovepost"

// kind says which packages from outside the module a package may not see.
type kind int

const (
	vocabulary kind = iota
	wire
	rules
	store
	client
	command
)

var (
	sqlPackages  = []string{"database/sql", "database/sql/driver", "github.com/jmoiron/sqlx", "github.com/go-sql-driver/mysql"}
	hostPackages = []string{"net", "net/http", "os", "os/exec", "syscall", "golang.org/x/sys/unix"}

	forbidden = map[kind][]string{
		vocabulary: append(hostPackages, sqlPackages...),
		wire:       sqlPackages,
		rules:      append([]string{"net", "net/http"}, sqlPackages...),
		store:      nil,
		client:     sqlPackages,
		command:    {"github.com/jmoiron/sqlx", "github.com/go-sql-driver/mysql"},
	}
)

// table lists, for every package outside cmd, its kind and the packages of the
// module that it may import. A package that is not listed fails the test.
var table = map[string]struct {
	kind    kind
	imports []string
}{
	"lookup":               {vocabulary, nil},
	"lookup/internal/wire": {wire, []string{"lookup"}},
	"lookup/socketmap":     {wire, []string{"lookup", "lookup/internal/wire"}},
	"lookup/tcptable":      {wire, []string{"lookup", "lookup/internal/wire"}},
	"lookup/ladder":        {rules, []string{"lookup", "lookup/fold"}},
	"lookup/cache":         {rules, []string{"lookup"}},
	"lookup/postconf":      {rules, []string{"lookup/bounded", "lookup/ladder"}},
	"lookup/fold":          {rules, nil},
	"lookup/bounded":       {rules, nil},
	"lookup/mysql":         {store, []string{"lookup", "lookup/bounded", "lookup/fold"}},

	"auth":            {vocabulary, nil},
	"auth/dovecot":    {wire, []string{"auth"}},
	"auth/sasl":       {rules, []string{"auth"}},
	"auth/oauth2":     {client, []string{"auth", "lookup/bounded"}},
	"auth/scheme":     {rules, nil},
	"auth/expand":     {rules, []string{"auth"}},
	"auth/passwdfile": {rules, []string{"auth", "lookup/bounded"}},
	"auth/guard":      {rules, []string{"auth", "auth/expand", "auth/scheme"}},
	"auth/sqldb":      {store, []string{"auth", "auth/expand", "lookup/bounded", "lookup/mysql"}},

	"lmtp":         {vocabulary, nil},
	"lmtp/session": {wire, []string{"lmtp"}},
	"lmtp/journal": {rules, nil},
	"lmtp/maildir": {rules, []string{"auth", "auth/expand", "lmtp", "lmtp/journal"}},
	"lmtp/quota":   {rules, []string{"lmtp", "lmtp/maildir"}},

	"lmtp/filter":            {rules, []string{"lmtp"}},
	"lmtp/filter/junk":       {rules, []string{"lmtp"}},
	"lmtp/filter/submission": {wire, []string{"lmtp"}},

	"policy":            {vocabulary, nil},
	"policy/delegation": {wire, []string{"policy"}},
	"policy/rules":      {rules, []string{"policy", "policy/ledger"}},
	"policy/breaker":    {rules, []string{"policy"}},
	"policy/notify":     {rules, nil},
	"policy/ledger":     {rules, nil},
	"policy/sqldb":      {store, []string{"lookup/mysql", "policy", "policy/breaker", "policy/ledger", "policy/rules"}},

	"cmd/internal/loop":   {wire, nil},
	"cmd/internal/serve":  {wire, []string{"cmd/internal/loop"}},
	"cmd/internal/daemon": {command, []string{"cmd/internal/loop", "cmd/internal/serve"}},
}

// free are the packages that may import everything of the module.
func free(pkg string) bool {
	_, listed := table[pkg]
	return strings.HasPrefix(pkg, "cmd/") && !listed
}

func TestImports(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	seen := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		seen++
		check(t, filepath.ToSlash(rel), path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 10 {
		t.Fatalf("only %d files seen: the walk is broken", seen)
	}
}

func check(t *testing.T, pkg, path string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		t.Error(err)
		return
	}
	rule, listed := table[pkg]
	if !listed && !free(pkg) {
		t.Errorf("package %s is not in the table: give it a place there", pkg)
		return
	}
	if !listed {
		rule.kind = command
	}
	for _, spec := range file.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if slices.Contains(forbidden[rule.kind], name) {
			t.Errorf("%s may not import %s", pkg, name)
		}
		if inside, ok := strings.CutPrefix(name, module+"/"); ok && !free(pkg) && !slices.Contains(rule.imports, inside) {
			t.Errorf("%s may not import %s", pkg, inside)
		}
	}
}

func TestTheTableNamesOnlyPackagesThatExist(t *testing.T) {
	for pkg := range table {
		files, err := filepath.Glob(filepath.Join("..", "..", "..", filepath.FromSlash(pkg), "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		if len(files) == 0 {
			t.Errorf("%s is in the table and not in the tree", pkg)
		}
	}
	if _, err := os.Stat(filepath.Join("..", "..", "..", "go.mod")); err != nil {
		t.Error(err)
	}
}
