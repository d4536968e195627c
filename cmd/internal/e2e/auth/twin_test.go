package auth

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// twin24 makes of a dovecot-sql.conf.ext what a site would write for Dovecot 2.4:
// its variables, and the names that fields have there. An error says what 2.4 has no
// word for; such a layout has a dovecot-2.4-sql.conf of its own.
//
// Fields are renamed around the query as it stands, so that nothing depends on how
// a site has written it: SELECT ... mail_path FROM (the query) AS t.
func twin24(t *testing.T, file, database string) (string, error) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	settings := settings23(string(text))
	if settings["default_pass_scheme"] == "" {
		settings["default_pass_scheme"] = "MD5"
	}
	for _, name := range []string{"password_query", "user_query", "iterate_query"} {
		query := strings.TrimRight(settings[name], "; \t")
		if query == "" {
			continue
		}
		if settings[name], err = variables24(query); err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		if name != "iterate_query" {
			settings[name] = renamed24(settings[name], columnsOf(database, query))
		}
		settings[name] = "query = " + settings[name]
	}
	return fmt.Sprintf(`sql_driver = mysql
mysql 127.0.0.1 {
  port = %d
  user = reader
  password = secret2
  dbname = %s
}
passdb_default_password_scheme = %s
passdb sql {
  %s
}
userdb sql {
  %s
  %s
}
`, db.Port(), database, settings["default_pass_scheme"], settings["password_query"], settings["user_query"],
		strings.Replace(settings["iterate_query"], "query", "iterate_query", 1)), nil
}

var (
	comment23   = regexp.MustCompile(`(?m)^[ \t]*#.*\n`)
	continued23 = regexp.MustCompile(`[ \t]*\\\r?\n[ \t]*`)
	behind23    = regexp.MustCompile(`[ \t]+#[^'"]*$`)
)

// settings23 reads a dovecot-sql.conf.ext.
func settings23(text string) map[string]string {
	settings := map[string]string{}
	for line := range strings.Lines(continued23.ReplaceAllString(comment23.ReplaceAllString(text, ""), " ")) {
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		value = behind23.ReplaceAllString(strings.TrimSpace(value), "")
		if n := len(value); n > 1 && value[0] == '"' && value[n-1] == '"' {
			value = strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(value[1 : n-1])
		}
		settings[strings.TrimSpace(name)] = value
	}
	return settings
}

var (
	variable23 = regexp.MustCompile(`%(?:%|([A-Z0-9.-]*)(?:([a-z])|\{([^}]*)\}))`)

	names24 = map[string]string{"u": "user", "n": "user | username", "d": "user | domain", "s": "protocol", "l": "local_ip", "r": "remote_ip",
		"a": "local_port", "b": "remote_port", "c": "secured", "k": "cert", "m": "mechanism",
		"user": "user", "username": "user | username", "domain": "user | domain", "service": "protocol", "orig_user": "original_user"}
)

// variables24 translates variables.
func variables24(text string) (translated string, err error) {
	translated = variable23.ReplaceAllStringFunc(text, func(variable string) string {
		m := variable23.FindStringSubmatch(variable)
		name, known := names24[m[2]+m[3]]
		filter, simple := map[string]string{"": "", "L": " | lower", "U": " | upper"}[m[1]]
		switch {
		case variable == "%%":
			return variable
		case !known || !simple:
			err = fmt.Errorf("Dovecot 2.4 has no %s", variable)
		}
		return "%{" + name + filter + "}"
	})
	return translated, err
}

// columnsOf returns the names of what a query gives; none if the database has no such table.
func columnsOf(database, query string) (names []string) {
	query = variable23.ReplaceAllStringFunc(query, func(variable string) string {
		// Of one that stands in the name of a column, the value of a login over IMAP.
		return map[byte]string{'s': "imap", 'c': "secured"}[variable[len(variable)-1]]
	})
	rows, err := db.Query(fmt.Sprintf("USE %s; DROP TABLE IF EXISTS twin; CREATE TABLE twin AS SELECT * FROM (%s) AS t LIMIT 0; SHOW COLUMNS FROM twin; DROP TABLE twin;", database, query))
	if err != nil {
		return nil
	}
	for _, row := range rows {
		name, _, _ := strings.Cut(row, "\t")
		names = append(names, name)
	}
	return names
}

// renamed24 has a query give the fields of 2.4: of a mail location its parts, of a
// quota rule the limit, which 2.4 wants to be none instead of negative.
func renamed24(query string, columns []string) string {
	var fields []string
	changed := false
	for _, column := range columns {
		prefix, name := "", column
		if rest, ok := strings.CutPrefix(column, "userdb_"); ok {
			prefix, name = "userdb_", rest
		}
		c := "t.`" + column + "`"
		part := func(key string) string {
			return fmt.Sprintf("IF(LOCATE(':%[1]s=', %[2]s) > 0, SUBSTRING_INDEX(SUBSTRING_INDEX(%[2]s, ':%[1]s=', -1), ':', 1), NULL)", key, c)
		}
		path := "SUBSTRING_INDEX(SUBSTRING_INDEX(" + c + ", ':', 2), ':', -1)"
		switch name {
		case "mail":
			for _, f := range [][2]string{{"mail_driver", "SUBSTRING_INDEX(" + c + ", ':', 1)"}, {"mail_path", path},
				{"mail_inbox_path", "COALESCE(" + part("INBOX") + ", IF(" + c + " LIKE 'maildir:%%', " + path + ", NULL))"},
				{"mail_index_path", part("INDEX")}, {"mail_control_path", part("CONTROL")}, {"mail_volatile_path", part("VOLATILEDIR")},
				{"mail_alt_path", part("ALT")}, {"mailbox_list_layout", part("LAYOUT")}} {
				fields = append(fields, f[1]+" AS "+prefix+f[0])
			}
			changed = true
		case "quota_rule":
			limit := "SUBSTRING_INDEX(" + c + ", '=', -1)"
			fields = append(fields, fmt.Sprintf("IF(%[1]s LIKE '-%%%%', NULL, CONCAT(%[1]s, IF(%[1]s NOT REGEXP '[0-9]$', '', IF(%[2]s LIKE '*:bytes=%%%%', 'B', 'K')))) AS %[3]squota_storage_size", limit, c, prefix))
			changed = true
		default:
			fields = append(fields, c)
		}
	}
	if !changed {
		return query
	}
	return "SELECT " + strings.Join(fields, ", ") + " FROM (" + query + ") AS t"
}

// settings24 translates the auth_ settings of a layout.
func settings24(t *testing.T, settings string) (translated string) {
	t.Helper()
	for line := range strings.Lines(settings) {
		line = strings.Replace(line, "auth_default_realm", "auth_default_domain", 1)
		if strings.HasPrefix(line, "auth_username_format") {
			var err error
			if line, err = variables24(line); err != nil {
				t.Fatal(err)
			}
		}
		translated += line
	}
	return translated
}

var limit24 = regexp.MustCompile(`(quota_storage_size[=\t ]+)([0-9]+)([BKMG]?)\b`)

// octets writes the limits of an answer in one unit: as the row has it, or as authd
// has computed it.
func octets(answer string) string {
	return limit24.ReplaceAllStringFunc(answer, func(text string) string {
		m := limit24.FindStringSubmatch(text)
		var n uint64
		fmt.Sscan(m[2], &n)
		return m[1] + fmt.Sprint(n<<(10*max(0, strings.Index("BKMG", m[3])))) + "B"
	})
}
