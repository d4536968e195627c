package oauth2

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

// fields is what is known of a token: the members of a JSON object as text, by
// name. Members of an object in it have both names, with _ between; a list has
// several values.
type fields map[string][]string

func (f fields) has(name string) bool { return len(f[name]) > 0 }

// one returns the value of a field that has one, else nothing.
func (f fields) one(name string) string {
	if len(f[name]) != 1 {
		return ""
	}
	return f[name][0]
}

// words splits the values of a field at blanks.
func (f fields) words(name string) (all []string) {
	for _, value := range f[name] {
		all = append(all, strings.Fields(value)...)
	}
	return all
}

const (
	maxDepth  = 8
	maxFields = 1024
)

// parseFields reads one JSON object and nothing behind it.
func parseFields(text []byte) (fields, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var object map[string]any
	if err := d.Decode(&object); err != nil {
		return nil, errAnswer
	}
	if _, err := d.Token(); err != io.EOF || object == nil {
		return nil, errAnswer
	}
	f := fields{}
	return f, f.add("", object, 0)
}

func (f fields) add(name string, value any, depth int) error {
	if depth > maxDepth || len(f) > maxFields {
		return fmt.Errorf("%w: it is too deep or too large", errAnswer)
	}
	switch value := value.(type) {
	case map[string]any:
		for key, member := range value {
			if name != "" {
				key = name + "_" + key
			}
			if err := f.add(key, member, depth+1); err != nil {
				return err
			}
		}
	case []any:
		for _, member := range value {
			if err := f.add(name, member, depth+1); err != nil {
				return err
			}
		}
	case string:
		f[name] = append(f[name], value)
	case json.Number:
		f[name] = append(f[name], value.String())
	case bool:
		f[name] = append(f[name], strconv.FormatBool(value))
	}
	return nil
}

// skew is by how much the clocks of the server and of this machine may differ.
const skew = time.Second

// times checks exp, nbf and iat where they are there.
func (v *Validator) times(f fields) error {
	now := v.now()
	for _, t := range []struct {
		name string
		past bool // it must not be
		why  string
	}{{"exp", true, "the token has expired"}, {"nbf", false, "the token is not valid yet"}, {"iat", false, "the token is of the future"}} {
		if !f.has(t.name) {
			continue
		}
		at, err := numericDate(f.one(t.name))
		if err != nil {
			return refusal(t.name + " is no time")
		}
		if t.past && !now.Before(at.Add(skew)) || !t.past && now.Add(skew).Before(at) {
			return refusal(t.why)
		}
	}
	return nil
}

// numericDate reads seconds since 1970, which may have a fraction. RFC 7519 section 2.
func numericDate(s string) (time.Time, error) {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(n) || n < 0 || n > 1<<40 {
		return time.Time{}, errors.New("no time")
	}
	return time.UnixMilli(int64(n * 1000)), nil
}

// format is username_format: what both names have to have in common.
type format []func(user, local, domain string) string

// compileFormat reads %u %n %d with the modifiers L and U, and 2.4's %{user}
// %{user|username} %{user|domain}, with |lower or |upper.
func compileFormat(s string) (f format, err error) {
	for s != "" {
		literal, rest, found := strings.Cut(s, "%")
		if literal != "" {
			f = append(f, func(_, _, _ string) string { return literal })
		}
		if !found {
			break
		}
		var variable, fold string
		if inner, ok := strings.CutPrefix(rest, "{"); ok {
			if variable, rest, ok = strings.Cut(inner, "}"); !ok {
				return nil, errors.New("no } behind %{")
			}
			variable, fold = longVariable(variable)
		} else {
			for rest != "" && (rest[0] == 'L' || rest[0] == 'U') {
				fold, rest = rest[:1], rest[1:]
			}
			if rest != "" {
				variable, rest = rest[:1], rest[1:]
			}
		}
		pick, ok := variables[variable]
		if !ok {
			return nil, fmt.Errorf("unknown variable %%%s", variable)
		}
		f = append(f, func(user, local, domain string) string {
			switch value := pick(user, local, domain); fold {
			case "L":
				return strings.ToLower(value)
			case "U":
				return strings.ToUpper(value)
			default:
				return value
			}
		})
		s = rest
	}
	if len(f) == 0 {
		return nil, errors.New("empty")
	}
	return f, nil
}

var variables = map[string]func(user, local, domain string) string{
	"u": func(user, _, _ string) string { return user },
	"n": func(_, local, _ string) string { return local },
	"d": func(_, _, domain string) string { return domain },
	"%": func(_, _, _ string) string { return "%" },
}

// longVariable reads what stands in the braces.
func longVariable(s string) (variable, fold string) {
	for i, word := range strings.Split(s, "|") {
		switch word = strings.TrimSpace(word); {
		case i == 0 && word == "user":
			variable = "u"
		case i == 0 && word == "username", i > 0 && variable == "u" && word == "username":
			variable = "n"
		case i == 0 && word == "domain", i > 0 && variable == "u" && word == "domain":
			variable = "d"
		case i > 0 && word == "lower":
			fold = "L"
		case i > 0 && word == "upper":
			fold = "U"
		default:
			return "{" + s + "}", ""
		}
	}
	return variable, fold
}

func (f format) expand(user string) string {
	local, domain, _ := strings.Cut(user, "@")
	var b strings.Builder
	for _, part := range f {
		b.WriteString(part(user, local, domain))
	}
	return b.String()
}
