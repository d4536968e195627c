package sasl

import (
	"context"
	"crypto/md5"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"dovepost/auth"
)

// digest is DIGEST-MD5, RFC 2831, with qop=auth. It is computed from the scheme
// DIGEST-MD5, which is H(user:realm:password), or from the clear password. There
// is no subsequent authentication.
type digest struct{ realms []string }

func newDigest(o *Options, _ []string) (auth.Mechanism, error) {
	for _, realm := range o.Realms {
		if strings.ContainsAny(realm, "\"\\\x00\r\n") {
			return nil, fmt.Errorf("auth_realms: %q cannot be a realm", realm)
		}
	}
	return digest{o.Realms}, nil
}

func (digest) Name() string    { return "DIGEST-MD5" }
func (digest) Flags() []string { return []string{"dictionary", "active", "mutual-auth"} }

func (m digest) Start(r *auth.Request, v auth.Verifier) auth.Exchange {
	var nonce [16]byte
	rand.Read(nonce[:])
	return &digestExchange{r: r, v: v, realms: m.realms, nonce: base64.StdEncoding.EncodeToString(nonce[:])}
}

type digestExchange struct {
	r      *auth.Request
	v      auth.Verifier
	realms []string
	nonce  string
	asked  bool
}

// Next sends the challenge, also to a client that has something to say before, as
// Dovecot does; then it takes the response. Its last message is rspauth. Errors:
// auth.ErrMalformed, the verifier's.
func (x *digestExchange) Next(ctx context.Context, response []byte) ([]byte, *auth.Credentials, error) {
	if !x.asked {
		x.asked = true
		return x.challenge(), nil, nil
	}
	d, err := parseDigest(string(response))
	if err != nil {
		return nil, nil, err
	}
	if d.nonce != x.nonce {
		return nil, nil, auth.ErrMalformed
	}
	name := d.username
	if d.realm != "" && !strings.Contains(name, "@") {
		name += "@" + d.realm
	}
	claim(x.r, name, d.authzid)
	row, err := x.v.LookupCredentials(ctx, x.r, "DIGEST-MD5")
	if err != nil {
		return nil, nil, err
	}
	for _, hash := range d.hashes(row) {
		if subtle.ConstantTimeCompare([]byte(d.sign(hash, "AUTHENTICATE:")), []byte(d.response)) == 1 {
			return []byte("rspauth=" + d.sign(hash, ":")), proven(row), nil
		}
	}
	return nil, nil, auth.ErrPasswordMismatch
}

func (x *digestExchange) challenge() []byte {
	realms := x.realms
	if len(realms) == 0 {
		realms = []string{""} // without any, Cyrus' client takes its host's name
	}
	var b []byte
	for _, realm := range realms {
		b = fmt.Appendf(b, "realm=\"%s\",", realm)
	}
	return fmt.Appendf(b, `nonce="%s",qop="auth",charset=utf-8,algorithm=md5-sess`, x.nonce)
}

// digestResponse is what a client says, RFC 2831 2.1.2.
type digestResponse struct {
	username, realm   string
	nonce, cnonce, nc string
	qop, uri          string
	response, authzid string
}

// parseDigest reads a response. Directives that are not known are ignored; one
// that is known stands there once.
func parseDigest(message string) (d digestResponse, err error) {
	all, ok := directives(message)
	if !ok || all["charset"] != "" && !strings.EqualFold(all["charset"], "utf-8") {
		return d, auth.ErrMalformed
	}
	d = digestResponse{username: all["username"], realm: all["realm"], nonce: all["nonce"], cnonce: all["cnonce"], nc: all["nc"],
		qop: all["qop"], uri: all["digest-uri"], response: all["response"], authzid: all["authzid"]}
	if d.qop == "" {
		d.qop = "auth"
	}
	if d.nc == "" {
		d.nc = "00000001"
	}
	_, uriOK := all["digest-uri"]
	switch {
	case d.username == "" || d.nonce == "" || d.cnonce == "" || len(d.response) != 2*md5.Size:
	case d.nc != "00000001" || d.qop != "auth":
	case uriOK && !strings.Contains(d.uri, "/"):
	default:
		return d, nil
	}
	return digestResponse{}, auth.ErrMalformed
}

// maxDirectives is more than twice of what there are.
const maxDirectives = 32

// directives reads key=value and key="value" with commas between. Keys are
// returned in lower case. false: it is not that, or a key stands there twice.
func directives(s string) (map[string]string, bool) {
	const space = " \t\r\n"
	all := map[string]string{}
	for s = strings.TrimLeft(s, space+","); s != ""; s = strings.TrimLeft(s, space+",") {
		key, rest, ok := strings.Cut(s, "=")
		key = strings.ToLower(strings.TrimRight(key, space))
		rest = strings.TrimLeft(rest, space)
		if _, twice := all[key]; !ok || twice || key == "" || len(all) == maxDirectives || strings.ContainsAny(key, "\",\x00"+space) {
			return nil, false
		}
		var value string
		if strings.HasPrefix(rest, `"`) {
			if value, rest, ok = unquote(rest[1:]); !ok {
				return nil, false
			}
		} else {
			end := strings.IndexByte(rest+",", ',')
			value, rest = strings.TrimRight(rest[:end], space), rest[end:]
		}
		if rest = strings.TrimLeft(rest, space); rest != "" && rest[0] != ',' || strings.Contains(value, "\x00") {
			return nil, false
		}
		all[key], s = value, rest
	}
	return all, true
}

// unquote reads a quoted-string behind its first quotation mark.
func unquote(s string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], true
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// hashes are what H(user:realm:password) may be: the stored value; or of a clear
// password in UTF-8, and in ISO 8859-1, which RFC 2831 2.1.2.1 wants of clients
// for all strings that have it and which not all of them do.
func (d *digestResponse) hashes(row *auth.Credentials) []string {
	scheme, value := secret(row)
	if scheme != "PLAIN" {
		return []string{value}
	}
	utf8 := md5.Sum([]byte(d.username + ":" + d.realm + ":" + value))
	latin := md5.Sum([]byte(latin1(d.username) + ":" + latin1(d.realm) + ":" + latin1(value)))
	return []string{string(utf8[:]), string(latin[:])}
}

// latin1 is s in ISO 8859-1 where that has all its characters, and s otherwise.
func latin1(s string) string {
	var b []byte
	for _, r := range s {
		if r > 0xff {
			return s // also U+FFFD, for what is no UTF-8
		}
		b = append(b, byte(r))
	}
	return string(b)
}

// sign is the response-value of RFC 2831 2.1.2.1, with A2 = prefix digest-uri.
func (d *digestResponse) sign(hash, prefix string) string {
	a1 := hash + ":" + d.nonce + ":" + d.cnonce
	if d.authzid != "" {
		a1 += ":" + d.authzid
	}
	return hexMD5(hexMD5(a1) + ":" + d.nonce + ":" + d.nc + ":" + d.cnonce + ":" + d.qop + ":" + hexMD5(prefix+d.uri))
}

func hexMD5(s string) string {
	sum := md5.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}
