package expand

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// conditional reads if;<left>;<operator>;<right>;<then>[;<else>]. The parts may have
// variables themselves; a backslash takes the meaning from a character.
func conditional(text string, depth int) (*Variable, error) {
	texts := arguments(text)
	if len(texts) == 4 {
		texts = append(texts, "")
	}
	if len(texts) != 5 {
		return nil, fmt.Errorf("%%{%s}: four or five parameters are needed, not %d", text, len(texts))
	}
	var parts [5]Template
	v := &Variable{fallible: true, trusted: true}
	for i, text := range texts {
		var err error
		parts[i], err = Parse(text, func(s string) (*Variable, int, error) { return scan(s, depth+1) })
		if err != nil {
			return nil, err
		}
		v.secret = v.secret || parts[i].secret()
	}
	v.trusted = parts[3].trusted() && parts[4].trusted()
	if err := checkOperator(parts[1], parts[2]); err != nil {
		return nil, fmt.Errorf("%%{%s}: %w", text, err)
	}
	v.value = func(in Values) (string, error) {
		var values [5]string
		for i, part := range parts {
			var err error
			if values[i], err = part.Expand(in); err != nil {
				return "", err
			}
		}
		is, err := compare(values[0], values[1], values[2])
		switch {
		case err != nil:
			return "", err
		case is:
			return values[3], nil
		}
		return values[4], nil
	}
	return v, nil
}

// arguments cuts text behind the first semicolon into its parts. An unescaped colon
// outside of variables ends them, and an empty last part counts for nothing.
func arguments(text string) (parts []string) {
	_, text, found := strings.Cut(text, ";")
	if !found {
		return nil
	}
	var b strings.Builder
	depth, escaped, percent := 0, false, false
loop:
	for i := range len(text) {
		c := text[i]
		switch {
		case c == '\\':
			escaped = true
			continue
		case escaped:
			escaped = false
			b.WriteByte(c)
			continue
		case c == '%':
			percent = true
		case percent && c == '{':
			depth++
			percent = false
		case depth > 0 && c == '}':
			depth--
		case depth == 0 && c == ';':
			parts = append(parts, b.String())
			b.Reset()
			continue
		case depth == 0 && c == ':':
			break loop
		}
		b.WriteByte(c)
	}
	if b.Len() > 0 {
		parts = append(parts, b.String())
	}
	return parts
}

// checkOperator finds an operator or a pattern that can never be understood.
func checkOperator(operator, right Template) error {
	op, ok := operator.constant()
	if !ok {
		return nil
	}
	pattern, constant := right.constant()
	switch {
	case numeric[op] && constant:
		_, err := number(pattern)
		return err
	case (op == "~" || op == "!~") && constant:
		_, err := regexp.CompilePOSIX(pattern)
		return err
	case numeric[op] || textual[op]:
		return nil
	}
	return fmt.Errorf("unsupported comparator %q", op)
}

var (
	numeric = map[string]bool{"==": true, "<": true, "<=": true, ">": true, ">=": true, "!=": true}
	textual = map[string]bool{"eq": true, "lt": true, "le": true, "gt": true, "ge": true, "ne": true, "*": true, "!*": true, "~": true, "!~": true}
)

func number(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || s[0] == '+' {
		return 0, fmt.Errorf("%.64q is not a number", s)
	}
	return n, nil
}

// compare is what %{if} decides.
func compare(left, op, right string) (bool, error) {
	order := strings.Compare(left, right)
	switch {
	case numeric[op]:
		a, err := number(left)
		if err != nil {
			return false, err
		}
		b, err := number(right)
		if err != nil {
			return false, err
		}
		order = 0
		if a < b {
			order = -1
		} else if a > b {
			order = 1
		}
	case op == "*" || op == "!*":
		return Match(right, left) == (op == "*"), nil
	case op == "~" || op == "!~":
		pattern, err := regexp.CompilePOSIX(right)
		if err != nil {
			return false, err
		}
		return pattern.MatchString(left) == (op == "~"), nil
	}
	switch op {
	case "==", "eq":
		return order == 0, nil
	case "!=", "ne":
		return order != 0, nil
	case "<", "lt":
		return order < 0, nil
	case "<=", "le":
		return order <= 0, nil
	case ">", "gt":
		return order > 0, nil
	case ">=", "ge":
		return order >= 0, nil
	}
	return false, fmt.Errorf("unsupported comparator %q", op)
}

// Match reports whether name matches mask, a glob of * and ?.
func Match(mask, name string) bool {
	// star and next remember where to go on when the text after the last * fails.
	m, star, next := 0, -1, 0
	for n := 0; n < len(name); {
		switch {
		case m < len(mask) && mask[m] == '*':
			star, next = m, n
			m++
		case m < len(mask) && (mask[m] == '?' || mask[m] == name[n]):
			m++
			n++
		case star >= 0:
			next++
			m, n = star+1, next
		default:
			return false
		}
	}
	return strings.Trim(mask[m:], "*") == ""
}
