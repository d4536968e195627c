package sqldb

import (
	"strings"
	"testing"
)

// withName finds what a query compares with the name, and adds it.
func TestWithName(t *testing.T) {
	for _, tt := range []struct{ name, query, stored string }{
		{"one column", "SELECT '/home/%d/%n' as home\n FROM users WHERE email = '%u'", "email"},
		{"more conditions", "SELECT a, b FROM m WHERE active='1' AND m.username='%Lu' AND (x = 1 OR y = '%s') ORDER BY a LIMIT 1;", "m.username"},
		{"the name first", "SELECT a FROM m WHERE '%u' = `username` AND b = 1", "`username`"},
		{"two columns", "SELECT home FROM users WHERE user = '%n' AND domain = '%d';", "CONCAT(user, '@', domain)"},
		{"joins", "SELECT a FROM m INNER JOIN d ON m.d=d.id WHERE m.address='%n' AND d.name='%d'", "CONCAT(m.address, '@', d.name)"},
		{"subqueries among the columns", "SELECT (SELECT 1 FROM x WHERE e='%u' OR 1) AS a FROM m WHERE e='%u'", "e"},
		{"words in quotes", "SELECT ' FROM ', 'it''s' FROM m WHERE e='%u' AND a <> ' OR '", "e"},
		{"2.4", "SELECT a FROM m WHERE e='%{user}'", "e"},
	} {
		got := withName(tt.query)
		want := ", " + tt.stored + " AS `dovepost stored name` FROM"
		if !strings.Contains(got, want) || strings.Replace(got, strings.TrimSuffix(want, "FROM"), "", 1) != tt.query {
			t.Errorf("it handles %s: got %q", tt.name, got)
		}
	}
	for _, query := range []string{"", "SELECT MAX(home) AS home FROM users WHERE email = '%u'", "SELECT DISTINCT a FROM u WHERE e='%u'",
		"SELECT a FROM u WHERE e='%u' OR alias='%u'", "SELECT a FROM u WHERE (e='%u' OR alias='%u')", "SELECT a FROM u WHERE NOT e='%u'",
		"SELECT a FROM u WHERE e='%u' UNION SELECT b FROM v WHERE e='%u'", "SELECT a FROM u WHERE e LIKE '%u'", "SELECT a FROM u WHERE user='%n'",
		"SELECT a FROM u WHERE LOWER(e)='%u'", "SELECT a FROM u WHERE e='%u' -- x", "SELECT a FROM u WHERE 'x'='%u'", "SELECT a FROM u WHERE e='%u",
		"SELECT a FROM u GROUP BY a", "CALL login('%u')", "SELECT a FROM u WHERE (e='%u'", "SELECT a FROM u WHERE 1='%u'"} {
		if got := withName(query); got != query {
			t.Errorf("%q became %q", query, got)
		}
	}
}

func TestSameName(t *testing.T) {
	for _, tt := range []struct {
		stored, asked string
		want          bool
	}{
		{"joe@example.com", "joe@example.com", true},
		{"Joe@Example.COM ", "joe@example.com", true},
		{"m\u00fcller@example.com", "mu\u0308ller@example.com", true},
		{"M\u00dcLLER@example.com", "m\u00fcller@example.com", true},
		{"joe@example.com", "j\u00f6e@example.com", false},
		{"j\u00f6e@example.com", "joe@example.com", false},
		{"stra\u00dfe@example.com", "strasse@example.com", false},
		{"joe@example.com", "\uff4aoe@example.com", false},
		{"", "joe@example.com", false},
	} {
		if got := sameName(tt.stored, tt.asked); got != tt.want {
			t.Errorf("sameName(%q, %q) = %v", tt.stored, tt.asked, got)
		}
	}
	if !strings.Contains(withName("SELECT 1 FROM u WHERE e='%u'"), storedName) {
		t.Error("the column is not added")
	}
}
