package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"dovepost/lookup"
	"dovepost/lookup/fold"
	"dovepost/lookup/ladder"
	"dovepost/lookup/mysql"
	"dovepost/lookup/postconf"
	"dovepost/policy/breaker"
)

// textTypes are Postfix's tables that are made of a text file, which stands beside them.
var textTypes = map[string]bool{"hash": true, "btree": true, "dbm": true, "cdb": true, "lmdb": true, "texthash": true}

// maxTextLine and maxTextFile bound such a file, in octets.
const (
	maxTextLine = 1 << 20
	maxTextFile = 256 << 20
)

// textTable is such a file in memory, and a lookup.Map.
type textTable map[string]string

// Lookup implements lookup.Map.
func (t textTable) Lookup(_ context.Context, key string) ([]string, error) {
	if value := t[key]; value != "" {
		return []string{value}, nil
	}
	return nil, lookup.ErrNotFound
}

// readTextFile reads such a file.
func readTextFile(path string) (textTable, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > maxTextFile {
		return nil, fmt.Errorf("%s: larger than %d octets", path, maxTextFile)
	}
	table, err := readText(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return table, nil
}

// readText reads a table as postmap(1) does: key, blank, value; a line that begins with a blank
// continues the one before. A key may have blanks in double quotes, and of one that is there
// twice the first counts.
func readText(r io.Reader) (textTable, error) {
	table := textTable{}
	var logical []byte
	add := func() {
		line := string(logical)
		if i := keyLen(line); i > 0 && i < len(line) {
			key := fold.String(line[:i])
			if _, twice := table[key]; !twice {
				table[key] = strings.TrimSpace(line[i:])
			}
		}
		logical = logical[:0]
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxTextLine)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), " \t\r")
		switch trimmed := strings.TrimLeft(line, " \t"); {
		case trimmed == "" || trimmed[0] == '#':
		case len(trimmed) < len(line):
			logical = append(append(logical, ' '), trimmed...)
		default:
			add()
			logical = append(logical, trimmed...)
		}
		if len(logical) > maxTextLine {
			return nil, bufio.ErrTooLong
		}
	}
	add()
	return table, lines.Err()
}

// readInline reads the table of an inline: map.
func readInline(text string) (textTable, error) {
	pairs, err := postconf.Inline(text)
	if err != nil {
		return nil, err
	}
	table := textTable{}
	for _, p := range pairs {
		table[fold.String(p.Name)] = p.Value
	}
	return table, nil
}

// keyLen returns where the key of a line ends: at a blank that is not in quotes.
func keyLen(line string) int {
	quoted := false
	for i := 0; i < len(line); i++ {
		switch line[i] {
		case '"':
			quoted = !quoted
		case '\\':
			i++
		case ' ', '\t':
			if !quoted {
				return i
			}
		}
	}
	return len(line)
}

// guarded is a map whose server a breaker stands before.
type guarded struct {
	lookup.Map
	breaker *breaker.Breaker
}

// Lookup implements lookup.Map.
func (g guarded) Lookup(ctx context.Context, key string) (values []string, err error) {
	away := g.breaker.Do(ctx, func(ctx context.Context) error {
		values, err = g.Map.Lookup(ctx, key)
		return err
	})
	return values, away
}

// parameter is one parameter of Postfix that holds tables.
type parameter struct {
	name    string
	kind    ladder.Kind
	options ladder.Options
}

// table makes the map that Postfix sees in tables; nil if there are none. What MySQL answers is
// cached.
func (b *builder) table(p parameter, tables []postconf.Table) (lookup.Map, error) {
	var files []*mysql.File // by place; nil for what is in maps
	var maps []lookup.Map
	words := textTable{}
	for _, t := range tables {
		kind, path, ok := strings.Cut(t.Text, ":")
		var f *mysql.File
		var text textTable
		var err error
		switch {
		case t.File != "":
			f, err = b.file(t.File)
		case ok && textTypes[kind]:
			text, err = readTextFile(path)
		case kind == "inline":
			text, err = readInline(path)
		case p.kind == ladder.Domain && !strings.ContainsAny(t.Text, ":/!"):
			words[fold.String(t.Text)] = t.Text
			continue
		default:
			err = fmt.Errorf("policyd cannot look into %s", t.Text)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		files, maps = append(files, f), append(maps, text)
	}
	if len(words) > 0 {
		files, maps = append(files, nil), append(maps, words)
	}
	switch {
	case len(maps) == 0:
		return nil, nil
	case oneServer(files):
		return b.ask(p, files...)
	}
	for i, f := range files {
		if f == nil {
			continue
		}
		var err error
		if maps[i], err = b.ask(parameter{name: p.name, kind: ladder.Exact}, f); err != nil {
			return nil, err
		}
	}
	return ladder.New(p.kind, maps, p.options), nil
}

// oneServer reports whether all are files, and ask the same server.
func oneServer(files []*mysql.File) bool {
	return !slices.ContainsFunc(files, func(f *mysql.File) bool { return f == nil || files[0] == nil || f.Config() != files[0].Config() })
}

// opened is a table file in use, and what stands before its server.
type opened struct {
	file    *mysql.File
	table   *mysql.Table
	breaker *breaker.Breaker
}

// open opens a table file, and has the server look at its query before policyd is ready.
func (b *builder) open(f *mysql.File) (opened, error) {
	pool, guard := b.server(f.Config())
	table, err := mysql.NewTable(f, pool)
	if err != nil {
		return opened{}, err
	}
	b.prepare(pool, table.Prepare)
	return opened{f, table, guard}, nil
}

// openAll opens the table files of a setting.
func (b *builder) openAll(files string) (all []opened, err error) {
	for _, path := range words(files) {
		f, err := b.file(strings.TrimPrefix(strings.TrimPrefix(path, "proxy:"), "mysql:"))
		if err != nil {
			return nil, err
		}
		t, err := b.open(f)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

// ask makes the map of files that ask one server, with the cache and its breaker before it.
func (b *builder) ask(p parameter, files ...*mysql.File) (lookup.Map, error) {
	var guard *breaker.Breaker
	var set mysql.Set
	id := fmt.Sprintf("%s %s %+v", p.name, p.kind, p.options)
	for _, f := range files {
		t, err := b.open(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		guard = t.breaker
		set = append(set, t.table)
		id += " " + f.Digest()
	}
	return b.cache.Map(id, guarded{ladder.New(p.kind, []lookup.Map{set}, p.options), guard}), nil
}
