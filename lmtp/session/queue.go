package session

import (
	"bytes"
	"strings"
)

// maxHead is how much of a message is searched for its top Received field.
const maxHead = 32 << 10

// topReceived returns the id in the top Received field of a message that begins with head, LF
// line ends; empty if there is none. It is the sender's own name for the message:
// "Received: from a (b [192.0.2.1]) by mx (Postfix) with ESMTP id 4XYZ". RFC 5321 4.4.
// found is false if there is no such field, which has the time as well.
func topReceived(head []byte) (id string, found bool) {
	for len(head) > 0 && head[0] != '\n' {
		field := head[:fieldEnd(head)]
		head = head[len(field):]
		name, value, ok := bytes.Cut(field, []byte{':'})
		if !ok {
			return "", false // the body, without an empty line before it
		}
		if !strings.EqualFold(string(bytes.TrimRight(name, " \t")), "Received") {
			continue
		}
		named := false // the word before was "id"
		for word := range bytes.FieldsFuncSeq(value, func(c rune) bool { return c == ' ' || c == '\t' || c == '\n' || c == ';' }) {
			if named && len(word) <= 100 {
				return string(word), true
			}
			named = len(word) == 2 && word[0]|0x20 == 'i' && word[1]|0x20 == 'd'
		}
		return "", true
	}
	return "", false
}

// fieldEnd is the length of the header field that text begins with.
func fieldEnd(text []byte) int {
	for i := 0; ; {
		n := bytes.IndexByte(text[i:], '\n')
		if n < 0 {
			return len(text)
		}
		if i += n + 1; i == len(text) || text[i] != ' ' && text[i] != '\t' {
			return i
		}
	}
}
