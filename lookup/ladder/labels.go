package ladder

import (
	"strings"

	"golang.org/x/net/idna"

	"dovepost/lookup/fold"
)

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
		// A spelling that is only mapped to a domain, such as one with an ideographic full
		// stop, is not that domain to Postfix.
		if back, backErr := labels.ToUnicode(other); backErr != nil || fold.String(back) != fold.String(domain) {
			return "", false
		}
	case hasALabel(domain):
		other, err = labels.ToUnicode(domain)
	default:
		return "", false
	}
	return other, err == nil && other != "" && fold.String(other) != fold.String(domain)
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
