package sqldb

import (
	"regexp"
	"strings"
)

const (
	identifier = "(?:[A-Za-z0-9_$]+|`[^`%]+`)"
	table      = identifier + `(?:\.` + identifier + `)?`
)

// oneColumn is the end of a query that finds the user by his whole name in one
// column of one table.
var oneColumn = regexp.MustCompile(`(?is)\sFROM\s+(` + table + `)\s+WHERE\s+(` + table + `)\s*=\s*'%L?u'\s*;?\s*$`)

// listOf derives from a user_query the statement that lists all its users: those are
// the values of the column that it compares with the whole name. A query that does
// anything else besides has none, and the result is empty.
//
// Dovecot has one fixed default instead, which suits no other table than its own
// example's, so that doveadm user '*' fails where the file does not set iterate_query.
func listOf(userQuery string) string {
	words := strings.FieldsFunc(strings.ToUpper(userQuery), func(r rune) bool { return r < '0' || r > '9' && r < 'A' || r > 'Z' && r != '_' })
	for _, word := range []string{"SELECT", "FROM", "WHERE"} {
		if n := count(words, word); n != 1 {
			return ""
		}
	}
	m := oneColumn.FindStringSubmatch(userQuery)
	if m == nil || strings.Contains(userQuery, "--") || strings.ContainsAny(userQuery, "#") || strings.Contains(userQuery, "/*") {
		return ""
	}
	return "SELECT " + m[2] + " AS user FROM " + m[1]
}

func count(words []string, word string) (n int) {
	for _, w := range words {
		if w == word {
			n++
		}
	}
	return n
}
