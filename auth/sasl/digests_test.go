package sasl

import (
	"crypto/hmac"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"dovepost/auth"
)

// The example of RFC 2195 section 2, from the clear password and from the stored
// states (doveadm pw -s CRAM-MD5 -p tanstaaftanstaaf).
func TestCRAMExample(t *testing.T) {
	const challenge, want = "<1896.697170952@postoffice.reston.mci.net>", "b913a602c7eda7a495b4e6e7334d3890"
	states, err := hex.DecodeString(cramStates)
	if err != nil {
		t.Fatal(err)
	}
	for _, password := range []string{"{PLAIN}tanstaaftanstaaf", "{CRAM-MD5}" + string(states)} {
		v := rows{"tim": password}
		x := &cramExchange{r: &auth.Request{}, v: v, challenge: []byte(challenge), asked: true}
		_, row, err := x.Next(t.Context(), []byte("tim "+want))
		outcome(t, "the example with "+password[:10], row, err, nil)
	}
}

const cramStates = "d06d4e1b26fccaa4b0b61801132340a354b21152711fb604ca3e035e7015116b"

func TestCRAM(t *testing.T) {
	v := rows{"alice": "{PLAIN}secret", "al ice": "{PLAIN}secret", "bob": "{CRAM-MD5}short", "closed": ""}
	for _, tt := range []struct {
		name, user, password string
		response             string // instead of a right one
		err                  error
	}{
		{"the right password", "alice", "secret", "", nil},
		{"a name with a blank", "al ice", "secret", "", nil},
		{"a wrong password", "alice", "secre", "", auth.ErrPasswordMismatch},
		{"an unknown user", "nobody", "secret", "", auth.ErrUnknownUser},
		{"a disabled user", "closed", "secret", "", auth.ErrUserDisabled},
		{"stored states that are none", "bob", "secret", "", auth.ErrPasswordMismatch},
		{"a database that is away", "away", "secret", "", errAway},
		{"no digest", "", "", "alice", auth.ErrMalformed},
		{"no name", "", "", " 00000000000000000000000000000000", auth.ErrMalformed},
		{"a short digest", "", "", "alice 00", auth.ErrMalformed},
		{"a digest that is not hexadecimal", "", "", "alice zz000000000000000000000000000000", auth.ErrMalformed},
		{"a NUL", "", "", "al\x00ce 00000000000000000000000000000000", auth.ErrMalformed},
		{"nothing", "", "", "<empty>", auth.ErrMalformed},
	} {
		x := mechanism(t, "CRAM-MD5", Options{Hostname: "mx.example.com"}).Start(&auth.Request{}, v)
		challenge, _, err := x.Next(t.Context(), nil)
		if err != nil || !strings.HasSuffix(string(challenge), "@mx.example.com>") {
			t.Fatalf("challenge %q, %v", challenge, err)
		}
		response := strings.TrimPrefix(tt.response, "<empty>")
		if tt.response == "" {
			mac := hmac.New(md5.New, []byte(tt.password))
			mac.Write(challenge)
			response = fmt.Sprintf("%s %x", tt.user, mac.Sum(nil))
		}
		_, row, err := x.Next(t.Context(), []byte(response))
		outcome(t, tt.name, row, err, tt.err)
	}
}

// TestReplay: what was right in one exchange is wrong in the next.
func TestReplay(t *testing.T) {
	v := rows{"alice": "{PLAIN}secret"}
	m := mechanism(t, "CRAM-MD5", Options{})
	x := m.Start(&auth.Request{}, v)
	challenge, _, _ := x.Next(t.Context(), nil)
	mac := hmac.New(md5.New, []byte("secret"))
	mac.Write(challenge)
	response := fmt.Appendf(nil, "alice %x", mac.Sum(nil))
	_, row, err := x.Next(t.Context(), response)
	outcome(t, "the first time", row, err, nil)
	x = m.Start(&auth.Request{}, v)
	x.Next(t.Context(), nil)
	_, row, err = x.Next(t.Context(), response)
	outcome(t, "the second time", row, err, auth.ErrPasswordMismatch)
}

// The example of RFC 2831 section 4, from the clear password and from the stored hash.
func TestDigestExample(t *testing.T) {
	const response = `charset=utf-8,username="chris",realm="elwood.innosoft.com",nonce="OA6MG9tEQGm2hh",nc=00000001,` +
		`cnonce="OA6MHXh6VqTrRk",digest-uri="imap/elwood.innosoft.com",response=d388dad90d4bbd760a152321f2143af7,qop=auth`
	hash := md5.Sum([]byte("chris:elwood.innosoft.com:secret"))
	for _, password := range []string{"{PLAIN}secret", "{DIGEST-MD5}" + string(hash[:])} {
		r := &auth.Request{}
		x := &digestExchange{r: r, v: rows{"chris@elwood.innosoft.com": password}, nonce: "OA6MG9tEQGm2hh", asked: true}
		final, row, err := x.Next(t.Context(), []byte(response))
		outcome(t, "the example", row, err, nil)
		if got, want := string(final), "rspauth=ea40f60335c427b5527b84dbabcdfffd"; got != want {
			t.Errorf("final message %q, want %q", got, want)
		}
	}
}

// digestOf is a client's response for the exchange x, with directives put in the
// place of the right ones.
func digestOf(x *digestExchange, user, realm, password string, other map[string]string) string {
	d := digestResponse{username: user, realm: realm, nonce: x.nonce, cnonce: "c", nc: "00000001", qop: "auth", uri: "imap/host", authzid: other["authzid"]}
	hash := md5.Sum([]byte(user + ":" + realm + ":" + password))
	all := map[string]string{"username": user, "realm": realm, "nonce": d.nonce, "cnonce": d.cnonce, "nc": d.nc,
		"digest-uri": d.uri, "response": d.sign(string(hash[:]), "AUTHENTICATE:")}
	maps.Copy(all, other)
	var parts []string
	for key, value := range all {
		if value != "<none>" {
			parts = append(parts, key+`="`+value+`"`)
		}
	}
	return strings.Join(parts, ",")
}

func TestDigest(t *testing.T) {
	stored := md5.Sum([]byte("alice:example.com:secret"))
	v := rows{"alice": "{PLAIN}secret", "alice@example.com": "{DIGEST-MD5}" + string(stored[:]), "bob@example.com": "{PLAIN}gr\u00fcn", "closed": ""}
	type other = map[string]string
	for _, tt := range []struct {
		name, user, realm, password string
		other                       other
		err                         error
		login, authzid              string
	}{
		{"no realm", "alice", "", "secret", nil, nil, "alice", ""},
		{"a realm", "alice", "example.com", "secret", nil, nil, "alice@example.com", ""},
		{"a domain and a realm", "bob@example.com", "x", "gr\u00fcn", nil, nil, "bob@example.com", ""},
		{"ISO 8859-1", "bob", "example.com", "gr\xfcn", nil, nil, "bob@example.com", ""},
		{"an authzid", "alice", "", "secret", other{"authzid": "bob"}, nil, "alice", "bob"},
		{"a realm whose hash is not stored", "alice@example.com", "", "secret", nil, auth.ErrPasswordMismatch, "alice@example.com", ""},
		{"a wrong password", "alice", "", "secret ", nil, auth.ErrPasswordMismatch, "alice", ""},
		{"an unknown user", "nobody", "", "secret", nil, auth.ErrUnknownUser, "nobody", ""},
		{"a disabled user", "closed", "", "secret", nil, auth.ErrUserDisabled, "closed", ""},
		{"a database that is away", "away", "", "secret", nil, errAway, "away", ""},
		{"another nonce", "alice", "", "secret", other{"nonce": "x"}, auth.ErrMalformed, "", ""},
		{"no nonce", "alice", "", "secret", other{"nonce": "<none>"}, auth.ErrMalformed, "", ""},
		{"no cnonce", "alice", "", "secret", other{"cnonce": "<none>"}, auth.ErrMalformed, "", ""},
		{"a repeated nonce count", "alice", "", "secret", other{"nc": "00000002"}, auth.ErrMalformed, "", ""},
		{"a security layer", "alice", "", "secret", other{"qop": "auth-int"}, auth.ErrMalformed, "", ""},
		{"another charset", "alice", "", "secret", other{"charset": "iso-8859-1"}, auth.ErrMalformed, "", ""},
		{"a uri that is none", "alice", "", "secret", other{"digest-uri": "imap"}, auth.ErrMalformed, "", ""},
		{"an empty name", "", "", "secret", nil, auth.ErrMalformed, "", ""},
		{"a short response", "alice", "", "secret", other{"response": "00"}, auth.ErrMalformed, "", ""},
		{"an unknown directive", "alice", "", "secret", other{"x": "y"}, nil, "alice", ""},
	} {
		r := &auth.Request{}
		x := mechanism(t, "DIGEST-MD5", Options{Realms: []string{"example.com", "example.org"}}).Start(r, v).(*digestExchange)
		challenge, _, err := x.Next(t.Context(), nil)
		if err != nil || !strings.HasPrefix(string(challenge), `realm="example.com",realm="example.org",nonce="`) {
			t.Fatalf("challenge %q, %v", challenge, err)
		}
		_, row, err := x.Next(t.Context(), []byte(digestOf(x, tt.user, tt.realm, tt.password, tt.other)))
		outcome(t, tt.name, row, err, tt.err)
		if r.Login != tt.login || r.Authzid != tt.authzid {
			t.Errorf("it handles %s: login %q, authzid %q", tt.name, r.Login, r.Authzid)
		}
	}
}

func TestDirectives(t *testing.T) {
	for _, tt := range []struct {
		in, want string
		ok       bool
	}{
		{`a=1,b="2"`, "a=1 b=2", true},
		{` A = 1 , b = "2" ,, c="" `, "a=1 b=2 c=", true},
		{`a="x\"y\\z,w"`, `a=x"y\z,w`, true},
		{`a=`, "a=", true},
		{``, "", true},
		{`a`, "", false},
		{`a=1,a=2`, "", false},
		{`a="1`, "", false},
		{`a="1"b`, "", false},
		{`=1`, "", false},
		{"a=\x00", "", false},
		{strings.Repeat(",", 9000), "", true},
	} {
		all, ok := directives(tt.in)
		var got []string
		for _, key := range []string{"a", "b", "c"} {
			if value, there := all[key]; there {
				got = append(got, key+"="+value)
			}
		}
		if strings.Join(got, " ") != tt.want || ok != tt.ok {
			t.Errorf("directives(%.40q) = %q, %t; want %q, %t", tt.in, got, ok, tt.want, tt.ok)
		}
	}
	var many strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&many, "k%d=,", i)
	}
	if _, ok := directives(many.String()); ok {
		t.Error("a thousand directives")
	}
}

// APOP has the digest of RFC 1939's example: MD5(challenge "tanstaaf").
func TestAPOP(t *testing.T) {
	if got := fmt.Sprintf("%x", md5.Sum([]byte("<1896.697170952@dbc.mtview.ca.us>tanstaaf"))); got != "c4c9334bac560ecc979e58001b3e22fb" {
		t.Fatal(got)
	}
	v := rows{"mrose": "{PLAIN}tanstaaf", "closed": ""}
	later := time.Now().Add(time.Hour).Unix() // than our start, however long the test takes
	challenge := func(spid, cuid, at int64) string { return fmt.Sprintf("<%x.%x.%x.cmFuZG9t@host>", spid, cuid, at) }
	for _, tt := range []struct {
		name, challenge, user, password string
		raw                             string
		err                             error
	}{
		{"the right password", challenge(77, 5, later), "mrose", "tanstaaf", "", nil},
		{"a wrong password", challenge(77, 5, later), "mrose", "tanstaa", "", auth.ErrPasswordMismatch},
		{"an unknown user", challenge(77, 5, later), "nobody", "tanstaaf", "", auth.ErrUnknownUser},
		{"a disabled user", challenge(77, 5, later), "closed", "x", "", auth.ErrUserDisabled},
		{"a database that is away", challenge(77, 5, later), "away", "x", "", errAway},
		{"another connection's challenge", challenge(77, 6, later), "mrose", "tanstaaf", "", auth.ErrMalformed},
		{"another process's challenge", challenge(78, 5, later), "mrose", "tanstaaf", "", auth.ErrMalformed},
		{"a challenge from before our start", challenge(77, 5, later-2*3600), "mrose", "tanstaaf", "", auth.ErrMalformed},
		{"a challenge without a time", "<4d.5.x.y@host>", "mrose", "tanstaaf", "", auth.ErrMalformed},
		{"no digest", "", "", "", challenge(77, 5, later) + "\x00mrose\x00", auth.ErrMalformed},
		{"one NUL", "", "", "", challenge(77, 5, later) + "\x00mrose", auth.ErrMalformed},
		{"nothing", "", "", "", "<none>", auth.ErrMalformed},
	} {
		x := mechanism(t, "APOP", Options{}).Start(&auth.Request{SPID: 77, CUID: 5}, v)
		response := []byte(tt.raw)
		if tt.raw == "" {
			sum := md5.Sum([]byte(tt.challenge + tt.password))
			response = append([]byte(tt.challenge+"\x00"+tt.user+"\x00"), sum[:]...)
		}
		if tt.raw == "<none>" {
			response = nil
		}
		_, row, err := x.Next(t.Context(), response)
		outcome(t, tt.name, row, err, tt.err)
	}
}
