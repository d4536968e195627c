package sasl

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"testing"

	"dovepost/auth"
)

// The examples of RFC 5802 section 5 and RFC 7677 section 3.
func TestSCRAMExamples(t *testing.T) {
	for _, tt := range []struct {
		scheme                      string
		hash                        func() hash.Hash
		salt, hello, first, finalIn string
		finalOut                    string
	}{
		{"SCRAM-SHA-1", sha1.New, "QSXCR+Q6sek8bf92", "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
			"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
			"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
			"v=rmF9pqV8S7suAoZWja4dJRkFsKQ="},
		{"SCRAM-SHA-256", sha256.New, "W22ZaJ0SNY7soEsUEjb6gQ==", "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
			"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
			"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
			"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="},
	} {
		x := mechanism(t, tt.scheme, Options{}).Start(&auth.Request{}, nil).(*scramExchange)
		var err error
		if x.hello, err = parseHello(tt.hello); err != nil || x.hello.user != "user" {
			t.Fatal(x.hello, err)
		}
		stored := storedSCRAM(tt.hash, "pencil", tt.salt, 4096)
		if x.keys, err = parseKeys(stored, tt.hash().Size()); err != nil {
			t.Fatal(err)
		}
		x.first, x.nonce, x.row = tt.first, strings.TrimPrefix(strings.Split(tt.first, ",")[0], "r="), &auth.Credentials{User: "user", Password: "x"}
		final, row, err := x.Next(t.Context(), []byte(tt.finalIn))
		outcome(t, tt.scheme, row, err, nil)
		if string(final) != tt.finalOut {
			t.Errorf("%s: final message %q, want %q", tt.scheme, final, tt.finalOut)
		}
	}
}

// storedSCRAM is what the row of a user has.
func storedSCRAM(h func() hash.Hash, password, salt64 string, iterations int) string {
	client := scramClient{hash: h, password: password}
	b64 := base64.StdEncoding.EncodeToString
	salt, _ := base64.StdEncoding.DecodeString(salt64)
	clientKey, serverKey := client.keys(salt, iterations)
	sum := h()
	sum.Write(clientKey)
	return fmt.Sprintf("%d,%s,%s,%s", iterations, salt64, b64(sum.Sum(nil)), b64(serverKey))
}

// scramClient is a client's side.
type scramClient struct {
	hash     func() hash.Hash
	gs2      string
	user     string
	password string
	binding  string // data of the channel
	first    string // the server's first message, once it has come
}

func (c *scramClient) hmac(key []byte, message string) []byte {
	m := hmac.New(c.hash, key)
	m.Write([]byte(message))
	return m.Sum(nil)
}

func (c *scramClient) keys(salt []byte, iterations int) (client, server []byte) {
	salted, err := pbkdf2.Key(c.hash, c.password, salt, iterations, c.hash().Size())
	if err != nil {
		panic(err)
	}
	return c.hmac(salted, "Client Key"), c.hmac(salted, "Server Key")
}

// final answers the server's first message; want is what its last one has to be.
func (c *scramClient) final(first string) (response, want string) {
	c.first = first
	var nonce, salt, count string
	for _, part := range strings.Split(first, ",") {
		switch part[:2] {
		case "r=":
			nonce = part[2:]
		case "s=":
			salt = part[2:]
		case "i=":
			count = part[2:]
		}
	}
	raw, _ := base64.StdEncoding.DecodeString(salt)
	iterations, _ := strconv.Atoi(count)
	clientKey, serverKey := c.keys(raw, iterations)
	sum := c.hash()
	sum.Write(clientKey)
	without := "c=" + base64.StdEncoding.EncodeToString([]byte(c.gs2+c.binding)) + ",r=" + nonce
	whole := c.bare() + "," + first + "," + without
	proof := c.hmac(sum.Sum(nil), whole)
	for i := range proof {
		proof[i] ^= clientKey[i]
	}
	return without + ",p=" + base64.StdEncoding.EncodeToString(proof), "v=" + base64.StdEncoding.EncodeToString(c.hmac(serverKey, whole))
}

func (c *scramClient) bare() string { return "n=" + c.user + ",r=clientnonce" }

var scramRows = rows{
	"clear": "{PLAIN}secret", "stored": "{SCRAM-SHA-256}" + storedSCRAM(sha256.New, "secret", "c2FsdHNhbHRzYWx0c2FsdA==", 5000),
	"a,b=c": "{PLAIN}secret", "broken": "{SCRAM-SHA-256}4096,c2FsdA==", "other": "{SHA512}x", "closed": "",
}

func TestSCRAM(t *testing.T) {
	both := "SCRAM-SHA-256 SCRAM-SHA-256-PLUS"
	modern := auth.Request{Modern: true, TLS: true, Secured: true}
	for _, tt := range []struct {
		name, list, mech  string
		r                 auth.Request
		gs2, user         string
		password          string
		binding, actually string // the channel's data: the client's, and the server's
		err               error
		at                int // the step of the error, from 1
	}{
		{"a clear password", "SCRAM-SHA-256", "", auth.Request{}, "n,,", "clear", "secret", "", "", nil, 0},
		{"stored keys", "SCRAM-SHA-256", "", auth.Request{}, "n,,", "stored", "secret", "", "", nil, 0},
		{"a client that could bind and is not offered it", "SCRAM-SHA-256", "", modern, "y,,", "stored", "secret", "", "", nil, 0},
		{"the same before TLS", both, "", auth.Request{Modern: true}, "y,,", "stored", "secret", "", "", nil, 0},
		{"the same with a login process that cannot", both, "", auth.Request{TLS: true}, "y,,", "stored", "secret", "", "", nil, 0},
		{"a client that cannot bind", both, "", modern, "n,,", "stored", "secret", "", "", nil, 0},
		{"a downgrade", both, "", modern, "y,,", "stored", "secret", "", "", auth.ErrMalformed, 1},
		{"binding without -PLUS", both, "", modern, "p=tls-unique,,", "stored", "secret", "x", "x", auth.ErrMalformed, 1},
		{"-PLUS without binding", both, "SCRAM-SHA-256-PLUS", modern, "n,,", "stored", "secret", "", "", auth.ErrMalformed, 1},
		{"-PLUS with binding denied", both, "SCRAM-SHA-256-PLUS", modern, "y,,", "stored", "secret", "", "", auth.ErrMalformed, 1},
		{"channel binding", both, "SCRAM-SHA-256-PLUS", modern, "p=tls-exporter,,", "stored", "secret", "\x01\x00\xff,=", "\x01\x00\xff,=", nil, 0},
		{"somebody in the middle", both, "SCRAM-SHA-256-PLUS", modern, "p=tls-unique,,", "stored", "secret", "here", "there", auth.ErrPasswordMismatch, 2},
		{"a channel without data", both, "SCRAM-SHA-256-PLUS", modern, "p=tls-unique,,", "stored", "secret", "", "", auth.ErrPasswordMismatch, 2},
		{"a broken name of a binding", both, "SCRAM-SHA-256-PLUS", modern, "p=tls unique,,", "stored", "secret", "", "", auth.ErrMalformed, 1},
		{"a name with comma and equals sign", "SCRAM-SHA-256", "", auth.Request{}, "n,,", "a=2Cb=3Dc", "secret", "", "", nil, 0},
		{"an authzid", "SCRAM-SHA-256", "", auth.Request{}, "n,a=bob,", "clear", "secret", "", "", nil, 0},
		{"a broken name", "SCRAM-SHA-256", "", auth.Request{}, "n,,", "a=2cb", "secret", "", "", auth.ErrMalformed, 1},
		{"an empty name", "SCRAM-SHA-256", "", auth.Request{}, "n,,", "", "secret", "", "", auth.ErrMalformed, 1},
		{"a broken authzid", "SCRAM-SHA-256", "", auth.Request{}, "n,b=bob,", "clear", "secret", "", "", auth.ErrMalformed, 1},
		{"an unknown flag", "SCRAM-SHA-256", "", auth.Request{}, "x,,", "clear", "secret", "", "", auth.ErrMalformed, 1},
		{"no header", "SCRAM-SHA-256", "", auth.Request{}, "", "clear", "secret", "", "", auth.ErrMalformed, 1},
		{"a wrong password, clear", "SCRAM-SHA-256", "", auth.Request{}, "n,,", "clear", "Secret", "", "", auth.ErrPasswordMismatch, 2},
		{"a wrong password, stored", "SCRAM-SHA-256", "", auth.Request{}, "n,,", "stored", "Secret", "", "", auth.ErrPasswordMismatch, 2},
		{"an unknown user", "SCRAM-SHA-256", "", auth.Request{}, "n,,", "nobody", "secret", "", "", auth.ErrUnknownUser, 2},
		{"the password of those who have none", "SCRAM-SHA-256", "", auth.Request{}, "n,,", "nobody", "no password", "", "", auth.ErrUnknownUser, 2},
		{"a disabled user", "SCRAM-SHA-256", "", auth.Request{}, "n,,", "closed", "secret", "", "", auth.ErrUserDisabled, 2},
		{"another scheme", "SCRAM-SHA-256", "", auth.Request{}, "n,,", "other", "secret", "", "", auth.ErrPasswordMismatch, 2},
		{"another SCRAM", "SCRAM-SHA-1", "", auth.Request{}, "n,,", "stored", "secret", "", "", auth.ErrPasswordMismatch, 2},
		{"stored keys that are none", "SCRAM-SHA-256", "", auth.Request{}, "n,,", "broken", "secret", "", "", auth.ErrPasswordMismatch, 2},
		{"a database that is away", "SCRAM-SHA-256", "", auth.Request{}, "n,,", "away", "secret", "", "", errAway, 1},
	} {
		list, err := New(tt.list, Options{})
		if err != nil {
			t.Fatal(err)
		}
		m := list[0]
		if tt.mech != "" {
			m = list[1]
		}
		c := &scramClient{hash: sha256.New, gs2: tt.gs2, user: tt.user, password: tt.password, binding: tt.binding}
		if tt.list == "SCRAM-SHA-1" {
			c.hash = sha1.New
		}
		r := tt.r
		x := m.Start(&r, scramRows)
		if empty, row, err := x.Next(t.Context(), nil); empty == nil || len(empty) != 0 || row != nil || err != nil {
			t.Errorf("it handles %s: %q, %v, %v without an initial response", tt.name, empty, row, err)
		}
		first, row, err := x.Next(t.Context(), []byte(c.gs2+c.bare()))
		if tt.at == 1 {
			outcome(t, tt.name, row, err, tt.err)
			continue
		}
		if err != nil || row != nil {
			t.Errorf("it handles %s: %v, %v after the first message", tt.name, row, err)
			continue
		}
		if strings.HasPrefix(tt.gs2, "p=") != (r.Binding.Type != "") {
			t.Errorf("it handles %s: binding %q", tt.name, r.Binding.Type)
		}
		r.Binding.Data = []byte(tt.actually)
		response, want := c.final(string(first))
		final, row, err := x.Next(t.Context(), []byte(response))
		outcome(t, tt.name, row, err, tt.err)
		if tt.err == nil && string(final) != want {
			t.Errorf("it handles %s: the server's proof is %q, want %q", tt.name, final, want)
		}
		if _, row, err := x.Next(t.Context(), []byte(response)); row != nil || err == nil {
			t.Errorf("it handles %s: once more: %v, %v", tt.name, row, err)
		}
	}
}

// TestSCRAMFinal are final messages that are broken.
func TestSCRAMFinal(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(string) string
		err  error
	}{
		{"a right one", func(s string) string { return s }, nil},
		{"nothing", func(string) string { return "" }, auth.ErrMalformed},
		{"no proof", func(s string) string { return s[:strings.Index(s, ",p=")] }, auth.ErrMalformed},
		{"a short proof", func(s string) string { return s[:strings.Index(s, ",p=")] + ",p=AAAA" }, auth.ErrMalformed},
		{"a proof that is not base64", func(s string) string { return s + "!" }, auth.ErrMalformed},
		{"another nonce", func(s string) string { return strings.Replace(s, "r=client", "r=Client", 1) }, auth.ErrMalformed},
		{"the client's nonce alone", func(s string) string { return "c=biws,r=clientnonce" + s[strings.Index(s, ",p="):] }, auth.ErrMalformed},
		{"another header", func(s string) string { return strings.Replace(s, "c=biws", "c=eSws", 1) }, auth.ErrPasswordMismatch},
		{"a mandatory extension", func(s string) string { return "m=x," + s }, auth.ErrMalformed},
		{"a NUL", func(s string) string { return s + "\x00" }, auth.ErrMalformed},
	} {
		x := mechanism(t, "SCRAM-SHA-256", Options{}).Start(&auth.Request{}, scramRows)
		c := &scramClient{hash: sha256.New, gs2: "n,,", user: "stored", password: "secret"}
		first, _, err := x.Next(t.Context(), []byte(c.gs2+c.bare()))
		if err != nil {
			t.Fatal(err)
		}
		response, _ := c.final(string(first))
		_, row, err := x.Next(t.Context(), []byte(tt.edit(response)))
		outcome(t, tt.name, row, err, tt.err)
	}
}

// TestSCRAMLooks: salt and iteration count tell nothing about who exists.
func TestSCRAMLooks(t *testing.T) {
	key := []byte("0123456789abcdef0123456789abcdef")
	look := func(m auth.Mechanism, user string) (salt, count string) {
		t.Helper()
		first, _, err := m.Start(&auth.Request{}, scramRows).Next(t.Context(), []byte("n,,n="+user+",r=x"))
		if err != nil {
			t.Fatal(err)
		}
		parts := strings.Split(string(first), ",")
		return parts[1], parts[2]
	}
	m := mechanism(t, "SCRAM-SHA-256", Options{SaltKey: key})
	for _, user := range []string{"clear", "nobody", "other", "closed"} {
		salt, count := look(m, user)
		if again, _ := look(m, user); again != salt {
			t.Errorf("%s has the salts %s and %s", user, salt, again)
		}
		if later, _ := look(mechanism(t, "SCRAM-SHA-256", Options{SaltKey: key}), user); later != salt {
			t.Errorf("%s has another salt after a restart", user)
		}
		if elsewhere, _ := look(mechanism(t, "SCRAM-SHA-256", Options{}), user); elsewhere == salt {
			t.Errorf("%s has the same salt without the key", user)
		}
		if count != "i=4096" || len(salt) != len("s=c2FsdHNhbHRzYWx0c2FsdA==") {
			t.Errorf("%s has %s, %s", user, salt, count)
		}
	}
	if a, _ := look(m, "nobody"); a == first(look(m, "nobody2")) {
		t.Error("two users have one salt")
	}
	// Where keys are stored, those who have none have them, too.
	look(m, "stored")
	if _, count := look(m, "nobody"); count != "i=5000" {
		t.Errorf("an unknown user has %s where the others have i=5000", count)
	}
}

func first(a, _ string) string { return a }

// BenchmarkSCRAM: a whole exchange with stored keys.
func BenchmarkSCRAM(b *testing.B) {
	m := mechanism(b, "SCRAM-SHA-256", Options{})
	b.ReportAllocs()
	for b.Loop() {
		m.Start(&auth.Request{}, scramRows).Next(b.Context(), []byte("n,,n=stored,r=x"))
	}
}

// TestScramWaitsForItsTurn: keys are computed where the options say, for everybody
// alike, and whoever gets no turn learns nothing.
func TestScramWaitsForItsTurn(t *testing.T) {
	busy := errors.New("busy")
	for _, user := range []string{"stored", "clear", "nobody"} {
		turns := 0
		var none error
		m := mechanism(t, "SCRAM-SHA-256", Options{Work: func(_ context.Context, r *auth.Request, f func()) error {
			if turns++; r.Login != user {
				t.Errorf("the turn of %q, want %q", r.Login, user)
			}
			if none == nil {
				f()
			}
			return none
		}})
		hello := []byte("n,,n=" + user + ",r=clientnonce")
		if first, _, err := m.Start(&auth.Request{}, scramRows).Next(t.Context(), hello); first == nil || err != nil || turns != 1 {
			t.Errorf("%s: %q, %v after %d turns", user, first, err, turns)
		}
		none = busy
		if first, _, err := m.Start(&auth.Request{}, scramRows).Next(t.Context(), hello); first != nil || !errors.Is(err, busy) {
			t.Errorf("%s: %q, %v; want the error", user, first, err)
		}
	}
}
