package sqldb

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"dovepost/auth"
	"dovepost/auth/expand"
)

// setField sets a field in its place, or at the end. Of an empty one Dovecot's auth
// service says the name alone.
func setField(fields auth.Fields, name, value string) auth.Fields {
	for i := range fields {
		if fields[i].Name == name {
			fields[i].Value, fields[i].HasValue = value, value != ""
			return fields
		}
	}
	return append(fields, auth.Field{Name: name, Value: value, HasValue: value != ""})
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
	proven   bool   // a master user logs in: this row's password does not matter
	password *string
	stored   string
	appOnly  bool
	asked    bool // there is a password column
	fields   auth.Fields
	userdb   *account // userdb_*
	err      error
}

func newPass(r *auth.Request, scheme string) *pass {
	return &pass{name: r.User, scheme: scheme, proven: r.MasterUser != "", userdb: newAccount(r)}
}

// column takes one column of the row.
func (p *pass) column(name string, value sql.NullString) {
	switch {
	case name == "":
	case value.Valid:
		p.set(name, text(value))
	case name == "password" || name == "password_noscheme":
		p.asked = true
	}
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
		p.asked = true
		if p.password != nil {
			p.fail(errors.New("multiple password values"))
			return
		}
		p.stored = value
		if name == "password_noscheme" || !strings.HasPrefix(value, "{") || !strings.Contains(value, "}") {
			value = "{" + p.scheme + "}" + value
		}
		p.password = &value
	case "nopassword":
		p.noPassword()
	case "app_password_only":
		p.appOnly = isYes(value)
	case "noauthenticate": // leaves the proof to the passdb after this one, and there is none
		p.fail(errors.New("the row says noauthenticate, and there is no other passdb"))
	case "fail":
		p.fail(fmt.Errorf("the row says fail: %w", auth.ErrUnknownUser))
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

// prefetch takes a userdb_ column. In Dovecot it may also change the name. An empty id is
// none: whose password is right is no other because of it, and the userdb is asked.
func (p *pass) prefetch(name, value string) {
	if value == "" && (name == "uid" || name == "gid") {
		return
	}
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
	case !p.asked:
		return nil, errors.New("there must be a column named password")
	case p.password == nil && !noPassword && !p.proven:
		return nil, fmt.Errorf("no password and no nopassword: %w", auth.ErrPasswordMismatch)
	}
	c := &auth.Credentials{User: p.name, Fields: removeField(p.fields, "nopassword"), Userdb: p.userdb.fields}
	c.AppPasswordOnly = p.appOnly
	if p.password != nil {
		c.Password, c.Stored = *p.password, p.stored
	} else {
		c.NoPassword = noPassword
	}
	return c, nil
}

// account gathers the columns of a user_query, or the userdb_ columns of a password_query.
type account struct {
	request *auth.Request
	name    string
	fields  auth.Fields
	err     error
}

func newAccount(r *auth.Request) *account { return &account{request: r, name: r.User} }

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
		u.ownerOf(value)
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

// ownerOf takes uid and gid from the file whose path, with variables, is given.
func (u *account) ownerOf(path string) {
	p, err := expand.Parse(path, expand.Scan)
	if err == nil {
		path, err = expandPath(p, u.request)
	}
	var info os.FileInfo
	if err == nil {
		info, err = os.Stat(path)
	}
	if err != nil {
		u.fail(fmt.Errorf("uidgid_file: %w", err))
		return
	}
	stat := info.Sys().(*syscall.Stat_t)
	u.fields = setField(u.fields, "uid", strconv.FormatUint(uint64(stat.Uid), 10))
	u.fields = setField(u.fields, "gid", strconv.FormatUint(uint64(stat.Gid), 10))
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
