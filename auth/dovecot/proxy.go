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
func settleProxy(ctx context.Context, r *auth.Request, user string, fields auth.Fields) (auth.Fields, error) {
	if !isProxied(fields) {
		return fields, nil
	}
	fields = slices.Clone(fields)
	addr, err := backend(ctx, &fields)
	if err != nil {
		return nil, err
	}
	_, maybe := fields.Get("proxy_maybe")
	if !maybe {
		return fields, nil
	}
	if addr.IsValid() && addr == r.RealLocalIP && isSelf(r, user, fields) {
		_, always := fields.Get("proxy_always")
		fields = without(fields, "proxy", "proxy_maybe", "proxy_always", "host", "hostip", "port", "destuser")
		if !always {
			return fields, nil
		}
	}
	return append(without(fields, "proxy", "proxy_maybe"), auth.Field{Name: "proxy"}), nil
}

// backend returns the address of host=; it adds hostip= to one that is a name.
func backend(ctx context.Context, fields *auth.Fields) (netip.Addr, error) {
	host, _ := fields.Get("host")
	if host == "" {
		return netip.Addr{}, nil
	}
	if addr := parseIP(host); addr.IsValid() {
		return addr, nil
	}
	if hostip, ok := fields.Get("hostip"); ok {
		return parseIP(hostip), nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("proxy host: %w", err)
	}
	addr := addrs[0].Unmap()
	*fields = append(*fields, auth.Field{Name: "hostip", Value: addr.String(), HasValue: true})
	return addr, nil
}

// isSelf reports whether port and user of a backend with our own address are ours.
func isSelf(r *auth.Request, user string, fields auth.Fields) bool {
	port, hasPort := fields.Get("port")
	destuser, hasDestuser := fields.Get("destuser")
	return (!hasPort || port == strconv.Itoa(int(r.RealLocalPort))) && (!hasDestuser || destuser == user)
}

func without(fields auth.Fields, names ...string) auth.Fields {
	return slices.DeleteFunc(fields, func(f auth.Field) bool { return slices.Contains(names, f.Name) })
}
