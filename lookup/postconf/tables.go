package postconf

import (
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

// Words returns the patterns of a list that are in no table: those in the value, and in
// the files that it names.
func (c *Config) Words(name string) ([]string, error) {
	value, err := c.Value(name)
	if err != nil {
		return nil, err
	}
	return c.patterns(nil, value, 0)
}
