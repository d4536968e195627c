package sqldb

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"dovepost/auth"
	"dovepost/lookup/mysql"
)

// variable is one %... of a Dovecot 2.3 template: [<offset>.]<width>[<modifiers>]<name>.
type variable struct {
	get       func(*auth.Request) string
	modifiers string
	offset    int // negative: from the end
	width     int // 0: all; negative: all but so many
	zero      bool
}

// names are the variables by their long names.
var names = map[string]func(*auth.Request) string{
	"user":           func(r *auth.Request) string { return r.User },
	"username":       func(r *auth.Request) string { return userPart(r.User) },
	"domain":         func(r *auth.Request) string { return domainPart(r.User) },
	"domain_first":   func(r *auth.Request) string { return userPart(domainPart(r.User)) },
	"domain_last":    domainLast,
	"service":        func(r *auth.Request) string { return r.Service },
	"home":           func(*auth.Request) string { return "" },
	"lip":            func(r *auth.Request) string { return ip(r.LocalIP) },
	"rip":            func(r *auth.Request) string { return ip(r.RemoteIP) },
	"real_lip":       func(r *auth.Request) string { return ip(r.RealLocalIP) },
	"real_rip":       func(r *auth.Request) string { return ip(r.RealRemoteIP) },
	"lport":          func(r *auth.Request) string { return port(r.LocalPort) },
	"rport":          func(r *auth.Request) string { return port(r.RemotePort) },
	"real_lport":     func(*auth.Request) string { return "0" },
	"real_rport":     func(*auth.Request) string { return "0" },
	"mech":           func(r *auth.Request) string { return r.Mech },
	"secured":        secured,
	"cert":           cert,
	"session":        func(r *auth.Request) string { return r.Session },
	"local_name":     func(r *auth.Request) string { return r.LocalName },
	"orig_user":      typed,
	"orig_username":  func(r *auth.Request) string { return userPart(typed(r)) },
	"orig_domain":    func(r *auth.Request) string { return domainPart(typed(r)) },
	"auth_user":      typed,
	"auth_username":  func(r *auth.Request) string { return userPart(typed(r)) },
	"auth_domain":    func(r *auth.Request) string { return domainPart(typed(r)) },
	"login_user":     func(*auth.Request) string { return "" }, // only in a master login
	"login_username": func(*auth.Request) string { return "" },
	"login_domain":   func(*auth.Request) string { return "" },
	"master_user":    func(*auth.Request) string { return "" },
	"client_id":      func(*auth.Request) string { return "" },
	"hostname":       func(*auth.Request) string { name, _ := os.Hostname(); return name },
	"uid":            func(*auth.Request) string { return strconv.Itoa(os.Geteuid()) },
	"gid":            func(*auth.Request) string { return strconv.Itoa(os.Getegid()) },
}

// aliases are further names of the same variables.
var aliases = map[string]string{
	"u": "user", "n": "username", "d": "domain", "s": "service", "h": "home", "l": "lip", "r": "rip",
	"a": "lport", "b": "rport", "m": "mech", "c": "secured", "k": "cert",
	"local_ip": "lip", "remote_ip": "rip", "local_port": "lport", "remote_port": "rport",
	"real_local_ip": "real_lip", "real_remote_ip": "real_rip",
	"real_local_port": "real_lport", "real_remote_port": "real_rport", "mechanism": "mech",
	"original_user": "orig_user", "original_username": "orig_username", "original_domain": "orig_domain",
}

// trusted are the variables whose values Dovecot or Postfix chose, and not a client.
var trusted = map[string]bool{"service": true, "secured": true, "lport": true, "real_lport": true, "cert": true}

var hashes = map[string]func() hash.Hash{"md5": md5.New, "sha1": sha1.New, "sha256": sha256.New, "sha512": sha512.New}

func userPart(s string) string {
	user, _, _ := strings.Cut(s, "@")
	return user
}

func domainPart(s string) string {
	_, domain, _ := strings.Cut(s, "@")
	return domain
}

func domainLast(r *auth.Request) string {
	if at := strings.LastIndexByte(r.User, '@'); at >= 0 {
		return r.User[at+1:]
	}
	return ""
}

func typed(r *auth.Request) string {
	if r.Login != "" {
		return r.Login
	}
	return r.User
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

func ip(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func port(p uint16) string { return strconv.FormatUint(uint64(p), 10) }

// scan reads the variable at the start of s. Unknown ones are refused, and so is
// %w: a clear password has no business in a database's query log.
func scan(s string) (mysql.Variable[*variable], error) {
	var none mysql.Variable[*variable]
	if strings.HasPrefix(s, "%%") {
		return mysql.Variable[*variable]{Len: 2, Literal: true}, nil
	}
	v := new(variable)
	i := v.size(s, 1)
	start := i
	for i < len(s) && strings.IndexByte("LUEXRHNMDT", s[i]) >= 0 && i < start+10 {
		i++
	}
	v.modifiers = s[start:i]
	if i == len(s) {
		return none, fmt.Errorf("variable without name: %.20q", s)
	}
	name := s[i : i+1]
	i++
	if name == "{" {
		end := strings.IndexByte(s[i:], '}')
		if end < 0 {
			return none, fmt.Errorf("variable without }: %.20q", s)
		}
		name = s[i : i+end]
		i += end + 1
		if len(name) == 1 {
			return none, fmt.Errorf("unknown variable %%{%s}", name)
		}
	}
	var err error
	if v.get, err = getter(name); err != nil {
		return none, err
	}
	if long, ok := aliases[name]; ok {
		name = long
	}
	return mysql.Variable[*variable]{Len: i, Value: v, Trusted: trusted[name]}, nil
}

// size reads [-][0]<digits>[.[0][-]<digits>] of s from i on and returns where it ends.
func (v *variable) size(s string, i int) int {
	digits := func() (n int) {
		for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
			n = min(n*10+int(s[i]-'0'), 1<<16)
		}
		return n
	}
	accept := func(c byte) bool {
		if i < len(s) && s[i] == c {
			i++
			return true
		}
		return false
	}
	negative := accept('-')
	v.zero = accept('0')
	v.width = digits()
	if !accept('.') {
		return i
	}
	if v.offset = v.width; negative {
		v.offset = -v.offset
	}
	v.zero = accept('0')
	negative = accept('-')
	if v.width = digits(); negative {
		v.width = -v.width
	}
	return i
}

// getter finds a variable by its short or long name.
func getter(name string) (func(*auth.Request) string, error) {
	if long, ok := aliases[name]; ok {
		name = long
	}
	if get, ok := names[name]; ok {
		return get, nil
	}
	if name == "w" || name == "password" {
		return nil, errors.New("%w, the password in clear, is not given to the database")
	}
	if function, argument, ok := strings.Cut(name, ":"); ok {
		if function == "env" {
			return func(*auth.Request) string { return os.Getenv(argument) }, nil
		}
		if sum, ok := hashes[function]; ok {
			get, err := getter(argument)
			if err != nil {
				return nil, err
			}
			return func(r *auth.Request) string {
				h := sum()
				h.Write([]byte(get(r)))
				return hex.EncodeToString(h.Sum(nil))
			}, nil
		}
	}
	return nil, fmt.Errorf("unknown variable %%{%s}", name)
}

// value returns the variable's value for r. All is counted in octets.
func (v *variable) value(r *auth.Request) string {
	s := v.get(r)
	offset, width := v.offset, v.width
	for i := range len(v.modifiers) {
		switch m := v.modifiers[i]; m {
		case 'H', 'N':
			s = hashed(s, m, offset, width)
			offset, width = 0, 0
		default:
			s = modify(s, m)
		}
	}
	if offset < 0 {
		s = s[max(0, len(s)+offset):]
	} else {
		s = s[min(offset, len(s)):]
	}
	switch {
	case v.zero && width > 0:
		return strings.Repeat("0", max(0, width-len(s))) + s
	case v.zero || width == 0:
		return s
	case width < 0 && len(s)+width >= 0:
		return s[:len(s)+width]
	case width < 0:
		return s
	}
	return s[:min(width, len(s))]
}

// modify applies one of Dovecot's modifiers. Letters are ASCII letters to it.
func modify(s string, modifier byte) string {
	switch modifier {
	case 'L', 'U':
		from, to := byte('A'), byte('a')
		if modifier == 'U' {
			from, to = to, from
		}
		b := []byte(s)
		for i, c := range b {
			if c >= from && c < from+26 {
				b[i] = c - from + to
			}
		}
		return string(b)
	case 'E':
		return strings.NewReplacer(`"`, `\"`, `\`, `\\`, `'`, `\'`).Replace(s)
	case 'X':
		n, _ := strconv.ParseUint(s, 10, 64)
		return strconv.FormatUint(n, 16)
	case 'R':
		b := []byte(s)
		for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
			b[i], b[j] = b[j], b[i]
		}
		return string(b)
	case 'M':
		sum := md5.Sum([]byte(s))
		return hex.EncodeToString(sum[:])
	case 'D':
		return strings.ReplaceAll(s, ".", ",dc=")
	}
	return strings.TrimRight(s, " \t\r\n\v\f") // 'T'
}

// hashed is %H, the PJW hash, or %N, the head of an MD5 sum: modulo width, in
// hexadecimal, with zeros up to offset digits.
func hashed(s string, modifier byte, offset, width int) string {
	var n uint64
	if modifier == 'H' {
		var h uint32
		for i := range len(s) {
			h = h<<4 + uint32(s[i])
			if g := h & 0xf0000000; g != 0 {
				h ^= g >> 24
				h ^= g
			}
		}
		n = uint64(h)
	} else {
		sum := md5.Sum([]byte(s))
		n = binary.BigEndian.Uint64(sum[:])
	}
	if width > 0 {
		n %= uint64(width)
	}
	text := strconv.FormatUint(uint64(uint32(n)), 16)
	return strings.Repeat("0", max(0, offset-len(text))) + text
}
