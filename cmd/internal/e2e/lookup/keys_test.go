package lookup

import (
	"math/rand/v2"
	"strings"
)

// hostileKeys returns n different keys, always the same for the same words: words
// as they are in the database, spoilt in all ways that quoting, folding and
// expanding may stumble over. Keys have no line feed and no NUL.
func hostileKeys(words []string, n int) []string {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(list []string) string { return list[r.IntN(len(list))] }
	seen := map[string]bool{}
	for _, w := range words {
		seen[w] = true
	}
	var keys []string
	for len(keys) < n {
		key := pick(words)
		for range 1 + r.IntN(3) {
			key = spoil(r, key, pick)
		}
		key = strings.NewReplacer("\n", " ", "\x00", "").Replace(key)
		if key != "" && len(key) <= 10_000 && !seen[key] {
			seen[key] = true
			keys = append(keys, key)
		}
	}
	return keys
}

// bits are what is dangerous to somebody: to SQL, to LIKE, to the expansion of the
// query, to addresses, to case folding and to UTF-8.
var bits = []string{
	"'", "''", `"`, `\`, `\'`, `\\`, "`", ";", "--", "-- ", "#", "/*", "*/", "/*!", "(", ")", ",", "=", "NULL", "?", "$1", "{", "}",
	"' OR '1'='1", `" OR "1"="1`, "'; DROP TABLE users; -- ", "') UNION SELECT 1 -- ", `\' OR 1=1 -- `,
	"%", "_", "%%", "%s", "%u", "%d", "%1", "@", "@@", ".", "..", "+", "+ext", "-", " ", "\t", "\r", "<", ">", "!", "*",
	"\x01", "\x1a", "\x1b", "\x7f", "\x80", "\xff", "\xc3", "\xed\xa0\x80", "\u00a0", "\ufeff", "\u202e", "\u200b",
	"ß", "ẞ", "é", "e\u0301", "Ä", "İ", "ı", "ſ", "K", "Å", "ΑΣ", "ς", "日本", "。", "😀", "ﬁ", "Ꭰ", "ꭰ", "Ж", "0", "1", "-1", "1e0", "0x61",
}

// spoil changes a key in one way.
func spoil(r *rand.Rand, key string, pick func([]string) string) string {
	at := r.IntN(len(key) + 1)
	switch r.IntN(12) {
	case 0:
		return strings.ToUpper(key)
	case 1: // the case of some letters
		return strings.Map(func(c rune) rune {
			if r.IntN(2) == 0 && 'a' <= c && c <= 'z' {
				return c - 'a' + 'A'
			}
			return c
		}, key)
	case 2: // an extension
		return strings.Replace(key, "@", pick([]string{"+ext@", "+@", "+a+b@", "-x@", "+'@", "+%@"}), 1)
	case 3: // quoted
		local, domain, ok := strings.Cut(key, "@")
		if !ok {
			return `"` + key + `"`
		}
		return `"` + local + `"@` + domain
	case 4: // a part
		return key[:at]
	case 5:
		return key[at:]
	case 6: // other labels
		return key + pick([]string{".", ".example", ".com", ".a.b.c.d.e.f.g.h.i"})
	case 7:
		return strings.Replace(key, "@", "@"+pick([]string{"sub.", ".", "xn--", "[", "@"}), 1)
	case 8: // long
		return key[:at] + strings.Repeat(pick(bits), 1+r.IntN(300)) + key[at:]
	default:
		return key[:at] + pick(bits) + key[at:]
	}
}
