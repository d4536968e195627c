// Package passwdfile finds passwords in a file of the form of passwd(5), as
// Dovecot's passdb of driver passwd-file does:
//
//	user:{SCHEME}hash:uid:gid:gecos:home:shell:name=value name=value
//
// Only the first two fields are needed. Extra fields are those of a passdb row
// (allow_nets, nologin ...); userdb_ fields and those in between are not read. It
// compares no password; for that see auth/guard.
package passwdfile

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"dovepost/auth"
	"dovepost/lookup/bounded"
)

const maxFile = 1 << 20 // octets

// File is an auth.Passdb of what a file said when it was read.
type File struct {
	rows map[string]*auth.Credentials
}

// Read reads the file at path. A password without {SCHEME} has the scheme given.
// Errors name the file and the line, and never the password.
func Read(path, scheme string) (*File, error) {
	text, err := bounded.ReadFile(path, maxFile)
	if err != nil {
		return nil, err
	}
	f, err := parse(string(text), scheme)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func parse(text, scheme string) (*File, error) {
	f := &File{rows: map[string]*auth.Credentials{}}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimRight(line, "\r\n")
		if line == "" || line[0] == '#' || line[0] == ':' {
			continue
		}
		row, err := parseLine(line, scheme)
		if err == nil && f.rows[row.User] != nil {
			err = errors.New("the user is there twice")
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		f.rows[row.User] = row
	}
	return f, nil
}

func parseLine(line, scheme string) (*auth.Credentials, error) {
	fields := strings.SplitN(line, ":", 8)
	if len(fields) < 2 || fields[1] == "" {
		return nil, errors.New("no password")
	}
	row := &auth.Credentials{User: fields[0], Password: fields[1]}
	if !strings.HasPrefix(row.Password, "{") || !strings.Contains(row.Password, "}") {
		row.Password = "{" + scheme + "}" + row.Password
	}
	if len(fields) < 8 {
		return row, nil
	}
	for word := range strings.FieldsSeq(fields[7]) {
		name, value, ok := strings.Cut(word, "=")
		switch {
		case name == "nopassword" || name == "noauthenticate" || name == "user" || name == "password":
			return nil, fmt.Errorf("%s is not supported here", name)
		case strings.HasPrefix(name, "userdb_"):
		default:
			row.Fields = append(row.Fields, auth.Field{Name: name, Value: value, HasValue: ok})
		}
	}
	return row, nil
}

// LookupPass is auth.Passdb's. The name has to be the same, octet by octet.
func (f *File) LookupPass(_ context.Context, r *auth.Request) (*auth.Credentials, error) {
	row := f.rows[r.User]
	if row == nil {
		return nil, auth.ErrUnknownUser
	}
	found := *row
	return &found, nil
}
