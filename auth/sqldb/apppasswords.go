package sqldb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"dovepost/auth"
)

// AppPassword is one of the further passwords of a user.
type AppPassword struct {
	Name     string // for the log: the column name, or id
	Password string // "{SCHEME}hash"
	services []string
	scoped   bool      // services count
	expires  time.Time // zero: never
}

// Allows reports whether the password counts for service at the time now. "smtp" in
// its list stands for Dovecot's submission service, too, and "managesieve" for sieve.
func (a *AppPassword) Allows(service string, now time.Time) bool {
	if !a.expires.IsZero() && !now.Before(a.expires) {
		return false
	}
	names := map[string]string{"submission": "smtp", "sieve": "managesieve"}
	service = strings.ToLower(service)
	return !a.scoped || slices.Contains(a.services, service) || names[service] != "" && slices.Contains(a.services, names[service])
}

// AppPasswords returns the rows of the statement for r, in their order. The columns:
//
//	password           as in a password_query; a row where it is NULL or empty is left out
//	name or id         what the log calls it
//	service, services  a list of imap, pop3, smtp, sieve ...; NULL or no such column: all.
//	                   An empty list is none
//	expires            Unix time; NULL, 0 or no such column: never
//
// Any other column is an error, and so is what cannot be read: temporary, as all are.
func (s *Statement) AppPasswords(ctx context.Context, r *auth.Request) (list []AppPassword, cached, stale bool, err error) {
	rows, err := s.rows(ctx, r)
	if err != nil {
		return nil, false, false, err
	}
	for _, row := range rows.Values {
		a, password := AppPassword{}, ""
		for i, column := range rows.Columns {
			if !row[i].Valid {
				continue
			}
			if column == "password" {
				password = text(row[i])
			} else if err := a.set(column, text(row[i])); err != nil {
				return nil, false, false, fmt.Errorf("%s: %w", s.name, err)
			}
		}
		if password == "" {
			continue
		}
		if a.Password = password; !strings.HasPrefix(password, "{") || !strings.Contains(password, "}") {
			a.Password = "{" + s.db.scheme + "}" + password
		}
		list = append(list, a)
	}
	return list, rows.Cached, rows.Stale, nil
}

// set takes a column that is not NULL and not the password.
func (a *AppPassword) set(column, value string) error {
	switch column {
	case "name":
		a.Name = value
	case "id":
		if a.Name == "" {
			a.Name = value
		}
	case "service", "services":
		a.scoped = true
		a.services = strings.FieldsFunc(strings.ToLower(value), func(r rune) bool { return r == ',' || r == ' ' || r == ';' })
	case "expires":
		seconds, _, _ := strings.Cut(value, ".")
		n, err := strconv.ParseInt(seconds, 10, 64)
		if err != nil {
			return errors.New("expires is not a Unix time; make it one with UNIX_TIMESTAMP()")
		}
		if n != 0 {
			a.expires = time.Unix(n, 0)
		}
	default:
		return fmt.Errorf("unknown column %.64q", column)
	}
	return nil
}

// isYes reads a column that says yes or no, as 1 and 0, Y and N, or in words.
func isYes(value string) bool {
	switch strings.ToLower(strings.TrimSpace(value)) {
	case "", "0", "n", "no", "f", "false", "off":
		return false
	}
	return true
}
