package session

import (
	"net"
	"net/netip"
	"time"
)

// minRate is how many octets a second a client must send on average once its first time is
// over, as Postfix's smtpd_min_data_rate.
const minRate = 500

// timedConn gives each Read and each Write the whole of timeout, and to what within
// began an end.
type timedConn struct {
	net.Conn
	timeout time.Duration
	until   time.Time // when all reads end; zero: never
}

// within says that what is read from now on must have come in d and a second for each
// minRate octets, so that nobody holds a connection for ever by sending an octet at a
// time. 0 says that there is no end again.
func (c *timedConn) within(d time.Duration) {
	if d == 0 {
		c.until = time.Time{}
		return
	}
	c.until = time.Now().Add(d)
}

func (c *timedConn) Read(p []byte) (int, error) {
	deadline := time.Now().Add(c.timeout)
	bounded := !c.until.IsZero()
	if bounded && c.until.Before(deadline) {
		deadline = c.until
	}
	if err := c.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	if bounded {
		c.until = c.until.Add(time.Duration(n) * time.Second / minRate)
	}
	return n, err
}

func (c *timedConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// remoteAddr returns the address of c's peer, the zero Addr when it has none, as on a
// unix socket.
func remoteAddr(c net.Conn) netip.Addr {
	addr := c.RemoteAddr()
	if addr == nil {
		return netip.Addr{}
	}
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// addrText is the address as headers and the log write it, empty for none.
func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
