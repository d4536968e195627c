package session

import (
	"net"
	"net/netip"
	"time"
)

// minRate is how many octets a second a client must send on average once its first time is
// over, as Postfix's smtpd_min_data_rate.
const minRate = 500

// timedConn gives each Read and each Write the time of timeout, and to what within
// began an end. A deadline is left where it is while that takes away less than a 64th of
// timeout: a delivery has eight reads and writes or more.
type timedConn struct {
	net.Conn
	timeout         time.Duration
	until           time.Time // when all reads end; zero: never
	readBy, writeBy time.Time // the deadlines that Conn has
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
	if c.misses(c.readBy, deadline) {
		c.readBy = deadline
		if err := c.SetReadDeadline(deadline); err != nil {
			return 0, err
		}
	}
	n, err := c.Conn.Read(p)
	if bounded {
		c.until = c.until.Add(time.Duration(n) * time.Second / minRate)
	}
	return n, err
}

func (c *timedConn) Write(p []byte) (int, error) {
	if deadline := time.Now().Add(c.timeout); c.misses(c.writeBy, deadline) {
		c.writeBy = deadline
		if err := c.SetWriteDeadline(deadline); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(p)
}

// misses reports whether a deadline must be moved to where it should be.
func (c *timedConn) misses(has, want time.Time) bool {
	late := want.Sub(has)
	return late < 0 || late > c.timeout/64
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
