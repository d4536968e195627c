package store

import (
	"context"
	"strings"
	"testing"
)

// no key ends its quotes in a character set in which a backslash can be the second half
// of a character, where the value stands in the text. 中 is E4 B8 AD in UTF-8: with an escaped
// quote behind it, GBK takes AD 5C for one character.
func TestWideCharset(t *testing.T) {
	for _, charset := range []string{"gbk", "big5", "sjis", "cp932"} {
		for _, query := range []string{"SELECT k FROM multi WHERE k = _" + charset + "'%s'", "SELECT k FROM multi WHERE k = '%s'"} {
			m, _ := table(t, cfFile(t, "query = "+query+"\ncharset = "+charset+account(socket())), 2)
			if got := ours(m, "two@example.com"); got != "= two@example.com,two@example.com" && got != "= two@example.com,two@example.com,two@example.com,two@example.com" {
				t.Errorf("%s: %s: got %q", charset, query, got)
			}
			for _, wide := range []string{"中", "日", "é", "ä", "ｿ", "表", "😀"} {
				if got := ours(m, wide+"' OR 1=1 -- @example.com"); strings.HasPrefix(got, "=") {
					t.Errorf("%s: %s: %s got %q", charset, query, wide, got)
				}
			}
		}
	}
}

// a table for each domain is not there for the domain that Prepare makes up: that
// says nothing, and a key of a domain without a table is a temporary error, as in Postfix.
func TestPrepareNames(t *testing.T) {
	for query, good := range map[string]bool{
		"SELECT v FROM `t_%d` WHERE '%u' <> ''":   true,
		"SELECT v FROM %1_t WHERE '%u' <> ''":     true,
		"CALL get_%u('%d')":                       true,
		"SELECT x_%u FROM users WHERE a = '%s'":   true,
		"SELECT a FROM multi WHERE n = %s":        true,
		"SELECT v FROM t_%1 WHERE 1 IN (%u, 2)":   true,
		"SELECT a FROM multi WHERE n = %d":        true,
		"SELECT a FROM nonsense WHERE n = %s":     false,
		"SELECT a FROM multi WHERE nonsense = %s": false,
		"SELECT v FROM `t_%d` WHERE":              false,
		"SELEKT v FROM `t_%d`":                    false,
	} {
		m, _ := table(t, cfFile(t, "query = "+query+account(socket())), 2)
		if err := m.Prepare(context.Background()); (err == nil) != good {
			t.Errorf("%s: got %v; want it to be good: %v", query, err, good)
		}
	}
	m, _ := table(t, cfFile(t, "query = SELECT v FROM `t_%d` WHERE '%u' <> ''"+account(socket())), 2)
	if got := ours(m, "user@example.com"); got != "= dotted" {
		t.Errorf("got %q", got)
	}
	if got := ours(m, "user@no.table"); got != answerError {
		t.Errorf("got %q, want an error", got)
	}
	m, _ = table(t, cfFile(t, "query = SELECT v FROM `t_%d`"+account(socket())+"password = wrong\n"), 2)
	if err := m.Prepare(context.Background()); err == nil {
		t.Error("a wrong password is good")
	}
}
