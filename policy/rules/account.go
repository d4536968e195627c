package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode/utf8"
)

// domainOf returns "@" and the domain of a login that has one.
func domainOf(login string) string {
	if at := strings.LastIndexByte(login, '@'); at > 0 && at < len(login)-1 {
		return login[at:]
	}
	return ""
}

// maxAccountKey is how many octets a name may have in a column of policy.sql.
const maxAccountKey = 190

// AccountKey returns the key of a login in tables: the login, or # and a hash where it would
// not fit, is no UTF-8, has blanks at its end or control characters, or looks like another
// kind of key. Two logins never share a key.
func AccountKey(login string) string {
	if login == "" || login[0] == '@' || login[0] == '#' || !plainKey(login) {
		return hashedKey("login", login)
	}
	return login
}

// DomainKey is AccountKey for "@" and a domain, all logins of which are counted together.
func DomainKey(domain string) string {
	if !plainKey(domain) {
		return hashedKey("domain", domain)
	}
	return domain
}

func hashedKey(kind, name string) string {
	sum := sha256.Sum256([]byte(kind + " " + name))
	return "#" + hex.EncodeToString(sum[:])
}

func plainKey(name string) bool {
	if len(name) > maxAccountKey || !utf8.ValidString(name) || strings.TrimSpace(name) != name {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r > 0xffff })
}
