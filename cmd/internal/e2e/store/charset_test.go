package store

import (
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
