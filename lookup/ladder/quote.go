package ladder

import "strings"

// Addresses have two forms. The external one stands in messages and tables: its
// local part is quoted where RFC 5321 4.1.2 wants that, "c d"@example.com. The
// internal one has no quotes: c d@example.com.

// quote turns an internal address into the external form.
func quote(addr string) string {
	route := routeLen(addr)
	end := strings.LastIndexByte(addr[route:], '@')
	if end < 0 {
		end = len(addr)
	} else {
		end += route
	}
	if isDotString(addr[route:end]) {
		return addr
	}
	return addr[:route] + quoteString(addr[route:end]) + addr[end:]
}

// quoteLocal turns an internal local part, which may have an @, into the external form.
func quoteLocal(local string) string {
	route := routeLen(local)
	if isDotString(local[route:]) {
		return local
	}
	return local[:route] + quoteString(local[route:])
}

// routeLen returns the length of a source route: "@a,@b:user@c" (RFC 5321 C).
func routeLen(addr string) int {
	if strings.HasPrefix(addr, "@") {
		return strings.IndexByte(addr, ':') + 1
	}
	return 0
}

// isDotString reports whether a local part needs no quotes. Postfix takes 8-bit
// characters for atoms.
func isDotString(s string) bool {
	if s == "" || s[0] == '.' || s[len(s)-1] == '.' {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.' && s[i-1] == '.':
			return false
		case c <= ' ' || c == 0x7f || strings.IndexByte(`()<>@,;:\"[]`, c) >= 0:
			return false
		}
	}
	return true
}

// quoteString makes a quoted string.
func quoteString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		if c := s[i]; c == '"' || c == '\\' || c == '\r' {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	b.WriteByte('"')
	return b.String()
}

// unquote turns an external address into the internal form: quotes and backslashes
// go, except after the last @ that is not quoted.
func unquote(addr string) string {
	if strings.IndexByte(addr, '"') < 0 && strings.IndexByte(addr, '\\') < 0 {
		return addr
	}
	route := routeLen(addr)
	var b strings.Builder
	b.WriteString(addr[:route])
	quoted, bareAt, keep := false, -1, 0
	for i := route; i < len(addr); i++ {
		switch c := addr[i]; c {
		case '"':
			quoted = !quoted
			continue
		case '@':
			if !quoted {
				bareAt, keep = i, b.Len()
			}
		case '\\':
			if i+1 == len(addr) {
				continue
			}
			i++
		}
		b.WriteByte(addr[i])
	}
	if bareAt >= 0 {
		return b.String()[:keep] + addr[bareAt:]
	}
	return b.String()
}
