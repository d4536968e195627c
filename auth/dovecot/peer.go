package dovecot

import (
	"net"
	"os"
	"syscall"
)

// peer is the process at the other end of a unix socket.
type peer struct {
	pid      int32
	uid, gid uint32
}

// peerOf asks the kernel (SO_PEERCRED). false: not a unix socket, or not known.
func peerOf(c net.Conn) (peer, bool) {
	if a := c.LocalAddr(); a == nil || a.Network() != "unix" {
		return peer{}, false
	}
	sc, ok := c.(syscall.Conn)
	if !ok {
		return peer{}, false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return peer{}, false
	}
	var cred *syscall.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err != nil || credErr != nil {
		return peer{}, false
	}
	return peer{cred.Pid, cred.Uid, cred.Gid}, true
}

// restrictedUID returns the only uid whose lookups c's peer may see, if it is
// restricted: the socket's mode is exactly 0666, which is the default that says
// nothing about who is trusted, and the peer is neither root nor of the socket's
// owner or group. With any other mode the administrator has decided.
func restrictedUID(c net.Conn) (uid uint32, restricted bool) {
	a, ok := c.LocalAddr().(*net.UnixAddr)
	if !ok {
		return 0, false
	}
	p, known := peerOf(c)
	if known && p.uid == 0 {
		return 0, false
	}
	info, err := os.Stat(a.Name)
	if err != nil {
		return nobody, true // the path is gone or not ours to see: trust nobody
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || info.Mode().Perm() != 0o666:
		return 0, false
	case !known:
		return nobody, true
	case p.uid == st.Uid || p.gid == st.Gid:
		return 0, false
	}
	return p.uid, true
}

// nobody is a uid that no user of a userdb has.
const nobody = ^uint32(0)
