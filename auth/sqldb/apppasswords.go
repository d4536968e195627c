package sqldb

import "strings"

// isYes reads a column that says yes or no, as 1 and 0, Y and N, or in words.
func isYes(value string) bool {
	switch strings.ToLower(strings.TrimSpace(value)) {
	case "", "0", "n", "no", "f", "false", "off":
		return false
	}
	return true
}
