package sqldb

import (
	"fmt"
	"strconv"
	"strings"

	"dovepost/auth"
	"dovepost/auth/expand"
	"dovepost/lookup/mysql"
)

// SeedOptions is what the built-in layout does not keep in the database.
type SeedOptions struct {
	Home     string // with Dovecot variables of the user's name; empty is "/home/vmail/%d/%n"
	Mail     string // mail location; may be empty
	UID, GID string // may be empty
	Scheme   string // of passwords without {SCHEME}; empty is SHA512-CRYPT
}

// Seed opens the built-in layout: users (email, password, quota in KiB, 0 for
// none). Its userdb never reads the column password.
func Seed(pool *mysql.Pool, o SeedOptions) (*DB, error) {
	if o.Home == "" {
		o.Home = "/home/vmail/%d/%n"
	}
	if o.Scheme == "" {
		o.Scheme = "SHA512-CRYPT"
	}
	home, err := expand.Parse(o.Home, expand.Scan)
	if err != nil {
		return nil, fmt.Errorf("home %s: %w", o.Home, err)
	}
	db, err := Open(&File{
		Path:              "built-in",
		PasswordQuery:     "SELECT email AS user, password FROM users WHERE email = '%u'",
		UserQuery:         "SELECT email AS user, quota FROM users WHERE email = '%u'",
		IterateQuery:      "SELECT email AS user FROM users",
		DefaultPassScheme: o.Scheme,
	}, pool)
	if err != nil {
		return nil, err
	}
	db.finish = func(u *auth.User) error {
		quota, _ := u.Fields.Get("quota")
		u.Fields = nil
		if n, err := strconv.ParseInt(quota, 10, 64); err == nil && n > 0 {
			u.Fields = auth.Fields{{Name: "quota_rule", Value: "*:storage=" + quota, HasValue: true}}
		}
		u.Mail, u.UID, u.GID = o.Mail, o.UID, o.GID
		var err error
		u.Home, err = expandPath(home, &auth.Request{User: u.Name})
		return err
	}
	return db, nil
}

// expandPath returns a path of p's variables. A variable must not change the shape of
// the path: one that is empty, has a slash or is a dot entry is an error.
func expandPath(p expand.Template, r *auth.Request) (string, error) {
	return p.ExpandParts(expand.Values{Request: r}, func(value string) (string, error) {
		if value == "" || value == "." || value == ".." || strings.ContainsAny(value, "/\x00") {
			return "", fmt.Errorf("the name %q makes no home directory", r.User)
		}
		return value, nil
	})
}
