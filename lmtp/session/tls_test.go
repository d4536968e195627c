package session

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// newTLS makes a configuration with a certificate of its own.
func newTLS(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mx.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// starttls dials h and asks for TLS; what is in early comes in the same packet as the command.
func starttls(t *testing.T, h *Handler, config *tls.Config, early string) (*tls.Conn, *bufio.Reader, <-chan error) {
	t.Helper()
	client, done := dial(t, h, nil)
	c, r := askForTLS(t, client, config, early)
	return c, r, done
}

func askForTLS(t *testing.T, client net.Conn, config *tls.Config, early string) (*tls.Conn, *bufio.Reader) {
	t.Helper()
	r := bufio.NewReader(client)
	expect(t, r, "220 mx.test dovepost ready.")
	fmt.Fprint(client, "LHLO first.test\r\nMAIL FROM:<early@x.test>\r\n")
	expect(t, r, "250-mx.test", "250-8BITMIME", "250-CHUNKING", "250-ENHANCEDSTATUSCODES",
		"250-PIPELINING", "250-SIZE", "250-STARTTLS", "250 SMTPUTF8", "250 2.1.0 OK")
	fmt.Fprint(client, "STARTTLS x\r\n")
	expect(t, r, "501 5.5.4 Invalid parameters")
	fmt.Fprint(client, "STARTTLS\r\n"+early)
	expect(t, r, "220 2.0.0 Begin TLS negotiation now.")
	config.InsecureSkipVerify = true
	c := tls.Client(client, config)
	return c, bufio.NewReader(c)
}

// What came before TLS is forgotten, and the header says how the message came: words of a real Dovecot 2.3.
func TestStartTLS(t *testing.T) {
	for _, tt := range []struct {
		config *tls.Config
		early  string
		want   string
	}{
		{&tls.Config{MinVersion: tls.VersionTLS13}, "", "TLSv1.3 with cipher TLS_AES_128_GCM_SHA256 (128/128 bits)"},
		{&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}}, "",
			"TLSv1.2 with cipher ECDHE-ECDSA-AES256-GCM-SHA384 (256/256 bits)"},
		{&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256}}, "",
			"TLSv1.2 with cipher ECDHE-ECDSA-CHACHA20-POLY1305 (256/256 bits)"},
		{&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}, "",
			"TLSv1.2 with cipher ECDHE-ECDSA-AES128-SHA (128/128 bits)"},
		{&tls.Config{MinVersion: tls.VersionTLS13}, "MAIL FROM:<injected@x.test>\r\nRCPT TO:<u2@example.test>\r\n",
			"TLSv1.3 with cipher TLS_AES_128_GCM_SHA256 (128/128 bits)"},
	} {
		m := new(memory)
		h := newHandler(m)
		h.TLS = newTLS(t)
		c, r, done := starttls(t, h, tt.config, tt.early)
		fmt.Fprint(c, "RCPT TO:<u1@example.test>\r\nSTARTTLS\r\nMAIL FROM:<a@b>\r\nRCPT TO:<u1@example.test>\r\nDATA\r\n")
		expect(t, r, "503 5.5.0 MAIL needed first", "502 5.5.1 TLS is already active.", "250 2.1.0 OK", "250 2.1.5 OK", "354 OK")
		fmt.Fprint(c, "x\r\n.\r\nLHLO second.test\r\n")
		expect(t, r, "250 2.0.0 <u1@example.test> ID:T2 Saved", "250-mx.test", "250-8BITMIME", "250-CHUNKING", "250-ENHANCEDSTATUSCODES",
			"250-PIPELINING", "250-SIZE", "250 SMTPUTF8")
		fmt.Fprint(c, "QUIT\r\n")
		expect(t, r, "221 2.0.0 Bye")
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("then %v; want a close that TLS announced", err)
		}
		if err := <-done; err != nil {
			t.Errorf("ServeConn = %v; want nil", err)
		}
		want := "Received: from unknown ([127.0.0.1])\n\t(using " + tt.want + ")\n\tby mx.test with LMTPS\n"
		if b, _ := m.next(); !strings.Contains(b.text, want) {
			t.Errorf("got %q; want %q in it", b.text, want)
		}
	}
}

// Octets that only look like a handshake end the connection, and nothing of them runs.
func TestStartTLSFails(t *testing.T) {
	m := new(memory)
	h := newHandler(m)
	h.TLS = newTLS(t)
	c, _, done := starttls(t, h, new(tls.Config), "")
	raw := c.NetConn()
	fmt.Fprint(raw, "MAIL FROM:<a@b>\r\nRCPT TO:<u1@example.test>\r\nDATA\r\nx\r\n.\r\n")
	raw.(*net.TCPConn).CloseWrite()
	out, _ := io.ReadAll(raw)
	if strings.Contains(string(out), "250 ") {
		t.Errorf("answered %q", out)
	}
	if err := <-done; err != nil {
		t.Errorf("ServeConn = %v; want nil", err)
	}
}

// fromLoopback is a connection of a peer that has an address.
type fromLoopback struct{ net.Conn }

func (fromLoopback) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// A handshake has an end in time, and so has a connection that says nothing after it.
func TestStartTLSTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(new(memory))
		h.TLS = newTLS(t)
		for _, shake := range []bool{false, true} {
			client, server := net.Pipe()
			defer client.Close()
			done := make(chan error, 1)
			go func() {
				defer server.Close()
				done <- h.ServeConn(t.Context(), fromLoopback{server})
			}()
			c, r := askForTLS(t, client, new(tls.Config), "")
			start := time.Now()
			if shake {
				if err := c.Handshake(); err != nil {
					t.Fatal(err)
				}
				expect(t, r, "421 4.4.2 mx.test Disconnected for inactivity")
				if _, err := r.ReadByte(); err != io.EOF {
					t.Errorf("then %v; want a close that TLS announced", err)
				}
			}
			if err := <-done; err != nil {
				t.Errorf("ServeConn = %v; want nil", err)
			}
			if took := time.Since(start); took < h.Timeout || took > h.Timeout+10*time.Second {
				t.Errorf("handshake %v: the end after %v; want %v", shake, took, h.Timeout)
			}
		}
	})
}

// A drain wakes a TLS connection as any other, and what was begun is finished.
func TestStartTLSDrain(t *testing.T) {
	t.Parallel()
	m := new(memory)
	h := newHandler(m)
	h.TLS = newTLS(t)
	var d *drainable
	client, done := dial(t, h, func(c net.Conn) net.Conn {
		d = &drainable{Conn: c, idle: make(chan bool, 100)}
		return d
	})
	r := bufio.NewReader(client)
	expect(t, r, "220 mx.test dovepost ready.")
	fmt.Fprint(client, "STARTTLS\r\n")
	expect(t, r, "220 2.0.0 Begin TLS negotiation now.")
	c := tls.Client(client, &tls.Config{InsecureSkipVerify: true})
	r = bufio.NewReader(c)
	fmt.Fprint(c, "NOOP\r\n")
	expect(t, r, "250 2.0.0 OK")
	d.drain(true)
	fmt.Fprint(c, "MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nDATA\r\n")
	expect(t, r, "250 2.1.0 OK", "250 2.1.5 OK", "354 OK")
	fmt.Fprint(c, "x\r\n.\r\n")
	expect(t, r, "250 2.0.0 <u1@example.test> ID Saved", "421 4.3.2 mx.test Shutting down")
	if err := <-done; err != nil {
		t.Errorf("ServeConn = %v; want nil", err)
	}
}
