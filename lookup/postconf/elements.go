package postconf

import (
	"fmt"
	"slices"
	"strings"
)

// element is what a token of a value stands for: tables in MySQL, something else, or
// nothing at all.
type element struct {
	token
	expanded string
	files    []string // of the tables
	not      bool     // !type:table
	other    bool     // something else

	// For tables that a map stands for already:
	name   string
	walked bool // Postfix goes through the keys
	tables string
}

func (e element) nothing() bool { return len(e.files) == 0 && !e.other }

// elements reads a list. follows says which tokens may stand for tables and something
// else: those that are looked into where they are written.
func (f *finder) elements(s scope, place, raw string, follows func(token string) bool) (all []element, err error) {
	for _, t := range tokenize(raw, listSeparators) {
		e := element{token: t}
		if e.expanded, err = s.expand(t.text); err != nil {
			return nil, fmt.Errorf("%s: %w", place, err)
		}
		e.expanded = strings.Trim(e.expanded, listSeparators)
		f.classify(place, &e, follows)
		all = append(all, e)
	}
	return all, nil
}

// classify says what an expanded token is.
func (f *finder) classify(place string, e *element, follows func(string) bool) {
	parts := tokenize(e.expanded, listSeparators)
	for i, part := range parts {
		text, not := strings.CutPrefix(part.text, "!")
		files := f.table(place, text)
		if i > 0 && (not != e.not || (files == nil) != e.other) {
			if !follows(e.text) {
				f.keep(place, e.text, e.text+" stands for tables in MySQL and for something else; write it out here")
			}
			e.files, e.other = nil, true
			return
		}
		e.not, e.other = not, files == nil
		e.files = append(e.files, files...)
	}
	written := []token{e.token}
	name, tables, walked, switched := splitChoice(strings.TrimPrefix(e.text, "!"))
	if switched {
		written = tokenize(tables, listSeparators)
	}
	glued := func(t token) bool { return f.glued(t.text, 0) }
	if len(e.files) > 0 && slices.ContainsFunc(written, glued) {
		f.keep(place, e.text, e.text+" is made of a parameter that is switched itself; write it out here")
		e.files, e.other = nil, true
		return
	}
	if switched && !e.other {
		e.name, e.walked, e.tables = name, walked, tables
	}
}

// table returns the file of an element of a list; none if it is no table in MySQL, or one
// that cannot be replaced.
func (f *finder) table(place, text string) []string {
	path, why, mysql := f.tableFile(text)
	switch {
	case why != "":
		f.note(place, why)
	case mysql:
		if strings.HasPrefix(text, "proxy:") {
			f.proxied = append(f.proxied, text)
		}
		return []string{path}
	case mentions(text):
		f.note(place, text+" stays as it is: what is in it cannot be replaced")
	}
	return nil
}

// macroName returns the name if a token is a macro and nothing else.
func macroName(token string) (name string, ok bool) {
	name = strings.Trim(token, "${}()")
	ok = name != "" && nameLen(name) == len(name) && (token == "$"+name || token == "${"+name+"}" || token == "$("+name+")")
	return name, ok
}

// isTables reports whether a token is another parameter with tables, which is switched itself.
func isTables(token string) bool {
	name, macro := macroName(token)
	_, known := useOf(name)
	return macro && known
}

// glued reports whether a token has another parameter with tables as a part of it, so
// that it would mean something else once that is switched.
func (f *finder) glued(token string, depth int) bool {
	whole, macro := macroName(token)
	if _, known := useOf(whole); macro && known || depth > maxDepth {
		return depth > maxDepth
	}
	for rest := token; ; {
		_, after, found := strings.Cut(rest, "$")
		if !found {
			return false
		}
		rest = strings.TrimLeft(after, "{("+spaces)
		name := rest[:nameLen(rest)]
		if _, known := useOf(name); known {
			return true
		}
		for _, t := range tokenize(f.config.main[name], listSeparators) {
			if _, known := useOf(strings.Trim(t.text, "${}()")); !macro && known || f.glued(t.text, depth+1) {
				return true
			}
		}
	}
}

// isDefined reports whether a token is a parameter of main.cf.
func (f *finder) isDefined(token string) bool {
	name, macro := macroName(token)
	_, defined := f.config.main[name]
	return macro && defined
}
