package sqldb

import "testing"

func TestListOf(t *testing.T) {
	for _, tt := range []struct{ name, query, want string }{
		{"one column of one table", "SELECT '/home/vmail/%d/%n' as home, 'Maildir' as mail FROM users WHERE email = '%u'", "SELECT email AS user FROM users"},
		{"quoted names, a final semicolon", "select 1 from `mail`.`users`\n where `mail`.`users`.`e mail`='%Lu' ;", ""},
		{"quoted names", "select 1 from `mail`.`users`\n where `e mail`='%Lu' ;", "SELECT `e mail` AS user FROM `mail`.`users`"},
		{"another condition", "SELECT home FROM users WHERE email = '%u' AND active = 1", ""},
		{"a condition before", "SELECT home FROM users WHERE active = 1 AND email = '%u'", ""},
		{"a name in two columns", "SELECT home FROM users WHERE user = '%n' AND domain = '%d'", ""},
		{"a join", "SELECT home FROM users u JOIN domains d ON u.d = d.id WHERE email = '%u'", ""},
		{"two tables", "SELECT home FROM users, domains WHERE email = '%u'", ""},
		{"a union", "SELECT home FROM a WHERE email = '%u' UNION SELECT home FROM users WHERE email = '%u'", ""},
		{"a subquery", "SELECT (SELECT 1 FROM x WHERE y) FROM users WHERE email = '%u'", ""},
		{"part of the name", "SELECT home FROM users WHERE email = '%n'", ""},
		{"a function", "SELECT home FROM users WHERE LOWER(email) = '%u'", ""},
		{"a comment", "SELECT home -- FROM\n FROM users WHERE email = '%u'", ""},
		{"nothing", "", ""},
	} {
		if got := listOf(tt.query); got != tt.want {
			t.Errorf("it handles %s: listOf(%q) = %q, want %q", tt.name, tt.query, got, tt.want)
		}
	}
}
