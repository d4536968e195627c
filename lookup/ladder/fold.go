package ladder

import (
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/text/cases"
)

// fold folds case as Postfix does before it asks a table: A to Z in an ASCII
// key, else full Unicode case folding (ß becomes ss).
func fold(s string) string {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return strings.Map(bigCherokee, cases.Fold().String(s))
		}
	}
	return strings.ToLower(s)
}

// bigCherokee mends cases.Fold, which swaps the case of Cherokee letters instead of
// folding the small ones into the older, big ones.
func bigCherokee(r rune) rune {
	switch {
	case 0xAB70 <= r && r <= 0xABBF:
		return r - 0xAB70 + 0x13A0
	case 0x13F8 <= r && r <= 0x13FD:
		return r - 8
	}
	return r
}

// labels converts domains between U-labels and A-labels as a resolver does.
var labels = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false))

// otherLabels returns domain with its A-labels as U-labels or the other way round.
// Postfix asks for a domain as the client wrote it, while a table has it in one form.
func otherLabels(domain string) (other string, ok bool) {
	ascii := true
	for i := range len(domain) {
		ascii = ascii && domain[i] < 0x80
	}
	var err error
	switch {
	case !ascii:
		other, err = labels.ToASCII(domain)
	case hasALabel(domain):
		other, err = labels.ToUnicode(domain)
	default:
		return "", false
	}
	return other, err == nil && other != "" && fold(other) != fold(domain)
}

// hasALabel reports whether an ASCII domain has a label that stands for a Unicode one.
func hasALabel(domain string) bool {
	for label := range strings.SplitSeq(domain, ".") {
		if len(label) > 4 && strings.EqualFold(label[:4], "xn--") {
			return true
		}
	}
	return false
}
