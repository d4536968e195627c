package session

import (
	"context"
	"crypto/tls"
	"strings"
)

// offersTLS reports whether STARTTLS can be asked for: a unix socket needs none.
func (s *session) offersTLS() bool {
	return s.h.TLS != nil && s.peer.IsValid() && s.secure == nil
}

// starttls begins TLS: RFC 3207. What the client sent before is forgotten, and what came in
// the same packet as the command, which anybody on the way may have put there, is dropped.
func (s *session) starttls(ctx context.Context, arg string) error {
	switch {
	case s.secure != nil:
		return s.refuse("502 5.5.1 TLS is already active.")
	case !s.offersTLS():
		return s.refuse("500 5.5.1 Unknown command")
	case arg != "":
		return s.refuse("501 5.5.4 Invalid parameters")
	}
	s.endTransaction()
	s.accept("220 2.0.0 Begin TLS negotiation now.")
	if err := s.w.Flush(); err != nil {
		return err
	}
	if n := s.r.Buffered(); n > 0 {
		s.log.Warn("octets before TLS dropped", "session", s.id, "remote", s.remote, "octets", n)
	}
	c := tls.Server(s.conn, s.h.TLS)
	s.conn.within(s.conn.timeout)
	err := c.HandshakeContext(ctx)
	s.conn.within(0)
	if err != nil {
		s.log.Warn("no TLS", "session", s.id, "remote", s.remote, "err", err)
		s.w.Reset(nil) // nothing can be said any more
		return errQuit
	}
	s.secure = c
	s.r.Reset(c)
	s.w.Reset(c)
	s.hello, s.remote = "", addrText(s.peer)
	return nil
}

// tlsText words the state of a connection as Dovecot does: "TLSv1.2 with cipher
// ECDHE-RSA-AES256-GCM-SHA384 (256/256 bits)". Empty without TLS.
func tlsText(c *tls.Conn) string {
	if c == nil {
		return ""
	}
	state := c.ConnectionState()
	bits := "256"
	name := tls.CipherSuiteName(state.CipherSuite)
	if strings.Contains(name, "AES_128") {
		bits = "128"
	}
	return strings.Replace(tls.VersionName(state.Version), "TLS ", "TLSv", 1) +
		" with cipher " + cipherName(name) + " (" + bits + "/" + bits + " bits)"
}

// openSSL turns the names of RFC 5246 into OpenSSL's.
var openSSL = strings.NewReplacer(
	"TLS_RSA_WITH_", "", "TLS_", "", "_WITH_", "-", "AES_", "AES", "_CBC_", "-", "POLY1305_SHA256", "POLY1305", "_", "-")

// cipherName returns OpenSSL's name of a cipher suite. Those of TLS 1.3 have one name.
func cipherName(name string) string {
	if !strings.Contains(name, "_WITH_") {
		return name
	}
	return openSSL.Replace(name)
}
