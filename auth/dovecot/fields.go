package dovecot

import (
	"strings"

	"dovepost/auth"
)

// passdbPrivate are the passdb fields that are meant for the auth service itself.
var passdbPrivate = map[string]bool{
	"password": true, "nopassword": true, "user": true, "username": true, "domain": true, "original_user": true,
	"allow_nets": true, "allow_real_nets": true, "nodelay": true, "delay_until": true, "noauthenticate": true,
	"fail": true, "resp": true, "code": true,
}

// appendPassdbFields appends what a client may know of a passdb row. The clear
// password leaves us only in pass=, and only for a proxy that logs in with it.
func appendPassdbFields(dst []byte, fields auth.Fields) []byte {
	_, proxy := fields.Get("proxy")
	for _, f := range fields {
		switch {
		case passdbPrivate[f.Name] || strings.HasPrefix(f.Name, "userdb_"):
		case f.Name == "pass" && !proxy:
		case f.Name == "nologin" || f.Name == "proxy" || f.Name == "anonymous":
			dst = append(dst, '\t')
			dst = append(dst, f.Name...) // login processes want a plain boolean
		default:
			dst = appendField(dst, f)
		}
	}
	return dst
}

func appendField(dst []byte, f auth.Field) []byte {
	if f.HasValue {
		return appendPair(dst, f.Name, f.Value)
	}
	dst = append(dst, '\t')
	return appendEscaped(dst, f.Name)
}
