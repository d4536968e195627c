package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestNetworks(t *testing.T) {
	got, err := parseNetworks(" 192.0.2.7/24,10.0.0.1 ::1\t2001:db8::/32 ::ffff:10.0.0.2 ")
	if want := "[192.0.2.0/24 10.0.0.1/32 ::1/128 2001:db8::/32 10.0.0.2/32]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("got %v, %v; want %s", got, err, want)
	}
	for _, text := range []string{"host.example", "10.0.0.1/33", "10.0.0", "fe80::1%eth0"} {
		if got, err := parseNetworks(text); err == nil {
			t.Errorf("parseNetworks(%q) = %v; want an error", text, got)
		}
	}
}

// A certificate that cannot be used stops the start, says which, and never what is in the file.
func TestCertificateRefused(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(key, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
		"-subj", "/CN=mx.test", "-keyout", key, "-out", cert).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
	p := &peers{ssl: "yes", sslCert: "<" + cert, sslKey: " " + key}
	if pair, err := p.readCertificate(); err != nil || len(pair.Certificate) != 1 {
		t.Fatalf("readCertificate: %v, %v", pair, err)
	}
	write("s3cret that is no key")
	if _, err := p.readCertificate(); err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), key) {
		t.Errorf("readCertificate: %v; want an error that names the file only", err)
	}
	os.Remove(key)
	if _, err := p.readCertificate(); err == nil || !strings.Contains(err.Error(), "ssl_key") {
		t.Errorf("readCertificate: %v; want an error of ssl_key", err)
	}
	p.ssl = "no"
	if pair, err := p.readCertificate(); pair != nil || err != nil {
		t.Errorf("ssl = no: %v, %v; want nothing", pair, err)
	}
}
