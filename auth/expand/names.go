package expand

import (
	"net/netip"
	"os"
	"strconv"
	"strings"

	"dovepost/auth"
)

// source gives the value of one name. What a client can choose goes through escape.
type source struct {
	get     func(*auth.Request) string
	trusted bool // Dovecot, Postfix or this machine chose it
	home    bool // it is Values.Home
	secret  bool
}

func free(get func(*auth.Request) string) source  { return source{get: get} }
func fixed(get func(*auth.Request) string) source { return source{get: get, trusted: true} }

func nothing(*auth.Request) string { return "" }
func zero(*auth.Request) string    { return "0" }

// sources are the variables of Dovecot 2.3 by their long names. SQL is asked by its
// worker processes, which know neither the client's pid nor the session's.
var sources = map[string]source{
	"user":           free(func(r *auth.Request) string { return r.User }),
	"username":       free(func(r *auth.Request) string { return localPart(r.User) }),
	"domain":         free(func(r *auth.Request) string { return domainPart(r.User) }),
	"domain_first":   free(func(r *auth.Request) string { return localPart(domainPart(r.User)) }),
	"domain_last":    free(func(r *auth.Request) string { return domainLast(r.User) }),
	"service":        fixed(func(r *auth.Request) string { return r.Service }),
	"home":           {get: nothing, trusted: true, home: true},
	"lip":            fixed(func(r *auth.Request) string { return ip(r.LocalIP) }),
	"rip":            fixed(func(r *auth.Request) string { return ip(r.RemoteIP) }),
	"real_lip":       fixed(func(r *auth.Request) string { return ip(r.RealLocalIP, r.LocalIP) }),
	"real_rip":       fixed(func(r *auth.Request) string { return ip(r.RealRemoteIP, r.RemoteIP) }),
	"lport":          fixed(func(r *auth.Request) string { return port(r.LocalPort) }),
	"rport":          fixed(func(r *auth.Request) string { return port(r.RemotePort) }),
	"real_lport":     fixed(func(r *auth.Request) string { return port(r.RealLocalPort, r.LocalPort) }),
	"real_rport":     fixed(func(r *auth.Request) string { return port(r.RealRemotePort, r.RemotePort) }),
	"password":       {get: func(r *auth.Request) string { return r.Password }, secret: true},
	"mech":           free(func(r *auth.Request) string { return r.Mech }),
	"secured":        fixed(secured),
	"cert":           fixed(cert),
	"session":        free(func(r *auth.Request) string { return r.Session }),
	"local_name":     free(func(r *auth.Request) string { return r.LocalName }),
	"client_id":      free(func(r *auth.Request) string { return r.ClientID }),
	"orig_user":      free(typed),
	"orig_username":  free(func(r *auth.Request) string { return localPart(typed(r)) }),
	"orig_domain":    free(func(r *auth.Request) string { return domainPart(typed(r)) }),
	"auth_user":      free(asker),
	"auth_username":  free(func(r *auth.Request) string { return localPart(asker(r)) }),
	"auth_domain":    free(func(r *auth.Request) string { return domainPart(asker(r)) }),
	"login_user":     free(func(r *auth.Request) string { return r.LoginUser }),
	"login_username": free(func(r *auth.Request) string { return localPart(r.LoginUser) }),
	"login_domain":   free(func(r *auth.Request) string { return domainPart(r.LoginUser) }),
	"master_user":    free(func(r *auth.Request) string { return r.MasterUser }),
	"session_pid":    fixed(nothing),
	"pid":            fixed(zero),
	"hostname":       fixed(func(*auth.Request) string { name, _ := os.Hostname(); return name }),
	"uid":            fixed(func(*auth.Request) string { return strconv.Itoa(os.Geteuid()) }),
	"gid":            fixed(func(*auth.Request) string { return strconv.Itoa(os.Getegid()) }),
	"!":              fixed(func(*auth.Request) string { return "1" }), // the id of the passdb or userdb
}

// letters are the short names.
var letters = map[byte]string{
	'u': "user", 'n': "username", 'd': "domain", 's': "service", 'h': "home", 'l': "lip", 'r': "rip", 'p': "pid", 'w': "password",
	'!': "!", 'm': "mech", 'c': "secured", 'a': "lport", 'b': "rport", 'k': "cert",
}

// aliases are further long names of the same variables.
var aliases = map[string]string{
	"local_ip": "lip", "remote_ip": "rip", "local_port": "lport", "remote_port": "rport",
	"real_local_ip": "real_lip", "real_remote_ip": "real_rip", "real_local_port": "real_lport", "real_remote_port": "real_rport",
	"mechanism": "mech", "original_user": "orig_user", "original_username": "orig_username", "original_domain": "orig_domain",
}

// find returns the source of a long name.
func find(name string) (source, bool) {
	if long, ok := aliases[name]; ok {
		name = long
	}
	s, ok := sources[name]
	return s, ok && name != "!"
}

// value is the source's value as modifiers and functions see it.
func (s source) value(in Values) string {
	if s.home {
		return in.Home
	}
	value := s.get(in.Request)
	if s.trusted {
		return value
	}
	return in.escape(value)
}

func localPart(s string) string {
	local, _, _ := strings.Cut(s, "@")
	return local
}

func domainPart(s string) string {
	_, domain, _ := strings.Cut(s, "@")
	return domain
}

func domainLast(s string) string {
	if at := strings.LastIndexByte(s, '@'); at >= 0 {
		return s[at+1:]
	}
	return ""
}

// typed is the name before it was changed.
func typed(r *auth.Request) string {
	if r.Login != "" {
		return r.Login
	}
	return r.User
}

// asker is who has proven to be himself: a master user, or the user.
func asker(r *auth.Request) string {
	if r.MasterUser != "" {
		return r.MasterUser
	}
	return typed(r)
}

func secured(r *auth.Request) string {
	switch {
	case r.TLS:
		return "TLS"
	case r.Secured:
		return "secured"
	}
	return ""
}

func cert(r *auth.Request) string {
	if r.ClientCert {
		return "valid"
	}
	return ""
}

// ip is the first address that is known.
func ip(addresses ...netip.Addr) string {
	for _, a := range addresses {
		if a.IsValid() {
			return a.String()
		}
	}
	return ""
}

// port is the first port that is known, or 0.
func port(ports ...uint16) string {
	for _, p := range ports {
		if p != 0 {
			return strconv.FormatUint(uint64(p), 10)
		}
	}
	return "0"
}

// field returns a field of the passdb row of this login, or of its userdb_ fields.
// What a trusted proxy forwarded is among the first, as forward_NAME.
func field(r *auth.Request, database, name string) (string, bool) {
	if rest, ok := strings.CutPrefix(name, "forward_"); ok && database == "passdb" {
		if value, ok := r.Forward.Get(rest); ok {
			return value, true
		}
	}
	switch {
	case r.Row == nil:
		return "", false
	case database == "passdb":
		return r.Row.Fields.Get(name)
	}
	return r.Row.Userdb.Get(name)
}
