package guard

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"dovepost/auth"
)

// checkNets applies allow_nets and allow_real_nets. It returns why r may not log
// in, or nothing.
func checkNets(r *auth.Request, row *auth.Credentials) string {
	realIP := r.RealRemoteIP
	if !realIP.IsValid() {
		realIP = r.RemoteIP
	}
	for _, c := range []struct {
		field string
		ip    netip.Addr
	}{{"allow_nets", r.RemoteIP}, {"allow_real_nets", realIP}} {
		nets, ok := row.Fields.Get(c.field)
		if !ok || inNets(nets, c.ip) {
			continue
		}
		if !c.ip.IsValid() {
			return c.field + ": the address is not known, and there is no \"local\""
		}
		return fmt.Sprintf("%s: %s is not in %s", c.field, c.ip, nets)
	}
	return ""
}

// checkRow applies the conditions that a row has for logins. It returns why r may not
// log in, or nothing.
func checkRow(r *auth.Request, row *auth.Credentials) string {
	return cmp.Or(checkNets(r, row), checkUntil(row))
}

// Allowed is an auth.Passdb that refuses who may not log in from where the request
// comes, with auth.ErrPasswordMismatch: Dovecot answers FAIL to such a PASS.
type Allowed struct{ auth.Passdb }

// LookupPass is auth.Passdb's.
func (a Allowed) LookupPass(ctx context.Context, r *auth.Request) (*auth.Credentials, error) {
	row, err := a.Passdb.LookupPass(ctx, r)
	if err != nil {
		return nil, err
	}
	if why := checkRow(r, row); why != "" {
		return nil, fmt.Errorf("%w: %s", auth.ErrPasswordMismatch, why)
	}
	return row, nil
}

// inNets reports whether ip is in a list of addresses and networks, separated by
// commas and blanks. "local" stands for an unknown address. What cannot be read
// contains nothing.
func inNets(list string, ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	for net := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' || r == ' ' }) {
		if net == "local" {
			if !ip.IsValid() {
				return true
			}
			continue
		}
		prefix, ok := parseNet(net)
		if ok && ip.IsValid() && prefix.Contains(ip) {
			return true
		}
	}
	return false
}

// parseNet reads 192.0.2.1, 192.0.2.0/24, 2001:db8::/32.
func parseNet(s string) (netip.Prefix, bool) {
	host, mask, hasMask := strings.Cut(s, "/")
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Zone() != "" {
		return netip.Prefix{}, false
	}
	bits := addr.BitLen()
	if hasMask {
		if bits, err = strconv.Atoi(mask); err != nil || bits < 0 || bits > addr.BitLen() {
			return netip.Prefix{}, false
		}
	}
	if addr.Is4In6() {
		if bits < 96 {
			return netip.Prefix{}, false
		}
		addr, bits = addr.Unmap(), bits-96
	}
	return netip.PrefixFrom(addr, bits), true
}
