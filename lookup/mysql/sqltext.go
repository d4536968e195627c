package mysql

import (
	"fmt"
	"strings"
)

// sqlMode holds what the sql_mode of a session changes about quoting, and what the
// server does with placeholders. Postfix sends its text to whatever session the server
// gives it, so each connection's mode decides how a template is read, what is bound
// and how values are escaped.
type sqlMode uint8

const (
	ansiQuotes  sqlMode = 1 << iota // "x" is an identifier
	noBackslash                     // a backslash is no escape character
	typed                           // the server gives placeholders types, see untyped
	sqlModes                        // how many combinations there are
)

// These are set beside them.
const (
	padded = sqlModes << iota // CHAR columns come with blanks at the end
	wide                      // a quote or a backslash can be the second octet of a character
)

// mode returns what s means for quoting.
func (s session) mode() sqlMode {
	m := parseMode(s.SQLMode)
	if !strings.Contains(s.Version, "MariaDB") {
		m |= typed
	}
	switch s.Charset {
	case "big5", "cp932", "gb18030", "gbk", "sjis":
		m |= wide
	}
	return m
}

// parseMode reads the value of @@sql_mode, in which combinations such as ANSI are
// spelled out.
func parseMode(value string) (m sqlMode) {
	for mode := range strings.SplitSeq(value, ",") {
		switch mode {
		case "ANSI_QUOTES":
			m |= ansiQuotes
		case "NO_BACKSLASH_ESCAPES":
			m |= noBackslash
		case "PAD_CHAR_TO_FULL_LENGTH":
			m |= padded
		}
	}
	return m
}

// An atom is the smallest piece of SQL text that a template cares about.
type atom struct {
	kind  atomKind
	text  string // as written, with its quotes
	inner string // what stands between the quotes
}

type atomKind uint8

const (
	atomSpace      atomKind = iota
	atomWord                // identifier, keyword or number
	atomPunct               // one octet
	atomPercent             // a '%' outside quotes: a variable may start here
	atomString              // '...' or "..."
	atomIdentifier          // `...`, or "..." where that is one
	atomComment             // not one that the server executes
	atomOpen                // the start of one that it executes, or not: /*!
	atomClose               // its end
)

// nextAtom returns the atom at the start of s, which is not empty. The rules are
// those of the server's lexer.
func (m sqlMode) nextAtom(s string) (atom, error) {
	switch c := s[0]; {
	case c == '\'' || c == '"' || c == '`':
		return m.quoted(s)
	case c == '%':
		return atom{kind: atomPercent, text: s[:1]}, nil
	case c == '#', strings.HasPrefix(s, "--") && (len(s) == 2 || s[2] <= ' '):
		n := strings.IndexByte(s, '\n')
		if n < 0 {
			n = len(s)
		}
		return atom{kind: atomComment, text: s[:n], inner: s[1:n]}, nil
	case executable(s) > 0:
		return atom{kind: atomOpen, text: s[:executable(s)]}, nil
	case strings.HasPrefix(s, "*/"):
		return atom{kind: atomClose, text: s[:2]}, nil
	case strings.HasPrefix(s, "/*"):
		n := strings.Index(s[2:], "*/")
		if n < 0 {
			return atom{}, fmt.Errorf("comment without end: %.20q", s)
		}
		return atom{kind: atomComment, text: s[:n+4], inner: s[2 : n+2]}, nil
	case isSpace(c):
		n := 1
		for n < len(s) && isSpace(s[n]) {
			n++
		}
		return atom{kind: atomSpace, text: s[:n]}, nil
	case isWord(c):
		n := 1
		for n < len(s) && isWord(s[n]) {
			n++
		}
		return atom{kind: atomWord, text: s[:n]}, nil
	}
	return atom{kind: atomPunct, text: s[:1]}, nil
}

// executable returns the length of the start of a comment whose content is SQL
// to the server, or to some servers, or 0.
func executable(s string) int {
	for _, start := range []string{"/*!", "/*M!", "/*+"} {
		if strings.HasPrefix(s, start) {
			return len(start)
		}
	}
	return 0
}

func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

func isWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '$' || c >= 0x80
}

// quoted reads a string or a quoted identifier. A doubled quote is one quote; in
// strings a backslash takes the next octet with it.
func (m sqlMode) quoted(s string) (atom, error) {
	quote := s[0]
	identifier := quote == '`' || quote == '"' && m&ansiQuotes != 0
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && !identifier && m&noBackslash == 0:
			i++
		case s[i] != quote:
		case i+1 < len(s) && s[i+1] == quote:
			i++
		case identifier:
			return atom{atomIdentifier, s[:i+1], s[1:i]}, nil
		default:
			return atom{atomString, s[:i+1], s[1:i]}, nil
		}
	}
	return atom{}, fmt.Errorf("quote without end: %.20q", s)
}

// unescape returns the octets that inner, the inside of a string in quote,
// stands for: ” is ', \n is a line feed, \% and \_ keep their backslash.
func (m sqlMode) unescape(inner string, quote byte) string {
	if strings.IndexByte(inner, '\\') < 0 && strings.IndexByte(inner, quote) < 0 {
		return inner
	}
	var b strings.Builder
	for i := 0; i < len(inner); i++ {
		c := inner[i]
		switch {
		case c == quote:
			i++ // the second of two
		case c == '\\' && i+1 < len(inner) && m&noBackslash == 0:
			i++
			switch c = inner[i]; c {
			case '0':
				c = 0
			case 'b':
				c = '\b'
			case 'n':
				c = '\n'
			case 'r':
				c = '\r'
			case 't':
				c = '\t'
			case 'Z':
				c = 26
			case '%', '_':
				b.WriteByte('\\')
			}
		}
		b.WriteByte(c)
	}
	return b.String()
}

var escaper = strings.NewReplacer("\x00", `\0`, "\n", `\n`, "\r", `\r`, `\`, `\\`, `'`, `\'`, `"`, `\"`, "\x1a", `\Z`)

// escape is mysql_real_escape_string for UTF-8.
func (m sqlMode) escape(s string) string {
	if m&noBackslash != 0 {
		return strings.ReplaceAll(s, `'`, `''`)
	}
	return escaper.Replace(s)
}
