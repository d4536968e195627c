package daemon

import "strings"

// Manual returns the comment with which a source file begins: the manual of a
// program stands there once, and --help prints it.
func Manual(source string) string {
	comment, _, _ := strings.Cut(source, "\npackage ")
	lines := strings.Split(strings.TrimSpace(comment), "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(strings.TrimPrefix(lines[i], "//"), " ")
	}
	return strings.Join(lines, "\n")
}
