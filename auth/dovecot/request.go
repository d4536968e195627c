package dovecot

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"dovepost/auth"
)

// flags are the parameters of a request that concern the protocol alone.
type flags struct {
	service     bool // service= or protocol= was there; it may be empty
	finalRespOK bool // OK may carry the mechanism's last message in resp=
	noPickUp    bool // nologin: no REQUEST will come
}

// parseParams reads the parameters of AUTH, USER, PASS and LIST into r. Unknown
// and empty ones are ignored; an address that is none counts as not given.
func parseParams(r *auth.Request, params []string) (f flags) {
	for _, p := range params {
		name, value, _ := strings.Cut(p, "=")
		switch name {
		case "service":
			f.service, r.Service = true, value
		case "protocol": // 2.4's word for service
			f.service, r.Service, r.Modern = true, value, true
		case "secured":
			r.Secured, r.TLS = true, r.TLS || value == "tls"
		case "session":
			r.Session = value
		case "lip":
			r.LocalIP = parseIP(value)
		case "rip":
			r.RemoteIP = parseIP(value)
		case "real_lip":
			r.RealLocalIP = parseIP(value)
		case "real_rip":
			r.RealRemoteIP = parseIP(value)
		case "lport":
			r.LocalPort = parsePort(value)
		case "rport":
			r.RemotePort = parsePort(value)
		case "real_lport":
			r.RealLocalPort = parsePort(value)
		case "real_rport":
			r.RealRemotePort = parsePort(value)
		case "local_name":
			r.LocalName = value
		case "client_id":
			r.ClientID = value
		case "forward_fields":
			r.Forward = parseForward(value)
		case "valid-client-cert":
			r.ClientCert = true
		case "cert_username":
			r.CertUsername = value
		case "ssl_client_cert_fp":
			r.CertFingerprint = value
		case "ssl_client_cert_pubkey_fp":
			r.CertPubkey = value
		case "ssl_ja3_hash":
			r.JA3 = value
		case "debug":
			r.Debug = true
		case "no-penalty":
			r.NoPenalty = true
		case "final-resp-ok":
			f.finalRespOK = true
		case "nologin":
			f.noPickUp = true
		}
	}
	// real_* are sent only where they differ.
	if !r.RealLocalIP.IsValid() {
		r.RealLocalIP = r.LocalIP
	}
	if !r.RealRemoteIP.IsValid() {
		r.RealRemoteIP = r.RemoteIP
	}
	if r.RealLocalPort == 0 {
		r.RealLocalPort = r.LocalPort
	}
	if r.RealRemotePort == 0 {
		r.RealRemotePort = r.RemotePort
	}
	return f
}

// parseForward reads the fields that a trusted proxy has sent on: they were
// escaped, joined by TABs, and escaped again as one value. Dovecot does not tell an
// empty value from none.
func parseForward(list string) auth.Fields {
	fields := parseFields(splitLine(list))
	for i := range fields {
		fields[i].HasValue = fields[i].Value != ""
	}
	return fields
}

func parseIP(s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap()
}

func parsePort(s string) uint16 {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

// authLine is one parsed AUTH.
type authLine struct {
	id      uint32
	mech    string // upper case
	req     auth.Request
	flags   flags
	hasResp bool
	resp    string // base64
}

// parseAuth reads the fields after AUTH. An error is a violation that the stock
// server answers by closing the connection.
func parseAuth(fields []string, minor int) (a authLine, err error) {
	if len(fields) < 2 {
		return a, errors.New("broken AUTH")
	}
	if a.id, err = parseID(fields[0]); err != nil {
		return a, err
	}
	a.mech = strings.ToUpper(fields[1]) // Postfix sends it as the client typed it
	params := fields[2:]
	for i, p := range params {
		name, value, _ := strings.Cut(p, "=")
		if name != "resp" {
			continue
		}
		// resp= is last, so that nothing can be injected behind a user's data.
		if i != len(params)-1 {
			return a, errors.New("AUTH parameters after resp")
		}
		params = params[:i]
		// Before minor 2 an empty resp= means that there is none.
		a.hasResp = value != "" || minor >= 2
		if value != "=" {
			a.resp = value
		}
	}
	a.req.Mech = a.mech
	a.flags = parseParams(&a.req, params)
	a.req.Modern = a.req.Modern || minor >= modernMinor
	if !a.flags.service {
		return a, errors.New("AUTH without service")
	}
	return a, nil
}

// modernMinor is the first minor version that only Dovecot 2.4 says.
const modernMinor = 3
