package postconf

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// defaults are the values of Postfix for parameters that have a say in which tables
// there are and which keys are tried. No other default names a table in MySQL.
var defaults = map[string]string{
	"compatibility_level":              "0",
	"queue_directory":                  "/var/spool/postfix",
	"mydestination":                    "$myhostname, localhost.$mydomain, localhost",
	"myorigin":                         "$myhostname",
	"propagate_unmatched_extensions":   "canonical, virtual",
	"parent_domain_matches_subdomains": "debug_peer_list,fast_flush_domains,mynetworks,permit_mx_backup_networks,qmqpd_authorized_clients,relay_domains,smtpd_access_maps",
	"virtual_alias_maps":               "$virtual_maps",
	"virtual_alias_domains":            "$virtual_alias_maps",
	"virtual_mailbox_domains":          "$virtual_mailbox_maps",
	"virtual_transport":                "virtual",
	"relay_domains":                    "${{$compatibility_level} <level {2} ? {$mydestination} : {}}",
	"fast_flush_domains":               "$relay_domains",
	"local_recipient_maps":             "proxy:unix:passwd.byname $alias_maps",

	"smtp_sender_dependent_authentication": "no",
	"lmtp_sender_dependent_authentication": "no",
}

// scope is where a name is looked up: the overrides of a service, main.cf, the defaults.
type scope struct {
	*Config
	overrides []Setting
}

// raw returns the value of a parameter as it stands. set: in a file.
func (s scope) raw(name string) (value string, set bool) {
	for _, o := range s.overrides {
		if o.Name == name {
			return o.Value, true
		}
	}
	if value, set = s.main[name]; set {
		return value, true
	}
	switch name {
	case "config_directory":
		return s.Dir, false
	case "myhostname":
		if strings.Contains(s.Hostname, ".") {
			return s.Hostname, false
		}
		if _, set := s.main["mydomain"]; set {
			return s.Hostname + ".$mydomain", false
		}
		return s.Hostname + ".localdomain", false
	case "mydomain":
		host, err := s.value("myhostname")
		if _, domain, ok := strings.Cut(host, "."); ok && err == nil && domain != "" {
			return domain, false
		}
		return "localdomain", false
	}
	return defaults[name], false
}

// Value returns the value that a parameter has, its macros expanded.
func (c *Config) Value(name string) (string, error) { return scope{Config: c}.value(name) }

func (s scope) value(name string) (string, error) {
	raw, _ := s.raw(name)
	value, err := s.expand(raw)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return strings.Trim(value, spaces), nil
}

// expand expands the macros of a text: $name, ${name}, $(name), ${name?text},
// ${name:text}, ${name?{text}:{text}}, ${{a} == {b}?{text}:{text}}, and $$.
// A name that is not known is empty.
func (s scope) expand(text string) (string, error) {
	budget := maxMacros
	x := &expander{scope: s, budget: &budget}
	if err := x.expand(text, 0); err != nil {
		return "", err
	}
	return x.out.String(), nil
}

// expander collects one expanded value.
type expander struct {
	scope
	budget *int // macros that may still be expanded
	out    strings.Builder
}

func (x *expander) write(text string) error {
	if x.out.Len()+len(text) > maxValue {
		return fmt.Errorf("value longer than %d octets", maxValue)
	}
	x.out.WriteString(text)
	return nil
}

func (x *expander) expand(text string, depth int) error {
	switch *x.budget--; {
	case depth > maxDepth:
		return fmt.Errorf("more than %d macros in macros: %.60s", maxDepth, text)
	case *x.budget < 0:
		return fmt.Errorf("more than %d macros", maxMacros)
	}
	for {
		constant, rest, found := strings.Cut(text, "$")
		if err := x.write(constant); err != nil || !found {
			return err
		}
		if strings.HasPrefix(rest, "$") {
			if err := x.write("$"); err != nil {
				return err
			}
			text = rest[1:]
			continue
		}
		m, n, err := parseMacro(rest)
		if err != nil {
			return err
		}
		if err := x.macro(m, depth+1); err != nil {
			return err
		}
		text = rest[n:]
	}
}

// macro expands one macro.
func (x *expander) macro(m macro, depth int) error {
	yes := false
	if m.name == "" {
		left, err := x.sub(m.left, depth)
		if err != nil {
			return err
		}
		right, err := x.sub(m.right, depth)
		if err != nil {
			return err
		}
		if yes, err = compare(left, m.operator, right); err != nil {
			return err
		}
	} else if raw, _ := x.raw(m.name); !m.conditional {
		return x.expand(raw, depth)
	} else {
		value, err := x.sub(raw, depth)
		if err != nil {
			return err
		}
		yes = value != ""
	}
	if yes {
		return x.expand(m.ifTrue, depth)
	}
	return x.expand(m.ifFalse, depth)
}

// sub expands a text on its own.
func (x *expander) sub(text string, depth int) (string, error) {
	other := &expander{scope: x.scope, budget: x.budget}
	if err := other.expand(text, depth); err != nil {
		return "", err
	}
	return other.out.String(), nil
}

// macro is what stands after a dollar sign.
type macro struct {
	name                  string // empty: a comparison
	left, operator, right string
	conditional           bool // it has ifTrue or ifFalse
	ifTrue, ifFalse       string
}

// parseMacro reads the macro that follows a dollar sign and returns how many octets it took.
func parseMacro(text string) (m macro, n int, err error) {
	if text != "" && (text[0] == '{' || text[0] == '(') {
		inner, n, err := balanced(text)
		if err != nil {
			return m, 0, err
		}
		m, err = parseInner(inner)
		return m, n, err
	}
	if n = nameLen(text); n == 0 {
		return m, 0, fmt.Errorf("empty macro name: $%.60s", text)
	}
	m.name = text[:n]
	return m, n, nil
}

// parseInner reads what stands in the braces of a macro.
func parseInner(inner string) (m macro, err error) {
	text := strings.TrimLeft(inner, spaces)
	bad := func() error { return fmt.Errorf("bad macro: ${%.60s}", inner) }
	if strings.HasPrefix(text, "{") {
		var n int
		if m.left, n, err = balanced(text); err != nil {
			return m, err
		}
		text = strings.TrimLeft(text[n:], spaces)
		if n = strings.IndexAny(text, "{ \t"); n < 0 {
			return m, bad()
		}
		m.operator, text = text[:n], strings.TrimLeft(text[n:], spaces)
		if !strings.HasPrefix(text, "{") {
			return m, bad()
		}
		if m.right, n, err = balanced(text); err != nil {
			return m, err
		}
		// Without texts a comparison stands for itself.
		m.ifTrue, m.ifFalse = "true", ""
		text = strings.TrimLeft(text[n:], spaces)
	} else {
		n := nameLen(text)
		if n == 0 {
			return m, bad()
		}
		m.name, text = text[:n], strings.TrimLeft(text[n:], spaces)
	}
	switch {
	case text == "":
		return m, nil
	case text[0] == '?':
		m.conditional, m.ifFalse = true, ""
		if m.ifTrue, text, err = branch(text[1:]); err != nil || text == "" {
			return m, err
		}
		if text[0] != ':' {
			return m, bad()
		}
	case text[0] == ':':
		m.conditional, m.ifTrue = true, ""
	default:
		return m, bad()
	}
	if m.ifFalse, text, err = branch(text[1:]); err == nil && text != "" {
		err = bad()
	}
	return m, err
}

// branch reads the text after ? or :, in braces, or all of it.
func branch(text string) (branch, rest string, err error) {
	trimmed := strings.TrimLeft(text, spaces)
	if !strings.HasPrefix(trimmed, "{") {
		return text, "", nil
	}
	branch, n, err := balanced(trimmed) // blanks in the braces belong to it
	return branch, strings.TrimLeft(trimmed[max(n, 0):], spaces), err
}

// balanced returns what stands between the brace at the start of text and the one
// that belongs to it, and the length with both.
func balanced(text string) (inner string, n int, err error) {
	open, end := text[0], byte('}')
	if open == '(' {
		end = ')'
	}
	depth := 0
	for i := range len(text) {
		switch text[i] {
		case open:
			depth++
		case end:
			if depth--; depth == 0 {
				return text[1:i], i + 1, nil
			}
		}
	}
	return "", 0, fmt.Errorf("unbalanced %c: %.60s", open, text)
}

// nameLen returns the length of the parameter name at the start of text.
func nameLen(text string) int {
	for i := range len(text) {
		if c := text[i]; (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '_' {
			return i
		}
	}
	return len(text)
}

// compare compares as numbers where both are, else as strings; with "level", as
// compatibility levels, 3.6 and the like.
func compare(left, operator, right string) (bool, error) {
	order := strings.Compare(left, right)
	operator, level := strings.CutSuffix(operator, "level")
	if level {
		order = compareLevels(left, right)
	} else if l, err := strconv.ParseInt(left, 10, 64); err == nil {
		if r, err := strconv.ParseInt(right, 10, 64); err == nil {
			order = cmp.Compare(l, r)
		}
	}
	switch operator {
	case "==":
		return order == 0, nil
	case "!=":
		return order != 0, nil
	case "<":
		return order < 0, nil
	case "<=":
		return order <= 0, nil
	case ">=":
		return order >= 0, nil
	case ">":
		return order > 0, nil
	}
	return false, fmt.Errorf("bad operator %q", operator)
}

func compareLevels(left, right string) int {
	for left != "" || right != "" {
		var l, r string
		l, left, _ = strings.Cut(left, ".")
		r, right, _ = strings.Cut(right, ".")
		a, _ := strconv.Atoi(l)
		b, _ := strconv.Atoi(r)
		if order := cmp.Compare(a, b); order != 0 {
			return order
		}
	}
	return 0
}
