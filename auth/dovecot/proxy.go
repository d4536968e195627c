package dovecot

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"dovepost/auth"
)

// resolveTimeout is for the name of a backend.
const resolveTimeout = 10 * time.Second

// isProxied reports whether a row wants, perhaps, that its user's connection is
// passed on to another server.
func isProxied(fields auth.Fields) bool {
	_, proxy := fields.Get("proxy")
	_, maybe := fields.Get("proxy_maybe")
	return proxy || maybe
}

// settleProxy does with the proxy fields of a row what the auth service has to do
// for login processes, which want host= as an address or with hostip= beside it:
// it resolves the name, and makes proxy of proxy_maybe, or nothing at all where the
// backend is this server. An error, of the resolver, is temporary.
func settleProxy(ctx context.Context, r *auth.Request, fields auth.Fields) (auth.Fields, error) {
	if !isProxied(fields) {
		return fields, nil
	}
	fields = slices.Clone(fields)
	addrs, err := backend(ctx, r, &fields)
	if err != nil {
		return nil, err
	}
	_, maybe := fields.Get("proxy_maybe")
	if !maybe {
		return fields, nil
	}
	port, hasPort := fields.Get("port")
	if r.RealLocalIP.IsValid() && slices.Contains(addrs, r.RealLocalIP) && (!hasPort || port == strconv.Itoa(int(r.LocalPort))) {
		_, always := fields.Get("proxy_always")
		fields = without(fields, "proxy", "proxy_maybe", "proxy_always", "host", "hostip", "port", "destuser")
		if !always {
			return fields, nil
		}
	}
	return append(without(fields, "proxy", "proxy_maybe"), auth.Field{Name: "proxy"}), nil
}

// backend returns the addresses of host=. It adds hostip=, the first of them, to one
// that is a name; and our own, if there is no host and somebody behind us has to choose.
func backend(ctx context.Context, r *auth.Request, fields *auth.Fields) ([]netip.Addr, error) {
	add := func(name, value string) {
		*fields = append(*fields, auth.Field{Name: name, Value: value, HasValue: true})
	}
	host, _ := fields.Get("host")
	if host == "" {
		if r.LocalIP.IsValid() {
			add("lip", r.LocalIP.String())
		}
		if r.LocalPort != 0 {
			add("lport", strconv.Itoa(int(r.LocalPort)))
		}
		return nil, nil
	}
	hostip, hasIP := fields.Get("hostip")
	if addr := parseIP(host); addr.IsValid() {
		hostip, hasIP = host, true
	}
	if hasIP {
		return []netip.Addr{parseIP(hostip)}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("proxy host: %w", err)
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	add("hostip", addrs[0].String())
	return addrs, nil
}

func without(fields auth.Fields, names ...string) auth.Fields {
	return slices.DeleteFunc(fields, func(f auth.Field) bool { return slices.Contains(names, f.Name) })
}
