package store

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dovepost/cmd/internal/stack"
	"dovepost/lookup/mysql"
)

// certificates writes ca.pem, server.pem and server.key (for the name localhost),
// other.pem (another authority) and cas/, a directory for tls_CApath.
func certificates(t *testing.T, dir string) {
	t.Helper()
	write := func(name, kind string, der []byte) {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755),
			os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	sign := func(serial int64, name string, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
			IsCA: parent == nil, DNSNames: []string{name}}
		if parent == nil {
			parent, signer = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
		if err == nil {
			c, err = x509.ParseCertificate(der)
		}
		if err != nil {
			t.Fatal(err)
		}
		return c, key
	}
	ca, caKey := sign(1, "authority", nil, nil)
	server, key := sign(2, "localhost", ca, caKey)
	other, _ := sign(3, "other", nil, nil)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write("ca.pem", "CERTIFICATE", ca.Raw)
	write("cas/ca.pem", "CERTIFICATE", ca.Raw)
	write("nocas/ca.pem", "CERTIFICATE", ca.Raw)
	write("other.pem", "CERTIFICATE", other.Raw)
	write("server.pem", "CERTIFICATE", server.Raw)
	write("server.key", "PRIVATE KEY", der)
	if out, err := exec.Command("openssl", "rehash", filepath.Join(dir, "cas")).CombinedOutput(); err != nil {
		t.Fatalf("openssl rehash: %v: %s", err, out)
	}
}

// the tls_ options trust whom the client library trusts.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	certificates(t, dir)
	server, err := stack.StartMariaDB(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Stop() })
	settings, err := os.OpenFile(filepath.Join(dir, "mariadb", "my.cnf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = settings.WriteString("\nssl-cert=" + dir + "/server.pem\nssl-key=" + dir + "/server.key\nssl-ca=" + dir + "/ca.pem\n")
	if err := errors.Join(err, settings.Close(), server.Stop(), server.Start()); err != nil {
		t.Fatal(err)
	}
	if err := server.Exec("CREATE DATABASE mail; CREATE USER reader@127.0.0.1 IDENTIFIED BY 'secret2'; CREATE USER reader@localhost IDENTIFIED BY 'secret2'; GRANT SELECT ON mail.* TO reader@127.0.0.1; GRANT SELECT ON mail.* TO reader@localhost"); err != nil {
		t.Fatal(err)
	}
	for name, option := range map[string]string{"wish": "ssl", "ca": "ssl-ca=" + dir + "/ca.pem", "other": "ssl-ca=" + dir + "/other.pem", "verify": "ssl-verify-server-cert"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("[client]\n"+option+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const query = "query = SELECT IF(variable_value = '', 'clear', 'encrypted') FROM information_schema.session_status WHERE variable_name = 'Ssl_version'\n"
	for name, tt := range map[string]struct {
		options string
		local   bool // through the socket, where the server's name is localhost
		want    string
	}{
		"no options":                       {"", false, "= clear"},
		"an authority":                     {"tls_CAfile = " + dir + "/ca.pem", false, "= encrypted"},
		"an option file's authority":       {"option_file = " + dir + "/ca", false, "= encrypted"},
		"an option file's other authority": {"option_file = " + dir + "/other", false, answerError},
		"an option file's wish":            {"option_file = " + dir + "/wish", false, "= encrypted"},
		"a name, but no authority":         {"option_file = " + dir + "/verify", false, "= clear"},
		"another authority":                {"tls_CAfile = " + dir + "/other.pem", false, answerError},
		"a directory":                      {"tls_CApath = " + dir + "/cas", false, "= encrypted"},
		"a directory that is not rehashed": {"tls_CApath = " + dir + "/nocas", false, answerError},
		"ciphers":                          {"tls_ciphers = HIGH", false, "= encrypted"},
		"a client certificate":             {"tls_cert_file = " + dir + "/server.pem\ntls_key_file = " + dir + "/server.key", false, "= encrypted"},
		"a name that is not there":         {"tls_CAfile = " + dir + "/ca.pem\ntls_verify_cert = yes", false, answerError},
		"the right name":                   {"tls_CAfile = " + dir + "/ca.pem\ntls_verify_cert = yes", true, "= encrypted"},
		"a name from nobody known":         {"tls_verify_cert = yes", false, answerError},
	} {
		host := server.Addr()
		if tt.local {
			host = "unix:" + server.Socket()
		}
		path := cfFile(t, query+account(host)+tt.options+"\n")
		m, _ := table(t, path, 1)
		got := ours(m, "x")
		native := postmap(t, path, []string{"x"})["x"]
		if strings.HasSuffix(name, "wish") && native == "= clear" {
			native = got // Postfix does without where it need not
		}
		if got != tt.want || got != native {
			t.Errorf("%s: got %s, Postfix %s; want %s", name, got, native, tt.want)
		}
		if tt.want == answerError {
			if err := m.Prepare(context.Background()); mysql.Unreachable(err) {
				t.Errorf("%s: %v counts as unreachable", name, err)
			}
		}
	}
}
