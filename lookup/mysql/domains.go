package mysql

import (
	"fmt"
	"strings"

	"dovepost/lookup/fold"
)

// domainList is the domain parameter: a Postfix string list. The first pattern
// that matches decides.
type domainList struct {
	patterns []domainPattern
	open     func(path string) ([]byte, error) // reads a file
}

type domainPattern struct {
	name string // folded
	not  bool
}

// parseDomains reads a list of domain names, !negations and /file/names, whose
// words are patterns, too. Lookup tables and $names are refused: to skip them
// would widen the lookup.
func parseDomains(list string, open func(path string) ([]byte, error)) (*domainList, error) {
	d := &domainList{open: open}
	return d, d.add(list, false, 0)
}

func (d *domainList) add(list string, not bool, depth int) error {
	for _, word := range splitList(list) {
		negated := not
		for strings.HasPrefix(word, "!") {
			word, negated = word[1:], !negated
		}
		switch {
		case strings.HasPrefix(word, "/"):
			if depth > 8 {
				return fmt.Errorf("%s: includes too deep", word)
			}
			data, err := d.open(word)
			if err != nil {
				return err
			}
			if err := d.add(withoutComments(string(data)), negated, depth+1); err != nil {
				return fmt.Errorf("%s: %w", word, err)
			}
		case strings.ContainsAny(word, ":{}$"):
			return fmt.Errorf("pattern %q is not supported: use names and /file/names", word)
		case word == "":
			return fmt.Errorf("no pattern after '!'")
		default:
			d.patterns = append(d.patterns, domainPattern{fold.String(word), negated})
		}
	}
	return nil
}

func withoutComments(data string) string {
	var b strings.Builder
	for line := range strings.Lines(data) {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// match reports whether the folded domain is on the list.
func (d *domainList) match(domain string) bool {
	for _, p := range d.patterns {
		if p.name == domain {
			return !p.not
		}
	}
	return false
}
