package mysql

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// TLS holds the tls_ options of mysql_table(5). The zero value is a plain
// connection; if any file is named, a server without TLS is refused.
type TLS struct {
	CertFile, KeyFile string
	CAFile, CAPath    string // if one is set, the server's chain must lead to it
	Ciphers           string // OpenSSL names, for TLS 1.2
	VerifyCert        bool   // the server's certificate must also carry its host name
	Preferred         bool   // if nothing else is set, it is encrypted where the server can
}

func (t TLS) enabled() bool { return t.enforced() || t.Preferred }

// enforced reports whether a server without TLS is refused.
func (t TLS) enforced() bool {
	return t.CertFile != "" || t.KeyFile != "" || t.CAFile != "" || t.CAPath != "" || t.Ciphers != "" || t.VerifyCert
}

// tlsConfig is a loaded TLS.
type tlsConfig struct {
	base   *tls.Config
	verify bool
}

// load reads the files; nil means a plain connection.
func (t TLS) load() (*tlsConfig, error) {
	if !t.enabled() {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CertFile != "" || t.KeyFile != "" {
		// OpenSSL lets one file hold both parts.
		cert, key := t.CertFile, t.KeyFile
		if cert == "" {
			cert = key
		}
		if key == "" {
			key = cert
		}
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("tls_cert_file, tls_key_file: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	roots, err := t.roots()
	if err != nil {
		return nil, err
	}
	c.RootCAs = roots
	if c.CipherSuites, err = cipherSuites(t.Ciphers); err != nil {
		return nil, err
	}
	return &tlsConfig{base: c, verify: t.VerifyCert}, nil
}

// hashedName is what a file in CAPath must be called to count: see openssl-rehash(1).
var hashedName = regexp.MustCompile(`^[0-9a-f]{8}\.[0-9]+$`)

// roots returns the certificates of CAFile and CAPath, or nil if neither is set.
func (t TLS) roots() (*x509.CertPool, error) {
	var files []string
	if t.CAFile != "" {
		files = append(files, t.CAFile)
	}
	if t.CAPath != "" {
		entries, err := os.ReadDir(t.CAPath)
		if err != nil {
			return nil, fmt.Errorf("tls_CApath: %w", err)
		}
		for _, e := range entries {
			if hashedName.MatchString(e.Name()) {
				files = append(files, filepath.Join(t.CAPath, e.Name()))
			}
		}
	}
	if len(files) == 0 {
		if t.CAPath != "" {
			return nil, fmt.Errorf("tls_CApath: no certificate in %s", t.CAPath)
		}
		return nil, nil
	}
	pool, found := x509.NewCertPool(), false
	for _, file := range files {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("certificate authority: %w", err)
		}
		found = pool.AppendCertsFromPEM(pem) || found
	}
	if !found {
		return nil, fmt.Errorf("certificate authority: no certificate in %s", strings.Join(files, ", "))
	}
	return pool, nil
}

// forHost adapts the configuration to the server at addr, "host:port" or a socket's path.
func (t *tlsConfig) forHost(addr string) *tls.Config {
	c := t.base.Clone()
	if name, _, err := net.SplitHostPort(addr); err == nil {
		c.ServerName = name
	} else {
		c.ServerName = "localhost"
	}
	if t.verify {
		return c
	}
	// Without tls_verify_cert the name does not matter, but a chain that was
	// asked for does: that is what the client library does, too.
	c.InsecureSkipVerify = true
	if c.RootCAs != nil {
		roots := c.RootCAs
		c.VerifyConnection = func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return errors.New("the server sent no certificate")
			}
			options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
			for _, cert := range state.PeerCertificates[1:] {
				options.Intermediates.AddCert(cert)
			}
			_, err := state.PeerCertificates[0].Verify(options)
			return err
		}
	}
	return c
}

// openSSLSuites are the TLS 1.2 suites of crypto/tls by the names that OpenSSL gives them.
var openSSLSuites = map[string]uint16{
	"ECDHE-ECDSA-AES128-GCM-SHA256": tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-ECDSA-AES256-GCM-SHA384": tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-ECDSA-CHACHA20-POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-RSA-AES128-GCM-SHA256":   tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-RSA-AES256-GCM-SHA384":   tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-RSA-CHACHA20-POLY1305":   tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-RSA-AES128-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
	"ECDHE-RSA-AES256-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
	"ECDHE-ECDSA-AES128-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA,
	"ECDHE-ECDSA-AES256-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA,
}

// harmlessCiphers are keywords that crypto/tls fulfils without being told.
var harmlessCiphers = []string{"HIGH", "DEFAULT", "ALL", "!aNULL", "!eNULL", "!NULL", "!LOW", "!EXP", "!EXPORT",
	"!MD5", "!RC4", "!DES", "!3DES", "!IDEA", "!SEED", "!PSK", "!SRP", "!DSS", "!SSLv2", "!SSLv3", "@STRENGTH",
	"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}

// cipherSuites translates an OpenSSL cipher list. HIGH, DEFAULT and ALL are what
// crypto/tls does without a list, which is stricter; other keywords are refused,
// since guessing at them could only weaken what the administrator asked for.
func cipherSuites(list string) ([]uint16, error) {
	var suites []uint16
	for _, word := range strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune(":, ", r) }) {
		id, known := openSSLSuites[word]
		switch {
		case known:
			suites = append(suites, id)
		case slices.Contains(harmlessCiphers, word):
		default:
			return nil, fmt.Errorf("tls_ciphers: cipher %q is not supported", word)
		}
	}
	return suites, nil
}
