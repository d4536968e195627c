package maildir

import (
	"slices"
	"strings"
)

// systemFlags are the letters of IMAP's flags in the name of a message.
var systemFlags = map[string]byte{
	`\draft`: 'D', `\flagged`: 'F', `\answered`: 'R', `\seen`: 'S', `\deleted`: 'T',
}

// maxKeyword is how long a keyword can be, mail_max_keyword_length of Dovecot.
const maxKeyword = 50

// splitFlags sorts flags into letters of a name and keywords, each once. What is neither is left
// out: \Recent, which is the server's, and what no client could have stored.
func splitFlags(flags []string) (letters string, keywords []string) {
	var set []byte
	for _, flag := range flags {
		if strings.HasPrefix(flag, `\`) {
			if c, ok := systemFlags[strings.ToLower(flag)]; ok && !slices.Contains(set, c) {
				set = append(set, c)
			}
			continue
		}
		known := slices.ContainsFunc(keywords, func(k string) bool { return strings.EqualFold(k, flag) })
		if isKeyword(flag) && !known {
			keywords = append(keywords, flag)
		}
	}
	slices.Sort(set)
	return string(set), keywords
}

// isKeyword reports whether s is a flag-keyword, RFC 3501 9: an atom.
func isKeyword(s string) bool {
	return s != "" && len(s) <= maxKeyword && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`(){%*"\]`, r)
	})
}
