package mysql

import (
	"testing"
)

// where the server gives placeholders types, only what it takes for strings is bound.
func TestTyped(t *testing.T) {
	for query, bound := range map[string]bool{
		"SELECT goto FROM alias WHERE address='%s'":                                                          true,
		"SELECT goto FROM alias WHERE address='%s' AND active = '1' LIMIT 1":                                 true,
		"select a.goto from alias as a join (b) using (x) where a.address in ('%u@%d', '%s') and b.`x`='%d'": true,
		"SELECT 1 FROM t WHERE '%s' = email OR '%u' IN (SELECT user FROM t)":                                 true,
		"SELECT 1 FROM t WHERE a NOT IN ('%s') AND b <> '%s' AND c != '%s' AND d <=> '%s'":                   true,
		"SELECT 1 FROM t WHERE '%s' LIKE a AND NOT b LIKE '%s' AND c NOT LIKE '%s'":                          true,
		"SELECT 1 FROM t WHERE (email = '%s')":                                                               true,
		"SELECT 1 FROM t WHERE CONCAT(user, '@', domain) = '%s'":                                             true,
		"SELECT CONCAT('%u', '@', target_domain), '%s' FROM t WHERE alias_domain = '%d'":                     true,
		"SELECT a FROM t WHERE LOWER(k) = LOWER('%s') AND d = SUBSTRING_INDEX('%s', '@', -1)":                true,
		"SELECT a FROM t WHERE k = '%s' COLLATE utf8mb4_bin":                                                 true,
		"SELECT a FROM t WHERE BINARY k = '%s'":                                                              true,
		"SELECT '%s' UNION SELECT a FROM t WHERE k = '%s'":                                                   true,
		"SELECT a FROM t WHERE '%s' = 'x' OR '%s' = '%d'":                                                    true,
		"SELECT a FROM t WHERE `left` = '%s' AND t.end = '%s'":                                               true,
		"SELECT CASE WHEN k = '%s' THEN 1 END FROM t":                                                        true,
		"SELECT a FROM t": true,

		"SELECT quota + '%s' FROM t":                             false,
		"SELECT a FROM t WHERE n + 1 = '%s'":                     false,
		"SELECT a FROM t WHERE n = '%s' + 1":                     false,
		"SELECT a FROM t WHERE n = '%s' %% 2":                    false,
		"SELECT a FROM t WHERE n = -'%s'":                        false,
		"SELECT a FROM t WHERE k > '%s'":                         false,
		"SELECT a FROM t WHERE k <= '%s' OR k >= '%s'":           false,
		"SELECT a FROM t WHERE k BETWEEN '%s' AND '%s'":          false,
		"SELECT COALESCE(id, '%s') FROM t":                       false,
		"SELECT IF(id = 42, '%s', 0) FROM t":                     false,
		"SELECT IFNULL(goto, '%s') FROM t WHERE k = '%s'":        false,
		"SELECT NULLIF('%s', 42)":                                false,
		"SELECT CASE WHEN a THEN '%s' ELSE 0 END FROM t":         false,
		"SELECT CASE '%s' WHEN 42 THEN 1 END FROM t":             false,
		"SELECT a FROM t WHERE END = '%s'":                       false,
		"SELECT a FROM t WHERE '%s'":                             false,
		"SELECT a FROM t WHERE NOT '%s' AND 1":                   false,
		"SELECT a FROM t WHERE GREATEST(a, '%s') = a":            false,
		"SELECT a FROM t WHERE ABS(n) = '%s'":                    false,
		"SELECT a FROM t WHERE DATE(d) = '%s'":                   false,
		"SELECT a FROM t WHERE CURRENT_DATE = '%s'":              false,
		"SELECT a FROM t WHERE (a, b) = ('%u', '%d')":            false,
		"SELECT a FROM t WHERE k = ('%s')":                       false,
		"SELECT a FROM t WHERE k LIKE '%s' ESCAPE '|'":           false,
		"SELECT LEFT(a, '%s') FROM t":                            false,
		"SELECT SUBSTRING_INDEX(a, '@', n) = '%s' + 1 FROM t":    false,
		"SELECT mine.CONCAT('%s')":                               false,
		"SELECT f('%s')":                                         false,
		"CALL p('%s')":                                           false,
		"UPDATE t SET a = '%s'":                                  false,
		"SELECT a FROM t WHERE d > NOW() - INTERVAL '%s' DAY":    false,
		"SELECT a FROM t WHERE n = %s":                           false,
		"SELECT a FROM t_%u WHERE k = '%s'":                      false,
		"SELECT a FROM t WHERE k = N'%s'":                        false,
		"SELECT a FROM t WHERE k = '%s' /*! OR 1 */":             false,
		"SELECT a FROM t WHERE k := '%s'":                        false,
		"SELECT a FROM t ORDER BY '%s'":                          false,
		"SELECT a FROM t GROUP BY a HAVING MAX(n) = '%s'":        false,
		"SELECT a FROM t WHERE k REGEXP '%s'":                    false,
		"SELECT a FROM t WHERE 42 = '%s'":                        false,
		"SELECT a FROM t WHERE '%s' = 42":                        false,
		"SELECT a FROM t WHERE '%s' IN (id, email)":              false,
		"SELECT a FROM t WHERE '%s' IN (email)":                  false,
		"SELECT a FROM t WHERE id IN ('%s', email)":              false,
		"SELECT a FROM t WHERE id IN ('%s', 'x', '%s')":          false,
		"SELECT a FROM t WHERE id IN ('%s', (SELECT 1))":         false,
		"SELECT a FROM t WHERE id IN (CONCAT('@', '%d'), '%s')":  true,
		"SELECT a FROM t WHERE '%s' IN (1, 2)":                   false,
		"SELECT a FROM t WHERE '%s' = TRUE":                      false,
		"SELECT a FROM t WHERE '%s' = CONCAT(a) + 1":             false,
		"SELECT a FROM t JOIN (SELECT '%s' AS k) AS q USING (k)": false,
	} {
		c, err := Compile(query, scanQuery)
		if err == nil {
			c, err = c.under(typed)
		}
		if err != nil {
			t.Errorf("%s: %v", query, err)
			continue
		}
		if c.direct == bound {
			t.Errorf("%s: bound: %v, want %v", query, !c.direct, bound)
		}
		if c.direct && c.repeat {
			t.Errorf("%s: goes out as text, and is repeated as a prepared one", query)
		}
	}
}
