package mysql

import (
	"slices"
	"strings"
)

// MySQL 8.0.22 and later give a placeholder a type when they prepare a statement: that
// of what it is compared, computed or chosen with. COALESCE(id, ?) is a number then, and a
// key that is none becomes 0, where COALESCE(id, 'key') is a string. In a session of such
// a server, which has the mode typed, only what is known to mean the same is bound;
// another statement goes out as text. What is known is what MySQL 9.7 did with columns of all types.
// There, comparing a date, a year or bits with a key still differs: MySQL itself has an error for
// nearly every key.

// untyped reports whether each placeholder of a statement stands where it means
// what a string would: compared with a column, as an argument of a function of
// strings, or as a column of the result.
func untyped(text string, m sqlMode) bool {
	s, ok := newSentence(text, m)
	if !ok {
		return false
	}
	for i, a := range s.atoms {
		if a.kind == atomPunct && a.text == "?" && !s.argument(i) && !s.compared(i) && !s.selected(i) {
			return false
		}
	}
	return true
}

var beforeRows = append(strings.Fields("( UNION ALL DISTINCT EXCEPT INTERSECT"), "")

// listsRows reports whether a statement with placeholders has a table of values, as in
// SELECT a FROM t WHERE a IN (VALUES (?), (?)), unlike INSERT. MariaDB cuts the values to the
// length that they had when it prepared the statement: none.
func listsRows(text string, m sqlMode) bool {
	if !strings.Contains(text, "?") {
		return false
	}
	s, _ := newSentence(text, m)
	for i := range s.atoms {
		if s.is(i, []string{"VALUES"}) && s.is(i+1, []string{"("}) && s.is(i-1, beforeRows) {
			return true
		}
	}
	return false
}

// sentence is a statement without its blanks, its words in capitals.
type sentence struct {
	atoms []atom
	open  []int // the index of the parenthesis that each atom is in, or -1; for ")" its own
}

func newSentence(text string, m sqlMode) (s sentence, ok bool) {
	open := []int{-1}
	for text != "" {
		a, err := m.nextAtom(text)
		if err != nil || a.kind == atomOpen || a.kind == atomClose {
			return s, false
		}
		text = text[len(a.text):]
		if a.kind == atomSpace || a.kind == atomComment {
			continue
		}
		if a.kind == atomWord {
			a.text = strings.ToUpper(a.text)
		}
		s.atoms, s.open = append(s.atoms, a), append(s.open, open[len(open)-1])
		switch {
		case a.kind != atomPunct:
		case a.text == "(":
			open = append(open, len(s.atoms)-1)
		case a.text == ")" && len(open) > 1:
			open = open[:len(open)-1]
		}
	}
	return s, true
}

// at returns an atom, an empty one beyond the ends.
func (s sentence) at(i int) atom {
	if i < 0 || i >= len(s.atoms) {
		return atom{}
	}
	return s.atoms[i]
}

// is reports whether an atom is one of some words or marks, "" being an end.
func (s sentence) is(i int, texts []string) bool {
	a := s.at(i)
	return a.kind != atomString && a.kind != atomIdentifier && slices.Contains(texts, a.text)
}

var (
	openers    = strings.Fields("( ,")
	closers    = strings.Fields(") ,")
	equals     = [][]string{{"<", "=", ">"}, {"<", ">"}, {"!", "="}, {"="}, {"NOT", "LIKE"}, {"LIKE"}}
	memberOf   = [][]string{{"NOT", "IN"}, {"IN"}}
	starters   = strings.Fields("( , SELECT WHERE AND OR XOR ON HAVING NOT WHEN BINARY")
	enders     = append(strings.Fields(") , AND OR XOR COLLATE UNION ORDER GROUP HAVING LIMIT THEN AS FROM WHERE ON JOIN LEFT INNER RIGHT CROSS"), "")
	selectors  = strings.Fields("SELECT DISTINCT ALL ,")
	selectEnds = append(strings.Fields(", FROM AS UNION"), "")

	// textFunctions take and give strings, textFirst strings as their first argument.
	textFunctions = strings.Fields("CONCAT CONCAT_WS LOWER LCASE UPPER UCASE REPLACE REVERSE TRIM LTRIM RTRIM SUBSTRING_INDEX MD5 SHA1")
	textFirst     = strings.Fields("SUBSTRING SUBSTR LEFT RIGHT SHA2 FIND_IN_SET")
	// values look like names.
	values = strings.Fields("NULL TRUE FALSE UNKNOWN END DEFAULT CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP LOCALTIME LOCALTIMESTAMP UTC_DATE UTC_TIME UTC_TIMESTAMP")
)

// argument reports whether a placeholder is an argument of a function of strings, or one
// of the values that an operand may have.
func (s sentence) argument(i int) bool {
	open := s.open[i]
	if open < 0 || !s.is(i-1, openers) || !s.is(i+1, closers) {
		return false
	}
	if n := s.ending(open-1, memberOf); n > 0 {
		return s.alike(open) && s.operandEnds(open-1-n)
	}
	return s.text(open-1) && !s.is(open-1, textFirst) || s.is(open-1, textFirst) && i == open+1
}

// text reports whether an atom is the name of a function that takes and gives strings.
func (s sentence) text(i int) bool {
	return s.at(i-1).text != "." && (s.is(i, textFunctions) || s.is(i, textFirst))
}

// compared reports whether a placeholder is compared with an operand that decides nothing.
func (s sentence) compared(i int) bool {
	if n := s.ending(i-1, equals); n > 0 && s.is(i+1, enders) {
		return s.operandEnds(i - 1 - n)
	}
	if !s.is(i-1, starters) {
		return false
	}
	if n := s.starting(i+1, equals); n > 0 {
		return s.operandStarts(i + 1 + n)
	}
	n := s.starting(i+1, memberOf)
	return n > 0 && s.at(i+1+n).text == "(" && s.at(i+2+n).text == "SELECT"
}

// alike reports whether a list has placeholders and functions of strings alone: beside
// a column or a number they would be something else.
func (s sentence) alike(open int) bool {
	for i := open + 1; i < len(s.atoms) && !(s.at(i).text == ")" && s.open[i] == open); i++ {
		if s.open[i] == open && !s.is(i, []string{"?", ","}) && !s.text(i) && !(s.at(i).text == "(" && s.text(i-1)) {
			return false
		}
	}
	return true
}

// selected reports whether a placeholder is a column of the result.
func (s sentence) selected(i int) bool {
	if s.open[i] >= 0 || !s.is(i-1, selectors) || !s.is(i+1, selectEnds) {
		return false
	}
	for j := i - 1; j >= 0; j-- {
		if s.open[j] < 0 && s.at(j).kind == atomWord && slices.Contains(clauseWords, s.at(j).text) {
			return s.at(j).text == "SELECT"
		}
	}
	return false
}

// ending returns the length of the operator that ends with an atom, or 0.
func (s sentence) ending(i int, operators [][]string) int {
	for _, o := range operators {
		if start := i - len(o) + 1; s.starting(start, [][]string{o}) > 0 {
			if s.is(start-1, strings.Fields("< > = ! :")) {
				return 0
			}
			return len(o)
		}
	}
	return 0
}

// starting returns the length of the operator that starts with an atom, or 0.
func (s sentence) starting(i int, operators [][]string) int {
	for _, o := range operators {
		n := 0
		for n < len(o) && s.is(i+n, o[n:n+1]) {
			n++
		}
		if n == len(o) && !(o[n-1] != "LIKE" && s.is(i+n, strings.Fields("< > ="))) {
			return n
		}
	}
	return 0
}

// name reports whether an atom is a name, as of a column.
func (s sentence) name(i int) bool {
	a := s.at(i)
	digit := a.text != "" && '0' <= a.text[0] && a.text[0] <= '9'
	return a.kind == atomIdentifier || a.kind == atomWord && !digit && (s.at(i-1).text == "." || !slices.Contains(values, a.text))
}

// operandEnds reports whether an atom ends a column, a string or a function of strings
// that nothing is computed with.
func (s sentence) operandEnds(i int) bool {
	switch {
	case s.at(i).kind == atomString || s.at(i).text == "?":
	case s.at(i).text == ")" && s.open[i] >= 0:
		if i = s.open[i] - 1; !s.text(i) {
			return false
		}
	case s.name(i):
		for s.at(i-1).text == "." && s.name(i-2) {
			i -= 2
		}
	default:
		return false
	}
	return s.is(i-1, starters)
}

// operandStarts reports whether an atom starts one.
func (s sentence) operandStarts(i int) bool {
	switch {
	case s.at(i).kind == atomString || s.at(i).text == "?":
	case s.text(i) && s.at(i+1).text == "(":
		open := i + 1
		for i = open; i < len(s.atoms) && !(s.at(i).text == ")" && s.open[i] == open); i++ {
		}
	case s.name(i):
		for s.at(i+1).text == "." && s.name(i+2) {
			i += 2
		}
	default:
		return false
	}
	return s.is(i+1, enders)
}
