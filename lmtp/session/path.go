package session

import (
	"strings"
	"unicode/utf8"
)

// Address is what stands between the angle brackets of a path.
type Address struct {
	Local  string // without quoting: the local part of "a b"@example.com is `a b`
	Domain string // name or address literal; empty when the path gave none
}

// IsNull reports whether a is the null path <>.
func (a Address) IsNull() bool { return a == Address{} }

// String returns the address as a path and a header field write it, the local
// part quoted where it must be: RFC 5321 4.1.2. The null path is empty.
func (a Address) String() string {
	local := a.Local
	if !isDotString(local) && !a.IsNull() {
		local = quote(local)
	}
	if a.Domain == "" {
		return local
	}
	return local + "@" + a.Domain
}

// Split divides the local part at its first character out of delimiters and
// returns the user's name, user@domain, and what follows the delimiter. A user
// part with an @ of its own stays quoted in the name.
func (a Address) Split(delimiters string) (user, detail string) {
	local := a.Local
	if i := strings.IndexAny(local, delimiters); i >= 0 {
		_, width := utf8.DecodeRuneInString(local[i:])
		local, detail = local[:i], local[i+width:]
	}
	switch {
	case a.Domain == "":
		return local, detail
	case strings.Contains(local, "@"):
		return Address{local, a.Domain}.String(), detail
	}
	return local + "@" + a.Domain, detail
}

// syntaxError is what is wrong with an argument, as the client reads it: the words
// of Dovecot's LMTP.
type syntaxError string

func (e syntaxError) Error() string { return string(e) }

// What can be wrong with a path.
const (
	errPathEmpty     = syntaxError("Path is empty string")
	errPathSpace     = syntaxError("Unexpected whitespace before path")
	errPathOpen      = syntaxError("Missing '<' at beginning of path")
	errPathClose     = syntaxError("Missing '>' at end of path")
	errPathNull      = syntaxError("Null path not allowed")
	errPathChar      = syntaxError("Invalid character in path")
	errLocalChar     = syntaxError("Invalid character in localpart")
	errQuotedChar    = syntaxError("Invalid character in quoted string")
	errQuotedOpen    = syntaxError("Premature end of quoted string")
	errDomainMissing = syntaxError("Missing domain after '@'")
	errDomainEmpty   = syntaxError("Empty sub-domain")
	errDomainChar    = syntaxError("Invalid character in domain")
	errDomain        = syntaxError("Invalid domain")
	errLiteral       = syntaxError("Invalid address literal")
	errRouteColon    = syntaxError("Missing ':' at end of source route")
	errRouteAt       = syntaxError("Missing '@' after ',' in source route")
	errRouteDomain   = syntaxError("Missing domain after '@' in source route")
	errRouteOnly     = syntaxError("Path only consists of source route")
)

// ParsePath reads the path at the start of s, source route included, and returns
// the address and what follows the closing bracket. The null path <> is the zero
// Address. With errPathClose comes what was read before the odd character. Local parts are read as Dovecot reads them: dots may stand anywhere.
// Octets above 127 are taken where ASCII letters are (RFC 6531); that s is UTF-8
// and free of controls has been seen to before.
func ParsePath(s string) (a Address, rest string, err error) {
	if s == "" {
		return a, "", errPathEmpty
	}
	if s[0] == ' ' || s[0] == '\t' {
		return a, "", errPathSpace
	}
	if s[0] != '<' {
		return a, "", errPathOpen
	}
	s = s[1:]
	routed := strings.HasPrefix(s, "@")
	if routed {
		if s, err = skipRoute(s); err != nil {
			return a, "", err
		}
	}
	if strings.HasPrefix(s, ">") {
		if routed {
			return a, "", errRouteOnly
		}
		return a, s[1:], nil
	}
	if a, s, err = parseMailbox(s); err != nil {
		return Address{}, "", err
	}
	if !strings.HasPrefix(s, ">") {
		return a, "", errPathClose
	}
	return a, s[1:], nil
}

// skipPath skips the path at the start of s when it is none, but may have been
// meant as one: something in brackets, without a blank that is not quoted.
func skipPath(s string) (rest string, ok bool) {
	quoted := false
	for i := 1; i < len(s) && s[0] == '<'; i++ {
		switch {
		case s[i] == '\\' && quoted:
			i++
		case s[i] == '"':
			quoted = !quoted && i == 1
		case (s[i] == ' ' || s[i] == '\t') && !quoted:
			return "", false
		case s[i] == '>' && !quoted:
			return s[i+1:], true
		}
	}
	return "", false
}

// ParseAddress reads an address without brackets, all of s.
func ParseAddress(s string) (Address, error) {
	a, rest, err := parseMailbox(s)
	if err != nil {
		return Address{}, err
	}
	if rest != "" {
		return Address{}, errPathChar
	}
	return a, nil
}

// parseMailbox reads Local-part [ "@" ( Domain / address-literal ) ].
func parseMailbox(s string) (a Address, rest string, err error) {
	if a.Local, s, err = parseLocal(s); err != nil {
		return a, "", err
	}
	if !strings.HasPrefix(s, "@") {
		return a, s, nil
	}
	s = s[1:]
	switch {
	case s == "" || s[0] == '>':
		return a, "", errDomainMissing
	case s[0] == '[':
		a.Domain, s, err = parseLiteral(s)
	case isDomainChar(s[0]):
		a.Domain, s, err = parseDomain(s)
	default:
		err = errDomain
	}
	return a, s, err
}

func parseLocal(s string) (local, rest string, err error) {
	if strings.HasPrefix(s, `"`) {
		return parseQuoted(s[1:])
	}
	n := 0
	for n < len(s) && (isAtext(s[n]) || s[n] == '.') {
		n++
	}
	if n == 0 {
		return "", "", errLocalChar
	}
	return s[:n], s[n:], nil
}

// parseQuoted reads a quoted string after its opening quote.
func parseQuoted(s string) (value, rest string, err error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '"':
			return b.String(), s[i+1:], nil
		case c == '\\':
			if i++; i == len(s) || s[i] < ' ' || s[i] >= 0x7f {
				return "", "", errQuotedChar
			}
			c = s[i]
		case c < ' ' || c == 0x7f:
			return "", "", errQuotedChar
		}
		b.WriteByte(c)
	}
	return "", "", errQuotedOpen
}

// parseDomain reads sub-domains joined by dots. Hyphen and underscore may stand
// anywhere in them.
func parseDomain(s string) (domain, rest string, err error) {
	n := 0
	for {
		start := n
		for n < len(s) && isDomainChar(s[n]) {
			n++
		}
		switch {
		case n == start && (n == len(s) || s[n] == '.'):
			return "", "", errDomainEmpty
		case n == start:
			return "", "", errDomainChar
		case n == len(s) || s[n] != '.':
			return s[:n], s[n:], nil
		}
		n++
	}
}

// parseLiteral reads an address literal: RFC 5321 4.1.3. What stands inside is
// a key for the user database and nothing more.
func parseLiteral(s string) (literal, rest string, err error) {
	n := strings.IndexByte(s, ']')
	if n < 2 {
		return "", "", errLiteral
	}
	for i := 1; i < n; i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '[' || c == '\\' {
			return "", "", errLiteral
		}
	}
	return s[:n+1], s[n+1:], nil
}

// skipRoute skips the source route "@a,@b:" at the start of s: RFC 5321 4.1.2
// says that it is accepted and ignored.
func skipRoute(s string) (rest string, err error) {
	for {
		s = s[1:] // the @
		if s == "" || !isDomainChar(s[0]) {
			return "", errRouteDomain
		}
		if _, s, err = parseDomain(s); err != nil {
			return "", errRouteDomain
		}
		if !strings.HasPrefix(s, ",") {
			break
		}
		if s = s[1:]; !strings.HasPrefix(s, "@") {
			return "", errRouteAt
		}
	}
	if !strings.HasPrefix(s, ":") {
		return "", errRouteColon
	}
	return s[1:], nil
}

// isDotString reports whether s can stand as a local part without quotes.
func isDotString(s string) bool {
	dot := true // a dot may not come first, last or after another
	for i := 0; i < len(s); i++ {
		if s[i] != '.' && !isAtext(s[i]) || s[i] == '.' && dot {
			return false
		}
		dot = s[i] == '.'
	}
	return !dot
}

func quote(s string) string {
	b := make([]byte, 0, len(s)+2)
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return string(append(b, '"'))
}

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func isAtext(c byte) bool {
	return isAlnum(c) || c >= 0x80 || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

func isDomainChar(c byte) bool {
	return isAlnum(c) || c >= 0x80 || c == '-' || c == '_'
}
