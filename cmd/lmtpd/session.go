package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"

	"github.com/spf13/pflag"

	"dovepost/lmtp/session"
)

// peers are the settings that say who may ask for what on a connection.
type peers struct {
	ssl, sslCert, sslKey string
	trustedNetworks      string
	certificate          atomic.Pointer[tls.Certificate]
}

func (p *peers) flags(fs *pflag.FlagSet) {
	fs.StringVar(&p.ssl, "ssl", "yes", "no, yes or required: whether STARTTLS is offered on inet listeners; needs ssl_cert, and required asks for one")
	fs.StringVar(&p.sslCert, "ssl_cert", "", "`FILE` with the certificate and those that vouch for it, PEM; Dovecot's <FILE is taken, too")
	fs.StringVar(&p.sslKey, "ssl_key", "", "`FILE` with its key")
	fs.StringVar(&p.trustedNetworks, "login_trusted_networks", "", "`addresses` and networks, 192.0.2.0/24, of inet peers that may use XCLIENT and XFORWARD")
}

// apply gives h what the settings say.
func (p *peers) apply(h *session.Handler) (err error) {
	if h.Trusted, err = parseNetworks(p.trustedNetworks); err != nil {
		return fmt.Errorf("login_trusted_networks: %w", err)
	}
	switch {
	case p.ssl != "no" && p.ssl != "yes" && p.ssl != "required":
		return fmt.Errorf("ssl = %s: not no, yes or required", p.ssl)
	case (p.sslCert == "") != (p.sslKey == ""):
		return errors.New("ssl_cert and ssl_key: one without the other")
	case p.ssl == "required" && p.sslCert == "":
		return errors.New("ssl = required: no ssl_cert")
	case p.ssl == "no" || p.sslCert == "":
		return nil
	}
	h.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return p.certificate.Load(), nil
	}}
	return nil
}

// readCertificate reads the files of ssl_cert and ssl_key; nil without TLS.
func (p *peers) readCertificate() (*tls.Certificate, error) {
	if p.ssl == "no" || p.sslCert == "" {
		return nil, nil
	}
	cert, err := os.ReadFile(pemFile(p.sslCert))
	if err != nil {
		return nil, fmt.Errorf("ssl_cert: %w", err)
	}
	key, err := os.ReadFile(pemFile(p.sslKey))
	if err != nil {
		return nil, fmt.Errorf("ssl_key: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("ssl_cert = %s, ssl_key = %s: %w", p.sslCert, p.sslKey, err)
	}
	return &pair, nil
}

// pemFile returns the path in a setting of Dovecot's, "<path".
func pemFile(setting string) string {
	return strings.TrimSpace(strings.TrimPrefix(setting, "<"))
}

// parseNetworks reads addresses and networks between blanks or commas.
func parseNetworks(text string) (networks []netip.Prefix, err error) {
	for word := range strings.FieldsFuncSeq(text, func(c rune) bool { return c == ' ' || c == ',' || c == '\t' }) {
		network, err := netip.ParsePrefix(word)
		if err != nil {
			addr, err := netip.ParseAddr(word)
			if err != nil || addr.Zone() != "" {
				return nil, fmt.Errorf("%q is neither an address nor a network", word)
			}
			network = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen())
		}
		networks = append(networks, network.Masked())
	}
	return networks, nil
}
