package expand

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// maxFilters bounds the filters of one variable.
const maxFilters = 16

// modernNames are the variables of 2.4 that have other names than in 2.3.
var modernNames = map[string]string{
	"protocol": "service", "local_ip": "lip", "remote_ip": "rip", "local_port": "lport", "remote_port": "rport", "mechanism": "mech",
	"owner_user": "user", "process:pid": "pid", "process:uid": "uid", "process:gid": "gid", "system:hostname": "hostname",
}

// ScanModern is the Scanner of Dovecot 2.4's variables, %{name | filter | filter(argument)}.
func ScanModern(s string) (*Variable, int, error) {
	if strings.HasPrefix(s, "%%") {
		return nil, 2, nil
	}
	if !strings.HasPrefix(s, "%{") {
		return nil, 1, nil // a lone percent sign stands for itself
	}
	stages, n, err := pipeline(s[2:])
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %.40q", err, s)
	}
	v, err := origin(stages[0])
	if err != nil {
		return nil, 0, err
	}
	var filters []filterFunc
	for _, stage := range stages[1:] {
		f, err := filter(stage)
		if err != nil {
			return nil, 0, err
		}
		filters = append(filters, f)
	}
	if len(filters) == 0 {
		return v, n + 2, nil
	}
	inner := v.value
	v.plain, v.fallible = false, true
	v.value = func(in Values) (string, error) {
		text, err := inner(in)
		value := filtered{text: text}
		for _, f := range filters {
			if err != nil {
				return "", err
			}
			value, err = f(value)
		}
		if value.octets {
			return hex.EncodeToString([]byte(value.text)), err
		}
		return value.text, err
	}
	return v, n + 2, nil
}

// ScanEither is the Scanner of a setting that has the variables of 2.3 or of 2.4. What both
// know, such as %{user}, means the same in both; what 2.3 does not know is read as 2.4 does.
func ScanEither(s string) (*Variable, int, error) {
	v, n, err := Scan(s)
	if err == nil || !strings.HasPrefix(s, "%{") {
		return v, n, err
	}
	if v, n, modern := ScanModern(s); modern == nil {
		return v, n, nil
	}
	return nil, 0, err
}

// stage is one part of a pipeline: a word with arguments.
type stage struct {
	name      string
	arguments []string
}

// pipeline reads up to the closing brace, and returns how many octets that takes.
func pipeline(s string) (stages []stage, n int, err error) {
	for i := 0; ; {
		i = blanks(s, i)
		start := i
		for i < len(s) && strings.IndexByte(" |(}%", s[i]) < 0 {
			i++
		}
		st := stage{name: s[start:i]}
		i = blanks(s, i)
		if i < len(s) && s[i] == '(' {
			if st.arguments, i, err = arguments24(s, i+1); err != nil {
				return nil, 0, err
			}
			i = blanks(s, i)
		}
		if st.name == "" || len(stages) > maxFilters {
			return nil, 0, fmt.Errorf("a variable of no or too many parts")
		}
		stages = append(stages, st)
		if i < len(s) && strings.IndexByte("+-*/%", s[i]) >= 0 {
			operator := s[i : i+1]
			start = blanks(s, i+1)
			for i = start; i < len(s) && strings.IndexByte(" |}", s[i]) < 0; {
				i++
			}
			stages = append(stages, stage{name: operator, arguments: []string{s[start:i]}})
			i = blanks(s, i)
		}
		switch {
		case i == len(s):
			return nil, 0, fmt.Errorf("variable without }")
		case s[i] == '}':
			return stages, i + 1, nil
		case s[i] != '|':
			return nil, 0, fmt.Errorf("unexpected %q in a variable", s[i])
		}
		i++
	}
}

func blanks(s string, i int) int {
	for i < len(s) && s[i] == ' ' {
		i++
	}
	return i
}

// arguments24 reads "a, 'b', key=c)" from i on, and returns where it ends.
func arguments24(s string, i int) (values []string, end int, err error) {
	for {
		i = blanks(s, i)
		start := i
		var value string
		switch {
		case i < len(s) && (s[i] == '\'' || s[i] == '"'):
			quote := s[i]
			for i++; i < len(s) && s[i] != quote; i++ {
				if s[i] == '\\' && i+1 < len(s) {
					i++
				}
				value += string(s[i])
			}
			i++
		default:
			for i < len(s) && s[i] != ',' && s[i] != ')' {
				i++
			}
			value = strings.TrimSpace(s[start:i])
		}
		i = blanks(s, min(i, len(s)))
		switch {
		case i >= len(s):
			return nil, 0, fmt.Errorf("arguments without )")
		case s[i] == ')':
			if value != "" || len(values) > 0 || start != i {
				values = append(values, value)
			}
			return values, i + 1, nil
		case s[i] != ',':
			return nil, 0, fmt.Errorf("unexpected %q in arguments", s[i])
		}
		values = append(values, value)
		i++
	}
}

// origin is the first part of a pipeline: a name, or literal('text').
func origin(st stage) (*Variable, error) {
	name := st.name
	if name == "literal" && len(st.arguments) == 1 {
		return &Variable{trusted: true, value: func(Values) (string, error) { return st.arguments[0], nil }}, nil
	}
	if old, ok := modernNames[name]; ok {
		name = old
	}
	if s, ok := find(name); ok && len(st.arguments) == 0 {
		return s.variable(), nil
	}
	database, key, _ := strings.Cut(name, ":")
	key, fallback, _ := strings.Cut(key, ":")
	switch database {
	case "env":
		return &Variable{trusted: true, value: func(Values) (string, error) { return os.Getenv(key), nil }}, nil
	case "passdb", "userdb":
		return rowField(database, key, fallback), nil
	}
	return nil, fmt.Errorf("unknown variable %%{%s}", st.name)
}

// filtered is what one filter hands to the next. Octets, which a hash makes, are written
// in hexadecimal at the end; whatever else is done to them makes a text of them.
type filtered struct {
	text   string
	octets bool
}

type filterFunc func(filtered) (filtered, error)

// ofText is a filter of a text.
func ofText(f func(string) (string, error)) filterFunc {
	return func(v filtered) (filtered, error) {
		text, err := f(v.text)
		return filtered{text: text}, err
	}
}

// simple are the filters without arguments.
var simple = map[string]func(string) string{
	"lower": Lower, "upper": Upper, "username": localPart, "domain": domainPart, "domain_last": domainLast, "reverse": reverse,
	"domain_first": func(s string) string { return localPart(domainPart(s)) },
	"length":       func(s string) string { return strconv.Itoa(len(s)) },
	"text":         func(s string) string { return s },
	"hexlify":      func(s string) string { return hex.EncodeToString([]byte(s)) },
	"base64":       func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
	"ldap_dn":      func(s string) string { return strings.ReplaceAll(s, ".", ",dc=") },
	"rtrim":        func(s string) string { return strings.TrimRight(s, " \t\r\n\v\f") },
	"ltrim":        func(s string) string { return strings.TrimLeft(s, " \t\r\n\v\f") },
	"trim":         func(s string) string { return strings.Trim(s, " \t\r\n\v\f") },
}

// filter compiles one filter.
func filter(st stage) (filterFunc, error) {
	wrong := fmt.Errorf("unknown filter or arguments: %s(%s)", st.name, strings.Join(st.arguments, ", "))
	a := st.arguments
	if f, ok := simple[st.name]; ok && len(a) == 0 {
		return ofText(func(s string) (string, error) { return f(s), nil }), nil
	}
	if algorithm, options := st.name, a; digests[algorithm] != nil || algorithm == "hash" && len(a) > 0 {
		if algorithm == "hash" {
			algorithm, options = a[0], a[1:]
		}
		return modernHash(algorithm, options)
	}
	switch {
	case len(st.name) == 1 && strings.Contains("+-*/%", st.name) && len(a) == 1:
		return calculation(st.name[0], a[0])
	case (st.name == "hex" || st.name == "hexlify") && len(a) <= 1:
		return hexadecimal(st.name, append(a, "0")[0])
	case st.name == "default" && len(a) <= 1:
		fallback := strings.Join(a, "")
		return func(v filtered) (filtered, error) {
			if v.text == "" {
				return filtered{text: fallback}, nil
			}
			return v, nil
		}, nil
	case st.name == "concat":
		tail := strings.Join(a, "")
		return ofText(func(s string) (string, error) { return s + tail, nil }), nil
	case st.name == "substr" && (len(a) == 1 || len(a) == 2):
		return substr(a)
	case st.name == "truncate" && len(a) == 1:
		return truncated(a[0])
	case st.name == "if" && len(a) == 4:
		return condition(a, wrong)
	case st.name == "index" && len(a) == 2 && a[0] != "":
		n, err := strconv.Atoi(a[1])
		if err != nil {
			return nil, wrong
		}
		return ofText(func(s string) (string, error) { return element(strings.Split(s, a[0]), n) }), nil
	}
	return nil, wrong
}

// condition is %{protocol | if('eq', 'imap', 'a', 'b')}.
func condition(a []string, wrong error) (filterFunc, error) {
	op := a[0]
	if !numeric[op] && !textual[op] {
		return nil, wrong
	}
	return ofText(func(s string) (string, error) {
		is, err := compare(s, op, a[1])
		if is {
			return a[2], err
		}
		return a[3], err
	}), nil
}

// element is the nth part of a list, or from its end if n is negative.
func element(parts []string, n int) (string, error) {
	if n < 0 {
		n += len(parts)
	}
	if n < 0 || n >= len(parts) {
		return "", fmt.Errorf("there is no part %d", n)
	}
	return parts[n], nil
}

// substr is substr(offset) or substr(offset, length); both count from the end where
// they are negative. What is too short for it has no value, as in Dovecot.
func substr(a []string) (filterFunc, error) {
	offset, err := strconv.Atoi(a[0])
	length := 0
	if err == nil && len(a) == 2 {
		length, err = strconv.Atoi(a[1])
	}
	if err != nil {
		return nil, fmt.Errorf("substr(%s): not numbers", strings.Join(a, ", "))
	}
	return ofText(func(s string) (string, error) {
		from, to := offset, length
		if from < 0 {
			from += len(s)
		}
		switch {
		case len(a) == 1:
			to = len(s)
		case length < 0:
			to += len(s)
		default:
			to += from
		}
		if from < 0 || to < from || to > len(s) {
			return "", fmt.Errorf("substr(%s): out of bounds", strings.Join(a, ", "))
		}
		return s[from:to], nil
	}), nil
}

// truncated is the first octets, or all if there are no more.
func truncated(argument string) (filterFunc, error) {
	n, err := strconv.Atoi(argument)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("truncate(%s): no number", argument)
	}
	return ofText(func(s string) (string, error) { return s[:min(n, len(s))], nil }), nil
}
