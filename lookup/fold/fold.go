// Package fold folds the case of lookup keys as Postfix does before it asks a
// table: A to Z in an ASCII key, and else full Unicode case folding, in which ß
// becomes ss. Sources: casefold.c of Postfix, which asks ICU, and CaseFolding.txt.
package fold

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/text/cases"
)

// String returns s folded. Folding twice changes nothing more, and what is UTF-8 stays so.
func String(s string) string {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return strings.Map(cherokee, cases.Fold().String(s))
		}
	}
	return strings.ToLower(s)
}

// cherokee mends cases.Fold, which swaps the case of Cherokee letters: they fold
// into the older letters, the capitals.
func cherokee(r rune) rune {
	switch {
	case 0xab70 <= r && r <= 0xabbf:
		return r - 0xab70 + 0x13a0
	case 0x13f8 <= r && r <= 0x13fd:
		return r - 8
	}
	return r
}
