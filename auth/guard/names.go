package guard

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"dovepost/auth"
	"dovepost/auth/expand"
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
	format    expand.Template // empty: the name as it is
}

// NewNames compiles the settings. Empty chars allow every character, an empty
// format keeps the name; it may have all variables of Dovecot 2.3 (package expand).
// translation is a list of pairs of characters, from and to. Errors say which
// setting cannot be used.
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
	if n.format, err = expand.Parse(format, formatVariables); err != nil {
		return nil, fmt.Errorf("auth_username_format = %s: %w", format, err)
	}
	return n, nil
}

// formatVariables reads the variables of auth_username_format.
func formatVariables(s string) (*expand.Variable, int, error) {
	v, size, err := expand.Scan(s)
	if err == nil && v != nil && v.Secret() {
		err = errors.New("a password is no part of a name")
	}
	return v, size, err
}

// Canonical returns the name that is looked up for login. Any error means that no
// user can have this name.
func (n *Names) Canonical(login string) (string, error) {
	return n.CanonicalOf(&auth.Request{}, login)
}

// CanonicalOf is Canonical for a request, of which auth_username_format may want more
// than the name.
func (n *Names) CanonicalOf(r *auth.Request, login string) (string, error) {
	if login == "" { // auth_default_realm makes no name of it
		return "", errors.New("empty user name")
	}
	typed := login
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
	canonical := string(name)
	if len(n.format) > 0 {
		of := *r
		if of.User = canonical; of.Login == "" {
			of.Login = typed
		}
		var err error
		if canonical, err = n.format.Expand(expand.Values{Request: &of}); err != nil {
			return "", err
		}
	}
	if canonical == "" {
		return "", errors.New("empty user name")
	}
	return canonical, nil
}

// lower folds ASCII alone, as Dovecot's %L.
func lower(s string) string { return expand.Lower(s) }

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
		name, err = l.Names.CanonicalOf(r, name)
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
//
// A row that does not let r log in, as by allow_nets, is auth.ErrPasswordMismatch.
func (l Lookup) LookupPass(ctx context.Context, r *auth.Request) (*auth.Credentials, error) {
	row, err := l.find(ctx, r)
	if err != nil {
		return nil, err
	}
	if why := checkRow(r, row); why != "" {
		return nil, fmt.Errorf("%w: %s", auth.ErrPasswordMismatch, why)
	}
	return loginUser(r, row), nil
}

// find is LookupPass for whoever looks at the row's conditions himself.
func (l Lookup) find(ctx context.Context, r *auth.Request) (*auth.Credentials, error) {
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
