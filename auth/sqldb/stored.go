package sqldb

import (
	"database/sql"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"dovepost/lookup/mysql"
)

// storedName is the column that withName adds.
const storedName = "dovepost stored name"

// withName has a query return the name as it is stored, too, in the column
// storedName, where it finds the user by name = '%u', or by name = '%n' and domain =
// '%d'. Any other query stays as it is.
//
// The collation decides what the database takes for the same name: under
// utf8mb4_unicode_ci the row of joe@ answers for jöe@, and a home that is made of %n would
// be a new one, where nobody looks. See own.
func withName(text string) string {
	tokens := lex(text)
	columns, where, ok := flatQuery(tokens)
	if !ok {
		return text
	}
	var user, local, domain string
	for _, condition := range conditions(tokens[where+1:]) {
		expression, variable := equation(text, condition)
		switch variable {
		case "user":
			user = expression
		case "local":
			local = expression
		case "domain":
			domain = expression
		}
	}
	switch {
	case user != "":
	case local != "" && domain != "":
		user = "CONCAT(" + local + ", '@', " + domain + ")"
	default:
		return text
	}
	return text[:columns] + ", " + user + " AS `" + storedName + "` " + text[columns:]
}

// own returns the row that is really r.User's among those that a query with withName
// has found, or the first, if the query could not be asked for the name. -1: none.
func own(rows *mysql.Rows, name string) int {
	i := slices.Index(rows.Columns, storedName)
	if i < 0 {
		return 0
	}
	return slices.IndexFunc(rows.Values, func(row []sql.NullString) bool { return sameName(text(row[i]), name) })
}

// sameName reports whether a user who is asked for is the one who is stored. Case, blanks
// at the end and the composition of letters do not count.
func sameName(stored, asked string) bool {
	return strings.EqualFold(norm.NFC.String(strings.TrimRight(stored, " ")), norm.NFC.String(strings.TrimRight(asked, " ")))
}

// token is a piece of SQL at the top level: a word, a string, an operator, or
// everything between a pair of parentheses.
type token struct {
	start, end int
	word       string // upper case; empty for what is no word
}

// lex cuts SQL into tokens; nil if it has comments or is not closed somewhere.
func lex(text string) (tokens []token) {
	depth, group := 0, 0
	for i := 0; i < len(text); {
		start := i
		switch c := text[i]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
			continue
		case c == '#', strings.HasPrefix(text[i:], "--"), strings.HasPrefix(text[i:], "/*"):
			return nil
		case c == '\'' || c == '"' || c == '`':
			if i = quoted(text, i); i < 0 {
				return nil
			}
		case c == '(':
			if depth == 0 {
				group = i
			}
			depth++
			i++
			continue
		case c == ')':
			i++
			if depth--; depth < 0 {
				return nil
			}
			start = group
		case isWordByte(c):
			for i < len(text) && isWordByte(text[i]) {
				i++
			}
		default:
			i++
		}
		if depth > 0 {
			continue
		}
		t := token{start: start, end: i}
		if isWordByte(text[start]) {
			t.word = strings.ToUpper(text[start:i])
		}
		tokens = append(tokens, t)
	}
	if depth != 0 {
		return nil
	}
	return tokens
}

func isWordByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c == '_' || c == '$' || c == '%' || c >= 0x80
}

// quoted returns where the quoted text that begins at i ends; -1: nowhere.
func quoted(text string, i int) int {
	quote := text[i]
	for i++; i < len(text); i++ {
		switch {
		case text[i] == '\\' && quote != '`':
			i++
		case text[i] == quote:
			return i + 1
		}
	}
	return -1
}

// unflat are the words with which one column more would be another question.
var unflat = []string{"DISTINCT", "UNION", "GROUP", "HAVING", "INTO", "COUNT", "MIN", "MAX", "SUM", "AVG", "GROUP_CONCAT", "EXCEPT", "INTERSECT"}

// flatQuery returns where the list of columns of a simple SELECT ends, and which
// token its WHERE is.
func flatQuery(tokens []token) (columns, where int, ok bool) {
	if len(tokens) == 0 || tokens[0].word != "SELECT" {
		return 0, 0, false
	}
	from := -1
	where = -1
	for i, t := range tokens {
		switch {
		case slices.Contains(unflat, t.word), t.word == "SELECT" && i > 0:
			return 0, 0, false
		case t.word == "FROM" && from < 0:
			from = i
		case t.word == "WHERE" && where < 0:
			where = i
		}
	}
	if from < 1 || where < from {
		return 0, 0, false
	}
	return tokens[from].start, where, true
}

// conditions cuts what stands behind WHERE at AND; none if one of them need not hold.
func conditions(tokens []token) (all [][]token) {
	start := 0
	for i, t := range tokens {
		switch t.word {
		case "OR", "XOR", "NOT", "BETWEEN", "CASE":
			return nil
		case "AND":
			all = append(all, tokens[start:i])
			start = i + 1
		case "ORDER", "LIMIT", "FOR", "LOCK", "PROCEDURE":
			return append(all, tokens[start:i])
		}
	}
	return append(all, tokens[start:])
}

// equation returns what is compared with a name, and with which: user, local or
// domain. Both are empty if the condition is anything else.
func equation(text string, condition []token) (expression, variable string) {
	if n := len(condition); n > 0 && text[condition[n-1].start] == ';' {
		condition = condition[:n-1]
	}
	at := slices.IndexFunc(condition, func(t token) bool { return text[t.start:t.end] == "=" })
	if at < 1 || at == len(condition)-1 {
		return "", ""
	}
	left := strings.TrimSpace(text[condition[0].start:condition[at-1].end])
	right := strings.TrimSpace(text[condition[at+1].start:condition[len(condition)-1].end])
	if names[left] != "" {
		left, right = right, left
	}
	if names[right] == "" || !isReference(left) {
		return "", ""
	}
	return left, names[right]
}

// names are the literals that stand for a name or a part of it.
var names = map[string]string{
	"'%u'": "user", "'%Lu'": "user", "'%{user}'": "user", `"%u"`: "user", `"%Lu"`: "user", `"%{user}"`: "user", "'%L{user}'": "user",
	"'%{user | lower}'": "user", "'%{user|lower}'": "user",
	"'%n'": "local", "'%Ln'": "local", "'%{username}'": "local", `"%n"`: "local", `"%Ln"`: "local", "'%{user | username}'": "local", "'%{user|username}'": "local",
	"'%d'": "domain", "'%Ld'": "domain", "'%{domain}'": "domain", `"%d"`: "domain", `"%Ld"`: "domain", "'%{user | domain}'": "domain", "'%{user|domain}'": "domain",
}

// isReference reports whether s is the name of a column.
func isReference(s string) bool {
	if s == "" || s[0] >= '0' && s[0] <= '9' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_$.`") == ""
}
