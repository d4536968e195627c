package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
)

// A Listen is one --listen value, KIND:unix:PATH[,mode=0660][,owner=USER][,group=GROUP]
// or KIND:inet:HOST:PORT.
type Listen struct {
	Kind    string
	Network string // unix or tcp
	Address string // path, or host:port

	Mode         os.FileMode // unix only
	Owner, Group string      // unix only; names or numbers; empty: as created
}

// maxSocketPath is the longest path of a unix socket, without the NUL at its end. unix(7).
const maxSocketPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// ParseListen reads a --listen value.
func ParseListen(s string) (Listen, error) {
	bad := func(why string) (Listen, error) {
		return Listen{}, fmt.Errorf("listen %q: %s; want KIND:unix:PATH[,mode=0660][,owner=USER][,group=GROUP] or KIND:inet:HOST:PORT", s, why)
	}
	kind, rest, _ := strings.Cut(s, ":")
	network, address, ok := strings.Cut(rest, ":")
	if kind == "" || !ok || address == "" {
		return bad("a part is missing")
	}
	l := Listen{Kind: kind, Network: network, Address: address, Mode: 0o600}
	switch network {
	case "inet":
		l.Network = "tcp"
		if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
			return bad("host or port is missing")
		}
		return l, nil
	case "unix":
	default:
		return bad(fmt.Sprintf("unknown address family %q", network))
	}

	parts := strings.Split(address, ",")
	l.Address = parts[0]
	switch {
	case !strings.HasPrefix(l.Address, "/"):
		return bad("the path is not absolute")
	case len(l.Address) > maxSocketPath:
		return bad(fmt.Sprintf("the path has %d octets, and a socket's has at most %d", len(l.Address), maxSocketPath))
	}
	for _, option := range parts[1:] {
		name, value, _ := strings.Cut(option, "=")
		switch {
		case value == "":
			return bad(fmt.Sprintf("option %q has no value", option))
		case name == "mode":
			mode, err := strconv.ParseUint(value, 8, 32)
			if err != nil || mode > 0o777 {
				return bad(fmt.Sprintf("mode %q is not octal", value))
			}
			l.Mode = os.FileMode(mode)
		case name == "owner":
			l.Owner = value
		case name == "group":
			l.Group = value
		default:
			return bad(fmt.Sprintf("unknown option %q", name))
		}
	}
	return l, nil
}

// Bind creates the listener. A socket file that a dead process left is replaced; one
// that still answers is an error.
func (l Listen) Bind() (net.Listener, error) {
	if l.Network != "unix" {
		return net.Listen(l.Network, l.Address)
	}
	uid, gid, err := l.ids()
	if err != nil {
		return nil, err
	}
	if err := removeStale(l.Address); err != nil {
		return nil, err
	}
	// Nobody may connect before owner and mode are right. The umask belongs to the
	// whole process, which has only this goroutine at work so early.
	old := syscall.Umask(0o177)
	ln, err := net.Listen("unix", l.Address)
	syscall.Umask(old)
	if err != nil {
		return nil, err
	}
	if uid >= 0 || gid >= 0 {
		err = os.Chown(l.Address, uid, gid)
	}
	if err = errors.Join(err, os.Chmod(l.Address, l.Mode)); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

func (l Listen) ids() (uid, gid int, err error) {
	uid, gid = -1, -1
	if l.Owner != "" {
		if uid, err = strconv.Atoi(l.Owner); err != nil {
			u, err := user.Lookup(l.Owner)
			if err != nil {
				return 0, 0, fmt.Errorf("listen on %s: %w", l.Address, err)
			}
			uid, _ = strconv.Atoi(u.Uid)
		}
	}
	if l.Group != "" {
		if gid, err = strconv.Atoi(l.Group); err != nil {
			g, err := user.LookupGroup(l.Group)
			if err != nil {
				return 0, 0, fmt.Errorf("listen on %s: %w", l.Address, err)
			}
			gid, _ = strconv.Atoi(g.Gid)
		}
	}
	return uid, gid, nil
}

func removeStale(path string) error {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("listen on %s: there is a file that is not a socket", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("listen on %s: another process listens there", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	return os.Remove(path)
}

// A bound is a listener with its kind.
type bound struct {
	kind string
	net.Listener
}

// passed returns the listeners that the service manager has opened, by the name
// that FileDescriptorName= gives them. sd_listen_fds_with_names(3).
func passed() ([]bound, error) {
	byName, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("socket activation: %w", err)
	}
	var all []bound
	for name, listeners := range byName {
		for _, ln := range listeners {
			if ln == nil {
				return nil, fmt.Errorf("socket activation: descriptor %q is not a stream socket", name)
			}
			all = append(all, bound{name, ln})
		}
	}
	slices.SortFunc(all, func(a, b bound) int { return strings.Compare(a.kind, b.kind) })
	return all, nil
}

// knownKind reports whether kind is one of kinds; "tcp_table=relay" is of the kind "tcp_table".
func knownKind(kind string, kinds []string) bool {
	base, _, _ := strings.Cut(kind, "=")
	return slices.Contains(kinds, base)
}
