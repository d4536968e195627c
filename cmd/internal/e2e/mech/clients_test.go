package mech

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"dovepost/cmd/internal/stack"
)

// clients are the mail clients, and the certificates that some of them have.
type clients struct {
	dir string
	ca  string // the file that servers trust
}

// newClients makes certificates of clear@example.net, nobody@example.net, and one
// whose issuer nobody trusts: NAME.pem, NAME.key.
func newClients(dir string) (*clients, error) {
	c := &clients{dir, filepath.Join(dir, "ca.pem")}
	ca, caKey, err := certificate("Clients", nil, nil)
	if err != nil {
		return nil, err
	}
	if err := writePEM(c.ca, "CERTIFICATE", ca.Raw); err != nil {
		return nil, err
	}
	other, otherKey, err := certificate("Others", nil, nil)
	if err != nil {
		return nil, err
	}
	for _, k := range []struct {
		file, name string
		parent     *x509.Certificate
		key        *ecdsa.PrivateKey
	}{{"clear", "clear@example.net", ca, caKey}, {"nobody", "nobody@example.net", ca, caKey}, {"foreign", "clear@example.net", other, otherKey}} {
		cert, key, err := certificate(k.name, k.parent, k.key)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		if err := writePEM(filepath.Join(dir, k.file+".pem"), "CERTIFICATE", cert.Raw); err != nil {
			return nil, err
		}
		if err := writePEM(filepath.Join(dir, k.file+".key"), "PRIVATE KEY", der); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func certificate(name string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), BasicConstraintsValid: true}
	if parent == nil {
		parent, parentKey = template, key
		template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign
	} else {
		template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o644)
}

// addr is where a stack serves a protocol.
func addr(s *stack.Stack, protocol string) string {
	return map[string]string{"imap": s.IMAPAddr, "pop3": s.POP3Addr, "smtp": s.SubmissionAddr}[protocol]
}

// login is what a client tries.
type login struct {
	client, protocol, mech, user, password string
	realm                                  string // of DIGEST-MD5
	cert                                   string // with the certificate of
}

func (l login) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s as %s %s with %s %s", l.client, l.protocol, l.mech, l.user, l.realm, l.password, l.cert))
}

// errHangs begins what a client has said whom nobody answers.
const errHangs = "no answer in time\n"

// try has the client log in, and returns whether it could, and what it has said.
func (c *clients) try(s *stack.Stack, l login) (bool, string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ca := filepath.Join(s.Dir, "cert.pem")
	var cmd *exec.Cmd
	switch l.client {
	case "curl":
		args := []string{"-sSv", "--ssl-reqd", "--cacert", ca, "--login-options", "AUTH=" + l.mech, l.protocol + "://" + addr(s, l.protocol) + "/"}
		if l.mech == "APOP" {
			args[5] = "AUTH=+APOP"
		}
		if l.protocol != "pop3" {
			args = append(args, "-X", "NOOP")
		}
		if l.mech == "XOAUTH2" || l.mech == "OAUTHBEARER" {
			args = append(args, "--oauth2-bearer", l.password, "-u", l.user)
		} else {
			args = append(args, "-u", l.user+":"+l.password)
		}
		if l.cert != "" {
			args = append(args, "--cert", filepath.Join(c.dir, l.cert+".pem"), "--key", filepath.Join(c.dir, l.cert+".key"))
		}
		cmd = exec.CommandContext(ctx, "curl", args...)
	case "gsasl":
		cmd = exec.CommandContext(ctx, "gsasl", "--client", "--"+l.protocol, "--connect", addr(s, l.protocol), "--x509-ca-file="+ca,
			"--mechanism="+l.mech, "--authentication-id="+l.user, "--password="+l.password, "--realm="+l.realm, "--verbose")
		if !strings.HasSuffix(l.mech, "-PLUS") {
			cmd.Args = append(cmd.Args, "--no-cb") // otherwise it gives up where there is no -PLUS
		}
		cmd.Stdin = strings.NewReader("")
	}
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return false, errHangs + string(out)
	}
	if strings.HasPrefix(l.mech, "SCRAM-") && err == nil && !strings.Contains(string(out), "server trusted") {
		return false, string(out) // its signature was not verified
	}
	return err == nil, string(out)
}
