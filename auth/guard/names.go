package guard

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"dovepost/auth"
)

// Dovecot 2.3's defaults.
const (
	DefaultUsernameChars  = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ01234567890.-_@"
	DefaultUsernameFormat = "%Lu"
)

// Names are the rules that make a canonical user name of what was typed, in the
// order in which Dovecot 2.3 applies them: auth_default_realm,
// auth_username_translation, auth_username_chars, auth_username_format.
type Names struct {
	realm     string
	translate [256]byte // the octet itself where there is no rule
	allowed   [256]bool
	format    []formatPart
}

// NewNames compiles the settings. Empty chars allow every character, an empty
// format keeps the name. translation is a list of pairs of characters, from and
// to. Errors say which setting cannot be used.
func NewNames(realm, translation, chars, format string) (*Names, error) {
	n := &Names{realm: realm}
	for i := range n.translate {
		n.translate[i] = byte(i)
		n.allowed[i] = chars == ""
	}
	if len(translation)%2 != 0 {
		return nil, fmt.Errorf("auth_username_translation = %s: not pairs of characters", translation)
	}
	for i := 0; i < len(translation); i += 2 {
		n.translate[translation[i]] = translation[i+1]
	}
	for i := range len(chars) {
		n.allowed[chars[i]] = true
	}
	n.allowed[0] = false
	var err error
	if n.format, err = parseFormat(format); err != nil {
		return nil, fmt.Errorf("auth_username_format = %s: %w", format, err)
	}
	return n, nil
}

// Canonical returns the name that is looked up for login. Any error means that no
// user can have this name.
func (n *Names) Canonical(login string) (string, error) {
	if n.realm != "" && !strings.Contains(login, "@") {
		login += "@" + n.realm
	}
	name := []byte(login)
	for i, c := range name {
		name[i] = n.translate[c]
		if !n.allowed[name[i]] {
			return "", fmt.Errorf("character 0x%02x is not in auth_username_chars", name[i])
		}
	}
	if len(n.format) > 0 {
		name = n.expand(string(name))
	}
	if len(name) == 0 {
		return "", fmt.Errorf("empty user name")
	}
	return string(name), nil
}

// formatPart is one piece of auth_username_format: a literal, or a variable.
type formatPart struct {
	literal  string
	variable byte // u, n, d; 0 for a literal
	fold     func(string) string
}

var longVariables = map[string]byte{"user": 'u', "username": 'n', "domain": 'd'}

// parseFormat reads %u %n %d with the modifiers L and U, %{user} %{username}
// %{domain}, and %%.
func parseFormat(format string) (parts []formatPart, err error) {
	for format != "" {
		literal, rest, found := strings.Cut(format, "%")
		if literal != "" {
			parts = append(parts, formatPart{literal: literal})
		}
		if !found {
			break
		}
		part := formatPart{}
		for rest != "" && (rest[0] == 'L' || rest[0] == 'U') {
			part.fold = map[byte]func(string) string{'L': lower, 'U': upper}[rest[0]]
			rest = rest[1:]
		}
		switch {
		case rest == "":
			return nil, fmt.Errorf("ends in %%")
		case rest[0] == '{':
			name, after, ok := strings.Cut(rest[1:], "}")
			if part.variable = longVariables[name]; !ok || part.variable == 0 {
				return nil, fmt.Errorf("unknown variable %%{%s}", name)
			}
			rest = after
		case rest[0] == '%':
			part, rest = formatPart{literal: "%"}, rest[1:]
		case strings.IndexByte("und", rest[0]) >= 0:
			part.variable, rest = rest[0], rest[1:]
		default:
			return nil, fmt.Errorf("unknown variable %%%c", rest[0])
		}
		parts, format = append(parts, part), rest
	}
	return parts, nil
}

func (n *Names) expand(user string) (name []byte) {
	local, domain, _ := strings.Cut(user, "@")
	for _, part := range n.format {
		value := part.literal
		switch part.variable {
		case 'u':
			value = user
		case 'n':
			value = local
		case 'd':
			value = domain
		}
		if part.fold != nil {
			value = part.fold(value)
		}
		name = append(name, value...)
	}
	return name
}

// lower and upper fold ASCII alone, as Dovecot's L and U.
func lower(s string) string { return foldASCII(s, 'A', 'Z') }
func upper(s string) string { return foldASCII(s, 'a', 'z') }

func foldASCII(s string, from, to byte) string {
	b := []byte(s)
	for i, c := range b {
		if from <= c && c <= to {
			b[i] = c ^ 0x20
		}
	}
	return string(b)
}

// Lookup applies the rules for names to a Passdb and a Userdb. It is both: r.User
// is made from r.Login unless it is set, and is the final name afterwards.
type Lookup struct {
	Names  *Names // nil: names are taken as they are
	Passdb auth.Passdb
	Userdb auth.Userdb
}

// canonical fills r.User.
func (l Lookup) canonical(r *auth.Request) error {
	if r.User != "" {
		return nil
	}
	name, err := r.Login, error(nil)
	if l.Names != nil {
		name, err = l.Names.Canonical(name)
	}
	switch {
	case err != nil:
		return fmt.Errorf("%w: %v", auth.ErrUnknownUser, err)
	case name == "":
		return fmt.Errorf("%w: empty user name", auth.ErrUnknownUser)
	}
	r.User = name
	return nil
}

// LookupPass is auth.Passdb's. A name that the rules refuse is an unknown user. The
// rules are for what was typed: the name that a row gives is final as it stands, as
// in Dovecot, and r.User is set to it.
func (l Lookup) LookupPass(ctx context.Context, r *auth.Request) (*auth.Credentials, error) {
	if err := l.canonical(r); err != nil {
		return nil, err
	}
	row, err := l.Passdb.LookupPass(ctx, r)
	if err == nil {
		r.User = row.User
	}
	return row, err
}

// LookupUser is auth.Userdb's, with the rules of LookupPass.
func (l Lookup) LookupUser(ctx context.Context, r *auth.Request) (*auth.User, error) {
	if err := l.canonical(r); err != nil {
		return nil, err
	}
	u, err := l.Userdb.LookupUser(ctx, r)
	if err == nil {
		r.User = u.Name
	}
	return u, err
}

// Users yields the names as the Userdb has them.
func (l Lookup) Users(ctx context.Context, mask string) iter.Seq2[string, error] {
	return l.Userdb.Users(ctx, mask)
}
