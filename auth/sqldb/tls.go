package sqldb

import (
	"fmt"
	"strings"

	"dovepost/lookup/mysql"
)

// tlsSettings are the ssl settings of a connect line of Dovecot 2.3 or of a mysql
// block of 2.4.
type tlsSettings struct {
	tls    mysql.TLS
	wanted bool // ssl = yes, of 2.4
}

// newTLSSettings has what is not set as in Dovecot.
func newTLSSettings() *tlsSettings { return &tlsSettings{tls: mysql.TLS{VerifyCert: true}} }

// set takes one setting, or says that there is no such thing.
func (s *tlsSettings) set(name, value string) error {
	yes := value == "yes"
	switch name {
	case "ssl_cert", "ssl_client_cert_file":
		s.tls.CertFile = strings.TrimPrefix(value, "<")
	case "ssl_key", "ssl_client_key_file":
		s.tls.KeyFile = strings.TrimPrefix(value, "<")
	case "ssl_ca", "ssl_client_ca_file":
		s.tls.CAFile = strings.TrimPrefix(value, "<")
	case "ssl_ca_path", "ssl_client_ca_dir":
		s.tls.CAPath = value
	case "ssl_cipher", "ssl_cipher_list":
		s.tls.Ciphers = value
	case "ssl_verify_server_cert", "ssl_client_require_valid_cert":
		if !yes && value != "no" {
			return fmt.Errorf("%s: %q is neither yes nor no", name, value)
		}
		s.tls.VerifyCert = yes
	case "ssl":
		s.wanted = value != "no"
	default:
		return fmt.Errorf("%s is not supported", name)
	}
	return nil
}

// finish returns the settings of the pool. As in Dovecot 2.3, there is no TLS without an
// authority; 2.4 may want it all the same.
func (s *tlsSettings) finish() mysql.TLS {
	tls := s.tls
	switch {
	case tls.CAFile != "" || tls.CAPath != "":
	case s.wanted:
		tls.VerifyCert, tls.Preferred = false, true
	default:
		tls = mysql.TLS{}
	}
	return tls
}
