// Package expand knows the %variables of Dovecot's settings: those of 2.3, such as
// %u, %2.256Hu, %{sha256;rounds=2:user} and %{if;%s;eq;imap;a;b} (Scan), and those
// of 2.4, such as %{user | domain | lower} (ScanModern).
//
// Unknown variables, functions and filters are refused when a text is read, where
// Dovecot refuses every login. Everything is counted in octets, and letters are
// ASCII letters, as in Dovecot.
//
// It asks nobody: the values come from an auth.Request. What becomes of a value, a
// bound argument or a part of a path, is the caller's concern.
package expand

import (
	"fmt"
	"strings"

	"dovepost/auth"
)

// Values are what variables stand for.
type Values struct {
	Request *auth.Request
	Home    string // %h; empty while the home is not known, as in Dovecot's auth

	// Escape is applied to what the client can choose, before modifiers and
	// functions see it; nil: nothing is. Dovecot 2.3 escapes for SQL first and cuts
	// and hashes afterwards, so that %Hu of o'brien is the hash of o\'brien.
	Escape func(string) string
}

func (in Values) escape(s string) string {
	if in.Escape == nil {
		return s
	}
	return in.Escape(s)
}

// Variable is one compiled variable. It is safe for concurrent use.
type Variable struct {
	value    func(Values) (string, error)
	plain    bool
	trusted  bool
	fallible bool
	secret   bool
}

// Value returns what v stands for. An error means that it stands for nothing, such
// as a comparison of numbers with what is none; Dovecot calls it an internal failure.
func (v *Variable) Value(in Values) (string, error) { return v.value(in) }

// Plain reports whether v is the value as it is, without modifiers or functions, so
// that Values.Escape has no influence on its meaning.
func (v *Variable) Plain() bool { return v.plain }

// Trusted reports whether no client can choose the value: the service, for instance.
func (v *Variable) Trusted() bool { return v.trusted }

// Fallible reports whether Value may return an error.
func (v *Variable) Fallible() bool { return v.fallible }

// Secret reports whether v is made of the password in clear: %w.
func (v *Variable) Secret() bool { return v.secret }

// Scanner reads the variable at the start of s, which starts with '%', and returns
// how many octets it takes. A nil Variable is the literal '%'.
type Scanner func(s string) (v *Variable, n int, err error)

// Template is a text with variables.
type Template []part

type part struct {
	text     string
	variable *Variable // nil: text
}

// maxTemplate bounds a text with its variables.
const maxTemplate = 1 << 16

// Parse compiles a text. Errors say which variable is unknown or broken.
func Parse(text string, scan Scanner) (Template, error) {
	if len(text) > maxTemplate {
		return nil, fmt.Errorf("more than %d octets", maxTemplate)
	}
	var t Template
	for text != "" {
		n := strings.IndexByte(text, '%')
		if n < 0 {
			n = len(text)
		}
		if n > 0 {
			t, text = append(t, part{text: text[:n]}), text[n:]
			continue
		}
		v, n, err := scan(text)
		if err != nil {
			return nil, err
		}
		if v == nil {
			t = append(t, part{text: "%"})
		} else {
			t = append(t, part{variable: v})
		}
		text = text[n:]
	}
	return t, nil
}

// Expand returns the text with the values of its variables.
func (t Template) Expand(in Values) (string, error) {
	return t.ExpandParts(in, func(value string) (string, error) { return value, nil })
}

// ExpandParts is Expand that lets check see, and change, the value of each variable.
func (t Template) ExpandParts(in Values, check func(value string) (string, error)) (string, error) {
	if len(t) == 1 && t[0].variable == nil {
		return t[0].text, nil
	}
	var b strings.Builder
	for _, p := range t {
		if p.variable == nil {
			b.WriteString(p.text)
			continue
		}
		value, err := p.variable.value(in)
		if err == nil {
			value, err = check(value)
		}
		if err != nil {
			return "", err
		}
		b.WriteString(value)
	}
	return b.String(), nil
}

// constant returns the text of t if it has no variables.
func (t Template) constant() (string, bool) {
	var b strings.Builder
	for _, p := range t {
		if p.variable != nil {
			return "", false
		}
		b.WriteString(p.text)
	}
	return b.String(), true
}

// fallible, trusted and secret are what the variables of t are together.
func (t Template) fallible() bool { return t.any(func(v *Variable) bool { return v.fallible }) }
func (t Template) secret() bool   { return t.any(func(v *Variable) bool { return v.secret }) }
func (t Template) trusted() bool  { return !t.any(func(v *Variable) bool { return !v.trusted }) }

func (t Template) any(is func(*Variable) bool) bool {
	for _, p := range t {
		if p.variable != nil && is(p.variable) {
			return true
		}
	}
	return false
}
