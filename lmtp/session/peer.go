package session

import (
	"net/netip"
	"strconv"
	"strings"
)

// What trusted peers may say of the client that they speak for. Names and forms are those of
// Postfix's XFORWARD_README and XCLIENT_README.
const (
	xclientWords  = "XCLIENT ADDR PORT PROTO HELO LOGIN SESSION TTL TIMEOUT"
	xforwardWords = "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE"
	errUntrusted  = "550 5.7.14 You are not from trusted IP"
)

// trusted reports whether the peer comes from login_trusted_networks.
func (s *session) trusted() bool {
	for _, network := range s.h.Trusted {
		if network.Contains(s.peer) {
			return true
		}
	}
	return false
}

// forwards reports whether the peer may use XFORWARD: it is trusted, or has got through the
// permissions of a unix socket. What it can say there is for the log, and its own
// name of the message, with which nobody gets at another message.
func (s *session) forwards() bool { return !s.peer.IsValid() || s.trusted() }

// forward is what XFORWARD said of the next message.
type forward struct {
	addr  string // the client's IP address; empty if it is not known
	ident string // the name that the message has there; empty if it is not known
}

// eachAttribute calls f for each NAME=VALUE in s, with the name in upper case and the value
// without its xtext encoding, empty if there is none. f reports whether it can use the
// value. Errors are reply lines, as Dovecot words them.
func eachAttribute(s string, f func(name, value string) bool) error {
	if s == "" {
		return nil
	}
	for attribute := range strings.SplitSeq(s, " ") {
		name, value, _ := strings.Cut(attribute, "=")
		name = strings.ToUpper(name)
		if !isKeyword(name) {
			return errSyntax("Invalid parameters")
		}
		if value != "" {
			var err error
			if value, err = decodeXtext(value); err != nil {
				return errSyntax("Invalid %s parameter: %v", name, err)
			}
		}
		if !f(name, value) {
			return errSyntax("Invalid %s parameter", name)
		}
	}
	return nil
}

// unavailable reports whether value stands for one that the peer does not know.
func unavailable(value string) bool {
	return strings.EqualFold(value, "[UNAVAILABLE]") || strings.EqualFold(value, "[TEMPUNAVAIL]")
}

// xforward takes what the peer says of the next message. A value that cannot be used is as
// good as none: no message is held up for it.
func (s *session) xforward(arg string) error {
	switch {
	case !s.forwards():
		return s.accept(errUntrusted)
	case s.tx != nil:
		return s.refuse("503 5.5.0 XFORWARD not permitted during a mail transaction")
	case arg == "":
		return s.refuse("501 5.5.4 Invalid parameters")
	}
	next := s.forward
	err := eachAttribute(arg, func(name, value string) bool {
		switch name {
		case "ADDR":
			addr, _ := parseAddr(value)
			next.addr = addrText(addr)
		case "IDENT":
			if next.ident = value; !isToken(value) {
				next.ident = ""
			}
		}
		return true
	})
	if err != nil {
		return s.refuse(err.Error())
	}
	s.forward = next
	return s.accept("250 2.0.0 OK")
}

// xclient lets the peer be another client: a proxy names the one that it speaks for. Its
// address and name go into the Received header, its session id into replies and the log; LOGIN, PORT, PROTO, TTL and TIMEOUT are of
// no use to a server that is the last one. Replies as Dovecot's.
func (s *session) xclient(arg string) error {
	switch {
	case !s.trusted():
		return s.accept(errUntrusted)
	case s.tx != nil:
		return s.refuse("503 5.5.0 XCLIENT not permitted during a mail transaction")
	}
	remote, hello, id := s.remote, s.hello, s.id
	err := eachAttribute(arg, func(name, value string) (ok bool) {
		if unavailable(value) {
			return true
		}
		switch name {
		case "ADDR":
			addr, ok := parseAddr(value)
			remote = addrText(addr)
			return ok
		case "HELO":
			hello = helloName(value)
		case "SESSION":
			id = value
			return isToken(value)
		case "PORT":
			port, err := strconv.ParseUint(value, 10, 16)
			return err == nil && port > 0
		case "PROTO":
			return value == "SMTP" || value == "ESMTP" || value == "LMTP"
		case "TTL", "TIMEOUT":
			_, err := strconv.ParseUint(value, 10, 32)
			return err == nil
		}
		return true
	})
	if err != nil {
		return s.refuse(err.Error())
	}
	s.remote, s.hello, s.id = remote, hello, id
	return s.accept(s.greeting())
}

// parseAddr reads an address as XCLIENT and XFORWARD write it: IPv6 with "IPV6:" before it.
func parseAddr(text string) (netip.Addr, bool) {
	if len(text) > 5 && strings.EqualFold(text[:5], "IPV6:") {
		text = text[5:]
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}, false
	}
	return addr.Unmap(), true
}

// isToken reports whether text can stand in a header, a reply and the log as it is: up to
// 100 visible ASCII characters, without brackets, quotes, parentheses and semicolons.
func isToken(text string) bool {
	for i := 0; i < len(text); i++ {
		if text[i] <= ' ' || text[i] >= 0x7f || strings.IndexByte(`<>()[]";,\`, text[i]) >= 0 {
			return false
		}
	}
	return text != "" && len(text) <= 100
}
