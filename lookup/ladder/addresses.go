package ladder

import (
	"slices"
	"strings"
)

// addresses returns the value of an alias as the final one, since Postfix neither
// knows which form matched nor what was left over: the extension goes to every
// address, and @other takes the local part. mail_addr_map and mail_addr_crunch in
// Postfix; a value that needs neither is passed as it is.
func (f form) addresses(values []string, propagate bool) ([]string, error) {
	value := strings.Join(values, ",")
	expand := strings.HasPrefix(value, "@")
	if expand {
		value = quote(f.local + value)
	}
	if !propagate {
		f.ext = ""
	}
	switch {
	case f.ext == "" && !expand:
		return values, nil
	case f.ext == "" && value[0] != '@':
		return []string{value}, nil
	}
	var all []string
	for _, addr := range parseAddresses(value) {
		all = append(all, quote(extend(rewrite(addr), f.ext)))
	}
	if len(all) == 0 {
		return values, nil // to smtpd the address exists; cleanup says what it thinks of the value
	}
	return all, nil
}

// extend puts an extension at the end of the local part of an unquoted address.
func extend(addr, ext string) string {
	end := strings.LastIndexByte(addr, '@')
	if end < 0 {
		end = len(addr)
	}
	return addr[:end] + ext + addr[end:]
}

// rewrite brings an unquoted address into the form user@domain as Postfix does
// before it puts an extension in: "@a,@b:user@domain", "domain!user" and
// "user%domain" are such forms (swap_bangpath, allow_percent_hack). A user without
// a domain stays alone.
func rewrite(addr string) string {
	if n := routeLen(addr); n < len(addr) {
		addr = addr[n:]
	}
	if strings.Contains(addr, "@") {
		return addr
	}
	if domain, user, ok := strings.Cut(addr, "!"); ok {
		return user + "@" + domain
	}
	if i := strings.LastIndexByte(addr, '%'); i >= 0 {
		return addr[:i] + "@" + addr[i+1:]
	}
	return addr
}

// operators are the tokens of one character. Those beyond RFC 822 are Postfix's.
const operators = `|%!()<>@,;:\".[]`

// A token is a word or an operator of an address list. Comments are none.
type token struct {
	operator byte // 0 for a word
	text     string
}

// parseAddresses returns the addresses of a list as a message header or a table
// has it, unquoted: "A B <b@x>, "c d"@y; z (comment)". Missing commas are
// supplied, phrases and comments are dropped. What makes no sense is kept in an
// address rather than thrown away.
func parseAddresses(list string) []string {
	if list == "" || list == "<>" {
		return []string{""}
	}
	// From right to left: only then is it known which words are a phrase.
	var (
		found  []string
		tokens = scan(list)
		right  = len(tokens) // what is between the current token and this one becomes an address
		word   = true        // a word here belongs to that address
		group  = false       // a colon here ends the name of a group
		i      = len(tokens) - 1
	)
	collect := func() {
		if i+1 < right {
			found = append(found, text(tokens[i+1:right]))
		}
		right = i
	}
	back := func(until string) {
		for i >= 0 && (tokens[i].operator == 0 || strings.IndexByte(until, tokens[i].operator) < 0) {
			i--
		}
	}
	for ; i >= 0; i-- {
		switch op := tokens[i].operator; {
		case op == 0 && word:
			word = false
		case op == 0: // two words in a row: a comma is missing
			collect()
			right = i + 1
		case op == ';': // the end of "group: a, b;"
			collect()
			word, group = true, true
		case op == ':' && group:
			collect()
			back(",")
			right, word = i, true
		case op == '>':
			collect()
			back("<")
			collect()
			back(">;,:") // past the phrase
			right, word = i, true
			i++ // that one is yet to be looked at
		case op == ',':
			collect()
			word = true
		default:
			word = true
		}
	}
	i = -1
	collect()
	slices.Reverse(found)
	return found
}

// text puts the tokens of one address together, without quoting.
func text(tokens []token) string {
	var b strings.Builder
	for _, t := range tokens {
		if t.operator != 0 {
			b.WriteByte(t.operator)
		}
		b.WriteString(t.text)
	}
	return b.String()
}

// scan returns the words and operators of a list. A domain literal is a word.
func scan(s string) (tokens []token) {
	for s != "" {
		switch c := s[0]; {
		case isSpace(c):
			s = s[1:]
		case c == '(':
			s = skipComment(s)
		case c == '[':
			var word string
			word, s = collectWord(s[1:], "]")
			tokens = append(tokens, token{text: "[" + word + "]"})
			s = strings.TrimPrefix(s, "]")
		case c == '"':
			var word string
			word, s = collectWord(s[1:], `"`)
			tokens = append(tokens, token{text: word})
			s = strings.TrimPrefix(s, `"`)
		case c != '\\' && strings.IndexByte(operators, c) >= 0:
			tokens = append(tokens, token{operator: c})
			s = s[1:]
		default:
			var word string
			word, s = collectWord(s, operators+" \t\r\n")
			tokens = append(tokens, token{text: word})
		}
	}
	return tokens
}

// collectWord takes octets until one of stop; a backslash takes the next one as it
// is. White space becomes a blank.
func collectWord(s, stop string) (word, rest string) {
	var b strings.Builder
	i := 0
	for ; i < len(s); i++ {
		c := s[i]
		if c == '\\' {
			if i++; i == len(s) {
				break
			}
			c = s[i]
		} else if strings.IndexByte(stop, c) >= 0 {
			break
		}
		if isSpace(c) {
			c = ' '
		}
		b.WriteByte(c)
	}
	return b.String(), s[i:]
}

// skipComment returns what follows a comment, which may have comments in it.
func skipComment(s string) string {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return s[i+1:]
			}
		case '\\':
			i++
		}
	}
	return ""
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }
