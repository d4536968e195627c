package rules

import (
	"slices"
	"strings"
)

// normalSender returns what stays the same in the senders of one source. Many are made
// anew for each message: with a signature (BATV: prvs=2617a3b4c5=user@), with the address of
// another one and its hash (SRS0=hash=TT=domain=user@), with the number of the message
// (VERP: list-bounces-4711@), or with an extension (bounces+abc-def@). A server that
// tries again would be a stranger each time.
//
// Letters are folded; numbers, and words that are letters and digits mixed, become #.
// Two senders that become one only share their first delay.
func normalSender(sender string) string {
	sender = strings.ToLower(sender)
	at := strings.LastIndexByte(sender, '@')
	if at < 0 {
		return squeeze(sender)
	}
	return normalLocal(sender[:at]) + sender[at:]
}

func normalLocal(local string) string {
	switch {
	case strings.HasPrefix(local, "srs0") && len(local) > 5: // SRS0=HHH=TT=domain=user
		return "srs0=" + dropTags(local[5:], 2)
	case strings.HasPrefix(local, "srs1") && len(local) > 5: // SRS1=HHH=forwarder==HHH=TT=domain=user
		first, rest, ok := strings.Cut(dropTags(local[5:], 1), "==")
		if ok {
			rest = "==" + dropTags(rest, 2)
		}
		return "srs1=" + first + rest
	}
	local = dropSignature(local)
	if plus := strings.IndexByte(local, '+'); plus > 0 {
		local = local[:plus]
	}
	return squeeze(local)
}

// dropSignature drops the tag of a signed sender: prvs=TAG=user, prvs=user/TAG,
// msprvs1=TAG=user, btv1==TAG==user.
func dropSignature(local string) string {
	word, rest, ok := strings.Cut(local, "=")
	switch {
	case !ok:
		return local
	case strings.Contains(word, "prvs"):
		if _, user, ok := strings.Cut(rest, "="); ok {
			return user
		}
		user, _, _ := strings.Cut(rest, "/")
		return user
	case strings.HasPrefix(word, "btv"):
		if _, user, ok := strings.Cut(strings.TrimPrefix(rest, "="), "=="); ok {
			return user
		}
	}
	return local
}

// dropTags drops the first n fields that end in =.
func dropTags(s string, n int) string {
	for range n {
		_, rest, ok := strings.Cut(s, "=")
		if !ok {
			break
		}
		s = rest
	}
	return s
}

// squeeze replaces numbers, and words that are made by chance. Beside such a word, as in
// 0100018c2f0a5b3e-6d2c-7f00-beef, others of hexadecimal digits are taken to be, too.
func squeeze(s string) string {
	words := splitWords(s)
	chance := slices.ContainsFunc(words, isChance)
	var b strings.Builder
	for _, word := range words {
		if isChance(word) || chance && isHex(word) {
			b.WriteByte('#')
			continue
		}
		for i := range len(word) {
			switch {
			case !isDigit(word[i]):
				b.WriteByte(word[i])
			case i == 0 || !isDigit(word[i-1]):
				b.WriteByte('#')
			}
		}
	}
	return b.String()
}

// splitWords cuts s into words of letters and digits, and single other octets.
func splitWords(s string) (words []string) {
	for len(s) > 0 {
		n := 0
		for n < len(s) && isWord(s[n]) {
			n++
		}
		n = max(n, 1)
		words = append(words, s[:n])
		s = s[n:]
	}
	return words
}

// isChance reports whether a word looks random: long, with digits all over it.
func isChance(word string) bool {
	changes, digits := 0, 0
	for i := range len(word) {
		if isDigit(word[i]) {
			digits++
		}
		if i > 0 && isDigit(word[i]) != isDigit(word[i-1]) {
			changes++
		}
	}
	return digits > 0 && (len(word) >= 8 && changes >= 2 || len(word) >= 20)
}

func isHex(word string) bool { return len(word) > 1 && strings.Trim(word, "0123456789abcdef") == "" }
func isDigit(c byte) bool    { return '0' <= c && c <= '9' }
func isWord(c byte) bool     { return isDigit(c) || 'a' <= c && c <= 'z' }
