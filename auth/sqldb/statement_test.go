package sqldb

import (
	"context"
	"database/sql"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"dovepost/auth"
	"dovepost/lookup/mysql"
)

func TestStatementValuesAreBound(t *testing.T) {
	db, _ := withReplies(t, "SELECT 1")
	s, err := db.Statement("auth_rehash_query", "UPDATE users SET password = '%{new_password}' WHERE email = '%u' AND password = '%{old_password}' AND at < %{time} AND '100%%' <> '%Us'", "old_password", "new_password", "time")
	if err != nil {
		t.Fatal(err)
	}
	values, err := s.values(&auth.Request{User: "o'brien@example.com", Service: "imap"},
		map[string]string{"old_password": `{X}a'b\`, "new_password": "{Y}%u", "time": "7"})
	if err != nil {
		t.Fatal(err)
	}
	text, args, err := s.template.Expand(values)
	want := "UPDATE users SET password = ? WHERE email = ? AND password = ? AND at < ? AND '100%' <> ?"
	if err != nil || text != want {
		t.Errorf("%q, %v; want %q", text, err, want)
	}
	for i, arg := range []any{"{Y}%u", "o'brien@example.com", `{X}a'b\`, int64(7), "IMAP"} {
		if i >= len(args) || args[i] != arg {
			t.Fatalf("args %q, want %q at %d", args, arg, i)
		}
	}
}

// A server that reads the statement in another way, as MySQL does and sql_mode wants,
// gets the same values.
func TestStatementIsCompiledAgain(t *testing.T) {
	scans := 0
	var variables []string
	scan := interned(func(s string) (mysql.Variable[string], error) {
		scans++
		return mysql.Variable[string]{Len: 2, Value: s[:2] + " " + strconv.Itoa(scans)}, nil
	}, func(v string) { variables = append(variables, v) })
	for range 3 {
		for _, text := range []string{"%u' AND x = '%d'", "%d'", "%u"} {
			v, err := scan(text)
			if err != nil || v.Value[:2] != text[:2] || !slices.Contains(variables, v.Value) {
				t.Errorf("%s: %v, %v", text, v, err)
			}
		}
	}
	if len(variables) != 2 {
		t.Errorf("%q, want two variables", variables)
	}
}

func TestStatementRefused(t *testing.T) {
	db, _ := withReplies(t, "SELECT 1")
	for name, text := range map[string]string{
		"a variable that it does not have":      "UPDATE users SET password = '%{new_password}'",
		"the password in clear":                 "UPDATE users SET password = '%w'",
		"a variable where nothing can be bound": "SELECT _utf8mb4'%u'",
		"a quote that is not closed":            "SELECT '%u",
	} {
		if s, err := db.Statement("a_query", text, "time"); err == nil || !strings.Contains(err.Error(), "a_query") {
			t.Errorf("it handles %s: %v, %v; want an error that names the setting", name, s, err)
		}
	}
}

func TestAppPasswordColumns(t *testing.T) {
	value := func(s string) sql.NullString { return sql.NullString{String: s, Valid: true} }
	now := time.Unix(1_000_000, 0)
	for _, tt := range []struct {
		name     string
		columns  []string
		row      []sql.NullString
		want     string // name and password; empty: none
		services string // that it allows now
		fails    bool
	}{
		{"a password alone", []string{"password"}, []sql.NullString{value("{X}h")}, " {X}h", "imap pop3 smtp sieve submission", false},
		{"the default scheme", []string{"password"}, []sql.NullString{value("h")}, " {PLAIN}h", "imap pop3 smtp sieve submission", false},
		{"an id", []string{"id", "password"}, []sql.NullString{value("7"), value("{X}h")}, "7 {X}h", "imap pop3 smtp sieve submission", false},
		{"a name and an id", []string{"id", "name", "password"}, []sql.NullString{value("7"), value("phone"), value("{X}h")}, "phone {X}h", "imap pop3 smtp sieve submission", false},
		{"no password", []string{"password"}, []sql.NullString{{}}, "", "", false},
		{"an empty password", []string{"password"}, []sql.NullString{value("")}, "", "", false},
		{"services", []string{"password", "services"}, []sql.NullString{value("{X}h"), value("IMAP, smtp")}, " {X}h", "imap smtp submission", false},
		{"one service", []string{"password", "service"}, []sql.NullString{value("{X}h"), value("managesieve")}, " {X}h", "sieve", false},
		{"NULL services", []string{"password", "services"}, []sql.NullString{value("{X}h"), {}}, " {X}h", "imap pop3 smtp sieve submission", false},
		{"no services", []string{"password", "services"}, []sql.NullString{value("{X}h"), value("")}, " {X}h", "", false},
		{"a time to come", []string{"password", "expires"}, []sql.NullString{value("{X}h"), value("1000001")}, " {X}h", "imap pop3 smtp sieve submission", false},
		{"a time with fractions", []string{"password", "expires"}, []sql.NullString{value("{X}h"), value("1000001.000")}, " {X}h", "imap pop3 smtp sieve submission", false},
		{"a time that has come", []string{"password", "expires"}, []sql.NullString{value("{X}h"), value("1000000")}, " {X}h", "", false},
		{"never", []string{"password", "expires"}, []sql.NullString{value("{X}h"), value("0")}, " {X}h", "imap pop3 smtp sieve submission", false},
		{"a date", []string{"password", "expires"}, []sql.NullString{value("{X}h"), value("2030-01-01 00:00:00")}, "", "", true},
		{"a column that means nothing", []string{"password", "expiry"}, []sql.NullString{value("{X}h"), value("1")}, "", "", true},
	} {
		db, _ := withReplies(t, "SELECT 1")
		s, err := db.Statement("auth_app_password_query", "SELECT '%u'")
		if err != nil {
			t.Fatal(err)
		}
		s.Recall(func(string) Recall {
			return func(context.Context, *Question) (*Answer, error) {
				return &Answer{Rows: &mysql.Rows{Columns: tt.columns, Values: [][]sql.NullString{tt.row}}}, nil
			}
		})
		list, _, _, err := s.AppPasswords(t.Context(), &auth.Request{User: "u"})
		got, services := "", []string{}
		for _, a := range list {
			got += a.Name + " " + a.Password
			for _, service := range []string{"imap", "pop3", "smtp", "sieve", "submission"} {
				if a.Allows(service, now) {
					services = append(services, service)
				}
			}
		}
		if got != tt.want || strings.Join(services, " ") != tt.services || (err != nil) != tt.fails {
			t.Errorf("it handles %s: %q for %q, %v; want %q for %q, an error %v", tt.name, got, services, err, tt.want, tt.services, tt.fails)
		}
	}
}
