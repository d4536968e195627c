package sasl

import (
	"errors"
	"strings"
	"testing"

	"dovepost/auth"
)

// FuzzExchanges has each mechanism hear what it never expected. Nobody is let in
// who does not know the password, the outcome is one of three, and an error is a
// proven no: the database is there.
func FuzzExchanges(f *testing.F) {
	const list = "CRAM-MD5 DIGEST-MD5 SCRAM-SHA-1 SCRAM-SHA-256 SCRAM-SHA-256-PLUS APOP EXTERNAL OAUTHBEARER XOAUTH2"
	mechs, err := New(list, Options{UsernameFromCert: true, Tokens: advised{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(0), "", "alice 00000000000000000000000000000000", "")
	f.Add(uint8(1), "", `username="alice",nonce="x",cnonce="y",response=d388dad90d4bbd760a152321f2143af7`, "")
	f.Add(uint8(2), "n,,n=alice,r=x", "c=biws,r=x,p=AAAA", "")
	f.Add(uint8(3), "n,a=bob,n=alice,r=x", "c=biws,r=x,p=AAAA", "")
	f.Add(uint8(4), "p=tls-unique,,n=alice,r=x", "c=biws,r=x,p=AAAA", "")
	f.Add(uint8(5), "<4d.5.ffffffffff.x@host>\x00alice\x000123456789abcdef", "", "")
	f.Add(uint8(6), "alice", "", "")
	f.Add(uint8(7), "n,a=alice,\x01auth=Bearer bad\x01\x01", "\x01", "")
	f.Add(uint8(8), "user=alice\x01auth=Bearer bad\x01\x01", "", "")
	v := rows{"alice": "{PLAIN}correct horse battery staple", "bob": "!"}
	f.Fuzz(func(t *testing.T, which uint8, one, two, three string) {
		m := mechs[int(which)%len(mechs)]
		r := &auth.Request{SPID: 77, CUID: 5}
		x := m.Start(r, v)
		for _, response := range []string{one, two, three} {
			if strings.Contains(response, "good") || strings.Contains(response, "vF9dft4q") {
				return // a right token
			}
			challenge, row, err := x.Next(t.Context(), []byte(response))
			switch {
			case row != nil:
				t.Fatalf("%s: %q %q %q let %q in", m.Name(), one, two, three, row.User)
			case err == nil && challenge == nil:
				t.Fatalf("%s: no outcome", m.Name())
			case err != nil && (!auth.Refused(err) && !errors.Is(err, errAway) || challenge != nil):
				t.Fatalf("%s: %q, %v", m.Name(), challenge, err)
			}
			if strings.Contains(r.Login+r.Authzid, "\x00") {
				t.Fatalf("%s: a NUL in %q, %q", m.Name(), r.Login, r.Authzid)
			}
			if err != nil {
				return
			}
		}
	})
}

// FuzzGS2 checks that header and rest make the message, and that the authzid
// escapes to what stood there.
func FuzzGS2(f *testing.F) {
	f.Add("n,a=a=2Cb=3D,rest,of")
	f.Add("p=tls-exporter,,n=x,r=y")
	f.Add("y,a=,x")
	escape := strings.NewReplacer("=", "=3D", ",", "=2C")
	f.Fuzz(func(t *testing.T, message string) {
		g, rest, err := parseGS2(message)
		if err != nil {
			return
		}
		flag := string(g.flag)
		if g.flag == 'p' {
			flag += "=" + g.binding
		}
		if g.authzid != "" {
			flag += ",a=" + escape.Replace(g.authzid)
		} else {
			flag += ","
		}
		if g.header+rest != message || flag+"," != g.header {
			t.Fatalf("%q was taken for %+v and %q", message, g, rest)
		}
	})
}

// FuzzDirectives checks that what was read reads the same when it is quoted.
func FuzzDirectives(f *testing.F) {
	f.Add(`username="al\"ice", realm = x ,nc=00000001`)
	f.Add(`a=,b="",c="\\"`)
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	f.Fuzz(func(t *testing.T, message string) {
		all, ok := directives(message)
		if !ok {
			return
		}
		var again strings.Builder
		for key, value := range all {
			again.WriteString(key + `="` + escape.Replace(value) + `",`)
		}
		second, ok := directives(again.String())
		if !ok || len(second) != len(all) {
			t.Fatalf("%q reads %q, which reads %q", message, all, second)
		}
		for key, value := range all {
			if second[key] != value {
				t.Fatalf("%q: %s = %q, then %q", message, key, value, second[key])
			}
		}
	})
}

// FuzzBearer checks that user and token are parts of what was said.
func FuzzBearer(f *testing.F) {
	f.Add("n,a=alice,\x01auth=Bearer good\x01\x01")
	f.Add("user=alice\x01auth=Bearer good\x01\x01")
	f.Fuzz(func(t *testing.T, message string) {
		if user, token, err := parseXOAuth2(message); err == nil {
			if !strings.Contains(message, "user="+user) || token == "" || !strings.Contains(message, token) {
				t.Fatalf("%q was taken for %q, %q", message, user, token)
			}
		}
		if user, token, err := parseBearer(message); err == nil {
			if user == "" || token == "" || !strings.Contains(message, "\x01auth=") || !strings.Contains(message, token) {
				t.Fatalf("%q was taken for %q, %q", message, user, token)
			}
		}
	})
}
