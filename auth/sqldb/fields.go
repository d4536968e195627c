package sqldb

import (
	"errors"
	"fmt"
	"strings"

	"dovepost/auth"
)

// setField sets a field in its place, or at the end.
func setField(fields auth.Fields, name, value string) auth.Fields {
	for i := range fields {
		if fields[i].Name == name {
			fields[i].Value, fields[i].HasValue = value, true
			return fields
		}
	}
	return append(fields, auth.Field{Name: name, Value: value, HasValue: true})
}

func removeField(fields auth.Fields, name string) auth.Fields {
	for i := range fields {
		if fields[i].Name == name {
			return append(fields[:i], fields[i+1:]...)
		}
	}
	return fields
}

// suffixed handles "name:protected", which never overrides, and "name:remove". It
// returns the name to set, or "" if there is nothing left to do.
func suffixed(fields *auth.Fields, name string) string {
	if plain, ok := strings.CutSuffix(name, ":protected"); ok {
		if _, set := fields.Get(plain); set {
			return ""
		}
		return plain
	}
	if plain, ok := strings.CutSuffix(name, ":remove"); ok {
		*fields = removeField(*fields, plain)
		return ""
	}
	return name
}

// rename applies a column user, username or domain to a user's name.
func rename(old, column, value string) (name string, ok bool) {
	user, domain, hasDomain := strings.Cut(old, "@")
	switch column {
	case "user":
		return value, true
	case "username":
		if strings.Contains(value, "@") || !hasDomain {
			return value, true
		}
		return value + "@" + domain, true
	case "domain":
		return user + "@" + value, true
	}
	return old, false
}

// pass gathers the columns of a password_query.
type pass struct {
	name     string
	scheme   string // for a password without one
	password *string
	column   bool // there is a password column
	fields   auth.Fields
	userdb   *account // userdb_*
	err      error
}

func newPass(name, scheme string) *pass {
	return &pass{name: name, scheme: scheme, userdb: newAccount(name)}
}

// set takes one column that is not NULL.
func (p *pass) set(name, value string) {
	if name = suffixed(&p.fields, name); name == "" {
		return
	}
	if renamed, ok := rename(p.name, name, value); ok {
		p.rename(renamed)
		return
	}
	switch name {
	case "password", "password_noscheme":
		p.column = true
		if p.password != nil {
			p.fail(errors.New("multiple password values"))
			return
		}
		if name == "password_noscheme" || !strings.HasPrefix(value, "{") || !strings.Contains(value, "}") {
			value = "{" + p.scheme + "}" + value
		}
		p.password = &value
	case "nopassword":
		p.noPassword()
	case "noauthenticate":
		p.fail(errors.New("noauthenticate on the only password database"))
	case "fail":
		p.fail(fmt.Errorf("the row says fail: %w", auth.ErrPasswordMismatch))
	case "passdb_import", "userdb_userdb_import":
		prefix := ""
		if name == "userdb_userdb_import" {
			prefix = "userdb_"
		}
		for _, field := range strings.Split(value, "\t") {
			if key, value, _ := strings.Cut(field, "="); key != "" {
				p.set(prefix+key, value)
			}
		}
	default:
		if field, ok := strings.CutPrefix(name, "userdb_"); ok {
			p.prefetch(field, value)
		} else {
			p.fields = setField(p.fields, name, value)
		}
	}
}

func (p *pass) fail(err error) {
	if p.err == nil {
		p.err = err
	}
}

func (p *pass) rename(name string) {
	if name == "" {
		p.fail(errors.New("the row changes the user's name to nothing"))
	}
	p.name = name
}

// noPassword lets any password in, unless the row has a password, in whatever
// order they come. (In Dovecot nopassword before a password wins.)
func (p *pass) noPassword() {
	if p.password != nil {
		if _, hash, _ := strings.Cut(*p.password, "}"); hash != "" {
			return
		}
		p.password = nil
	}
	p.fields = setField(p.fields, "nopassword", "")
}

// prefetch takes a userdb_ column. In Dovecot it may also change the name.
func (p *pass) prefetch(name, value string) {
	if renamed, ok := rename(p.name, name, value); ok {
		p.rename(renamed)
		return
	}
	p.userdb.set(name, value)
}

// credentials returns what was gathered.
func (p *pass) credentials() (*auth.Credentials, error) {
	if p.err == nil {
		p.err = p.userdb.err
	}
	_, noPassword := p.fields.Get("nopassword")
	switch {
	case p.err != nil:
		return nil, p.err
	case !p.column:
		return nil, errors.New("there must be a column named password")
	case p.password == nil && !noPassword:
		return nil, fmt.Errorf("no password and no nopassword: %w", auth.ErrPasswordMismatch)
	}
	c := &auth.Credentials{User: p.name, Fields: removeField(p.fields, "nopassword"), Userdb: p.userdb.fields}
	if p.password != nil {
		c.Password = *p.password
	} else {
		c.NoPassword = true
	}
	return c, nil
}

// account gathers the columns of a user_query, or the userdb_ columns of a password_query.
type account struct {
	name   string
	fields auth.Fields
	err    error
}

func newAccount(name string) *account { return &account{name: name} }

// set takes one column that is not NULL.
func (u *account) set(name, value string) {
	if name = suffixed(&u.fields, name); name == "" {
		return
	}
	if renamed, ok := rename(u.name, name, value); ok {
		if renamed == "" {
			u.fail(errors.New("the row changes the user's name to nothing"))
		}
		u.name = renamed
		return
	}
	switch name {
	case "tempfail":
		u.fail(errors.New("the row says tempfail"))
	case "uidgid_file":
		u.fail(errors.New("uidgid_file is not supported"))
	case "uid", "gid":
		if value == "" {
			u.fail(fmt.Errorf("empty %s", name))
		}
		u.fields = setField(u.fields, name, value)
	case "userdb_import":
		for _, field := range strings.Split(value, "\t") {
			if key, value, _ := strings.Cut(field, "="); key != "" {
				u.set(key, value)
			}
		}
	case "system_user":
		u.fields = setField(u.fields, "system_groups_user", value)
	default:
		u.fields = setField(u.fields, name, modern(name, value))
	}
}

func (u *account) fail(err error) {
	if u.err == nil {
		u.err = err
	}
}

// user returns what was gathered.
func (u *account) user() (*auth.User, error) {
	if u.err != nil {
		return nil, u.err
	}
	user := &auth.User{Name: u.name}
	own := map[string]*string{"home": &user.Home, "mail": &user.Mail, "uid": &user.UID, "gid": &user.GID}
	for _, field := range u.fields {
		if to, ok := own[field.Name]; ok {
			*to = field.Value
		} else {
			user.Fields = append(user.Fields, field)
		}
	}
	return user, nil
}

// modern translates values that today's Dovecot would refuse or ignore.
func modern(name, value string) string {
	switch {
	case name == "mail" && value != "" && !strings.ContainsAny(value[:1], "/~%$") && !strings.Contains(value, ":"):
		return "maildir:~/" + value
	case strings.HasPrefix(name, "quota_rule") && strings.HasPrefix(value, "dirsize:"):
		return "*:" + strings.TrimPrefix(value, "dirsize:")
	}
	return value
}
