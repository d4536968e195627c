package postconf

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Table is one element of a parameter that holds tables.
type Table struct {
	Text string // type:name without proxy:, or a word that names no table
	File string // of a table in MySQL; empty: it is something else
}

// Tables returns the elements of a parameter, its macros expanded, in their order. Where
// Postfix asks lookupd they are the tables that lookupd asks. A ! stays before what it was before.
// Errors: a value that cannot be expanded; a table in MySQL that is not named by a file.
func (c *Config) Tables(name string) (all []Table, err error) {
	native := *c
	native.main = maps.Clone(c.main)
	delete(native.main, knob)
	value, err := native.Value(name)
	if err != nil {
		return nil, err
	}
	f := &finder{Plan: &Plan{config: &native}}
	for _, t := range tokenize(value, listSeparators) {
		text := strings.TrimPrefix(t.text, "proxy:")
		path, why, _ := f.tableFile(t.text)
		if why != "" {
			return nil, fmt.Errorf("%s: %s", name, why)
		}
		if !slices.Contains(all, Table{text, path}) { // asking again tells nothing new
			all = append(all, Table{text, path})
		}
	}
	return all, nil
}

// Inline reads the table of an inline: map, DATABASE_README: "{ name=value, { name = a value with blanks } }".
func Inline(text string) (pairs []Setting, err error) {
	bad := func(err error) error { return fmt.Errorf("inline:%.60s: %w; want {name=value, ...}", text, err) }
	if !strings.HasPrefix(text, "{") {
		return nil, bad(errors.New("no braces"))
	}
	inner, n, err := balanced(text)
	if err == nil && n != len(text) {
		err = errors.New("text after the braces")
	}
	if err != nil {
		return nil, bad(err)
	}
	for _, t := range tokenize(inner, listSeparators) {
		for rest := t.text; rest != ""; {
			pair, n := rest, len(rest)
			if rest[0] == '{' {
				pair, n, err = balanced(rest)
			} else if strings.ContainsAny(rest, listSeparators) {
				err = errors.New("blanks in a value without braces around it and its name")
			}
			if err != nil {
				return nil, bad(err)
			}
			rest = rest[n:]
			s, err := parseSetting(pair)
			if err != nil {
				return nil, bad(err)
			}
			pairs = append(pairs, s)
		}
	}
	return pairs, nil
}

// Words returns the patterns of a list that are in no table: those in the value, and in
// the files that it names.
func (c *Config) Words(name string) ([]string, error) {
	value, err := c.Value(name)
	if err != nil {
		return nil, err
	}
	return c.patterns(nil, value, 0)
}
