package mysql

import (
	"context"
	"errors"
	"strings"
	"testing"

	"dovepost/lookup"
)

// only what reads, and means the same in a UNION, is asked for several keys at once.
func TestRepeatable(t *testing.T) {
	for query, want := range map[string]bool{
		"SELECT goto FROM alias WHERE address='%s'":                                                true,
		"select a.goto, `b`.`x` from alias a join (b) using (x) where a.address in ('%u@%d','%s')": true,
		"SELECT CONCAT(a, '@', b) FROM t WHERE LOWER(k)=LOWER('%s') AND (NOW() > x OR 1)":          true,
		"SELECT (SELECT a FROM t WHERE (k=('%s'))) FROM u JOIN v ON (x='%d')":                      true,
		"SELECT a FROM t WHERE k='%s' AND active = 1 LIMIT 1;":                                     true,
		"SELECT a FROM t WHERE k='%s' UNION SELECT b FROM t WHERE k='%d'":                          true,
		"SELECT a FROM t WHERE k=(SELECT MAX(b) FROM u WHERE c IN (SELECT d FROM v))":              true,
		"SELECT `order`.id, t.order FROM `order` WHERE k='%s'":                                     true,
		"SELECT 'ORDER BY @x', \"rand()\" /* INTO */ FROM t WHERE k='%s' -- FOR UPDATE":            true,

		"SELECT CONCAT(a, '@', '%d') FROM t WHERE k='%s'":    false,
		"SELECT (SELECT a FROM t WHERE k='%s'), '%d'":        false,
		"SELECT a FROM t WHERE k='%s' UNION SELECT '%s'":     false,
		"SELECT a FROM (SELECT '%s' AS a) AS b":              false,
		"SELECT a FROM t WHERE k='%s' ORDER BY id":           false,
		"SELECT GROUP_CONCAT(a) FROM t WHERE k='%s'":         false,
		"SELECT a FROM t WHERE k='%s' FOR UPDATE":            false,
		"SELECT a FROM t WHERE k='%s' LOCK IN SHARE MODE":    false,
		"SELECT a INTO @x FROM t WHERE k='%s'":               false,
		"SELECT @n := @n + 1 FROM t WHERE k='%s'":            false,
		"SELECT log_it('%s')":                                false,
		"SELECT mail.CONCAT('%s')":                           false,
		"SELECT mail . CONCAT('%s')":                         false,
		"SELECT `f`('%s')":                                   false,
		"SELECT NOW () FROM t WHERE k='%s'":                  false,
		"SELECT RAND() FROM t WHERE k='%s'":                  false,
		"SELECT SLEEP(1) FROM t WHERE k='%s'":                false,
		"SELECT /*! f */ a FROM t WHERE k='%s'":              false,
		"CALL p('%s')":                                       false,
		"UPDATE t SET n = n + 1 WHERE k='%s'":                false,
		"(SELECT a FROM t WHERE k='%s')":                     false,
		"WITH x AS (SELECT 1) SELECT * FROM x":               false,
		"SELECT a FROM t WHERE k=_utf8'%s'":                  false,
		"SELECT a FROM t_%u":                                 false,
		"SELECT a FROM t WHERE n=%s":                         false,
		"SELECT a FROM t WHERE k='%s' PROCEDURE ANALYSE()":   false,
		"SELECT NEXT VALUE FOR s":                            false,
		"SELECT SQL_CALC_FOUND_ROWS a FROM t WHERE k='%s'":   false,
		"SELECT a FROM t WHERE k='%s' AND MATCH(a) AGAINST(": false,
	} {
		c, err := Compile(query, scanQuery)
		if err != nil {
			t.Errorf("%s: %v", query, err)
			continue
		}
		if c.repeat != want {
			t.Errorf("%s: got %v, want %v", query, c.repeat, want)
		}
	}
	c, err := Compile("SELECT a FROM t WHERE k='%s'", scanQuery)
	if err != nil {
		t.Fatal(err)
	}
	want := "SELECT 0, q0.* FROM (SELECT a FROM t WHERE k=?) AS q0 UNION ALL SELECT 1, q1.* FROM (SELECT a FROM t WHERE k=?) AS q1"
	if got := c.repeated(2); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// First handles keys that no table is asked for, and says which key an error is for.
func TestFirstSuppressed(t *testing.T) {
	s := Set{testTable(t, "query = SELECT '%s'\ndomain = d.example"), testTable(t, "query = SELECT '%u' FROM t WHERE d='%d'")}
	none := []string{"", "@d.example", "a", "\xff@d.example", "b", "@", "c"}
	if i, values, err := s.First(context.Background(), none); i != len(none) || values != nil || !errors.Is(err, lookup.ErrNotFound) {
		t.Errorf("got %d %q, %v", i, values, err)
	}
	if i, _, err := s.First(context.Background(), nil); i != 0 || !errors.Is(err, lookup.ErrNotFound) {
		t.Errorf("no keys: got %d, %v", i, err)
	}
	for at := range 7 {
		keys := strings.Split("a,@,b,c,,d,e", ",")
		keys[at] = "x@other.example"
		if i, _, err := s.First(context.Background(), keys); i != at || !Unreachable(err) {
			t.Errorf("%q: got %d, %v; want %d and that no server answers", keys, i, err, at)
		}
	}
	if _, err := s.Lookup(context.Background(), "a@d.example"); !Unreachable(err) {
		t.Errorf("got %v", err)
	}
}
