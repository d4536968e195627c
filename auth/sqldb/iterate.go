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
	m := nameColumn(userQuery)
	if m == nil {
		return ""
	}
	return "SELECT " + userQuery[m[4]:m[5]] + " AS user FROM " + userQuery[m[2]:m[3]]
}

// nameColumn returns where in userQuery the table and the column stand, as the
// submatches of oneColumn do; nil if the query is not of that form.
func nameColumn(userQuery string) []int {
	if strings.Contains(userQuery, "--") || strings.Contains(userQuery, "#") || strings.Contains(userQuery, "/*") {
		return nil
	}
	words := strings.FieldsFunc(strings.ToUpper(userQuery), func(r rune) bool { return r < '0' || r > '9' && r < 'A' || r > 'Z' && r != '_' })
	for _, word := range []string{"SELECT", "FROM", "WHERE"} {
		if count(words, word) != 1 {
			return nil
		}
	}
	// With one of these, a column more would be another question.
	for _, word := range []string{"DISTINCT", "COUNT", "MIN", "MAX", "SUM", "AVG", "GROUP_CONCAT"} {
		if count(words, word) != 0 {
			return nil
		}
	}
	return oneColumn.FindStringSubmatchIndex(userQuery)
}

func count(words []string, word string) (n int) {
	for _, w := range words {
		if w == word {
			n++
		}
	}
	return n
}
