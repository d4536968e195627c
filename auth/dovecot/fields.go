package dovecot

import (
	"strings"

	"dovepost/auth"
)

// passdbPrivate are the passdb fields that are meant for the auth service itself,
// and those that only the protocol may set.
var passdbPrivate = map[string]bool{
	"password": true, "nopassword": true, "user": true, "username": true, "domain": true, "login_user": true,
	"allow_nets": true, "allow_real_nets": true, "delay_until": true, "noauthenticate": true, "fail": true,
	"resp": true, "code": true,
}

// booleans are the passdb fields that login processes want without a value.
var booleans = map[string]bool{"nologin": true, "proxy": true, "anonymous": true}

// appendPassdbFields appends what a client may know of a passdb row. A password
// leaves us only in pass=, and only for a proxy that logs in with it.
func appendPassdbFields(dst []byte, fields auth.Fields, sanitize bool) []byte {
	proxied := isProxied(fields)
	for _, f := range fields {
		switch {
		case passdbPrivate[f.Name] || strings.HasPrefix(f.Name, "userdb_"):
		case f.Name == "pass" && !proxied:
		case sanitize && booleans[f.Name]:
			dst = appendField(dst, auth.Field{Name: f.Name})
		default:
			dst = appendField(dst, f)
		}
	}
	return dst
}

// appendForward gives back the fields that a proxy has sent on, apart from those
// that the row has set anew.
func appendForward(dst []byte, r *auth.Request, row auth.Fields) []byte {
	for _, f := range r.Forward {
		f.Name = "forward_" + f.Name
		if _, there := row.Get(f.Name); !there {
			dst = appendField(dst, f)
		}
	}
	return dst
}

// appendOriginal appends what the user has typed, where that is not his name.
func appendOriginal(dst []byte, r *auth.Request, user string, row auth.Fields) []byte {
	if r.Login == user {
		return dst
	}
	return appendMissing(dst, row, "original_user", r.Login)
}

// appendMissing appends a field that has a value and is not in the row.
func appendMissing(dst []byte, row auth.Fields, name, value string) []byte {
	if _, there := row.Get(name); there || value == "" {
		return dst
	}
	return appendPair(dst, name, value)
}

func appendField(dst []byte, f auth.Field) []byte {
	if f.HasValue {
		return appendPair(dst, f.Name, f.Value)
	}
	dst = append(dst, '\t')
	return appendEscaped(dst, f.Name)
}
