package mysql

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"dovepost/lookup/fold"
)

// scanQuery reads a variable of a mysql_table(5) template: %s %u %d and their
// capitals, %1 to %9, and %%. In a query the capitals mean the same.
func scanQuery(s string) (Variable[byte], error) {
	if len(s) < 2 || !strings.Contains("%sSuUdD123456789", s[1:2]) {
		return Variable[byte]{}, fmt.Errorf("invalid template: %.2q", s)
	}
	return Variable[byte]{Len: 2, Literal: s[1] == '%', Value: s[1]}, nil
}

// needs is what a key, or a value, must have for the templates to make sense:
// the lookup or the value is skipped without it.
type needs struct {
	keyUser, keyDomain     bool
	valueUser, valueDomain bool
	labels                 int // of the key's domain
}

// add reads the variables of a template, wherever in it they stand.
func (n *needs) add(template string, query bool) error {
	for i := strings.IndexByte(template, '%'); i >= 0; i = strings.IndexByte(template, '%') {
		v, err := scanQuery(template[i:])
		if err != nil {
			return err
		}
		switch c := v.Value; c {
		case 'u':
			n.keyUser, n.valueUser = n.keyUser || query, n.valueUser || !query
		case 'd':
			n.keyDomain, n.valueDomain = n.keyDomain || query, n.valueDomain || !query
		case 'U':
			n.keyUser = true
		case 'D':
			n.keyDomain = true
		case '1', '2', '3', '4', '5', '6', '7', '8', '9':
			n.keyDomain = true
			n.labels = max(n.labels, int(c-'0'))
		}
		template = template[i+v.Len:]
	}
	return nil
}

// parts is a key or a value, split at its last @.
type parts struct {
	whole        string
	user, domain string // without @ all is user
	labels       []string
}

func splitAddress(s string) parts {
	p := parts{whole: s, user: s}
	if at := strings.LastIndexByte(s, '@'); at >= 0 {
		p.user, p.domain = s[:at], s[at+1:]
	}
	return p
}

// split folds the key and takes it apart; nil means that it must not be looked up.
func (t *Table) split(key string) *parts {
	if key == "" || !utf8.ValidString(key) {
		return nil
	}
	k := splitAddress(fold.String(key))
	if t.file.domains != nil && (k.domain == "" || k.user == "" || !t.file.domains.match(k.domain)) {
		return nil
	}
	if t.needs.keyDomain && k.domain == "" || t.needs.keyUser && k.user == "" {
		return nil
	}
	if t.needs.labels > 0 {
		k.labels = strings.FieldsFunc(k.domain, func(r rune) bool { return r == '.' })
		if len(k.labels) < t.needs.labels {
			return nil
		}
	}
	return &k
}

// variable returns the value of a variable in a query.
func (p *parts) variable(name byte) string {
	switch name {
	case 's', 'S':
		return p.whole
	case 'u', 'U':
		return p.user
	case 'd', 'D':
		return p.domain
	}
	return p.labels[len(p.labels)-int(name-'0')]
}

// format expands result_format for a value; false means that the value lacks a
// part that the format wants, and is skipped.
func (t *Table) format(value string, key *parts) (string, bool) {
	format := t.file.resultFormat
	if format == "%s" {
		return value, true
	}
	v := splitAddress(value)
	if t.needs.valueDomain && v.domain == "" || t.needs.valueUser && v.user == "" {
		return "", false
	}
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			b.WriteByte(format[i])
			continue
		}
		i++ // a variable is there: NewTable has seen to it
		switch c := format[i]; c {
		case '%':
			b.WriteByte('%')
		case 's', 'u', 'd':
			b.WriteString(v.variable(c))
		default:
			b.WriteString(key.variable(c))
		}
	}
	return b.String(), true
}
