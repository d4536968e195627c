package oauth2

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"dovepost/auth"
)

// issuer signs tokens, with keys whose public parts are below dir.
type issuer struct {
	dir  string
	keys map[string]any // by algorithm
}

func newIssuer(t testing.TB) *issuer {
	i := &issuer{dir: t.TempDir(), keys: map[string]any{}}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	for _, algorithm := range algorithms {
		switch algorithm[:2] {
		case "HS":
			key := []byte("0123456789abcdef0123456789abcdef")
			i.keys[algorithm] = key
			i.write(t, algorithm, "default", base64.StdEncoding.EncodeToString(key)+"\n")
			continue
		case "RS", "PS":
			i.keys[algorithm] = rsaKey
		case "ES":
			curve := map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()}[algorithm]
			if i.keys[algorithm], err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
				t.Fatal(err)
			}
		default:
			i.keys[algorithm] = edKey
		}
		i.write(t, algorithm, "default", publicPEM(t, i.keys[algorithm]))
	}
	return i
}

func publicPEM(t testing.TB, key any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.(crypto.Signer).Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func (i *issuer) write(t testing.TB, algorithm, kid, text string) {
	t.Helper()
	dir := filepath.Join(i.dir, "default", strings.ToUpper(algorithm))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, kid), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// claims are good ones, with others in their place; nil takes one away.
func claims(other jwt.MapClaims) jwt.MapClaims {
	now := time.Now().Unix()
	c := jwt.MapClaims{"sub": "1", "email": "alice@example.com", "exp": now + 60, "iat": now, "nbf": now}
	for name, value := range other {
		if c[name] = value; value == nil {
			delete(c, name)
		}
	}
	return c
}

func (i *issuer) sign(t testing.TB, algorithm string, header map[string]any, c jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.GetSigningMethod(algorithm), c)
	for name, value := range header {
		token.Header[name] = value
	}
	text, err := token.SignedString(i.keys[algorithm])
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (i *issuer) validator(t testing.TB, more ...string) *Validator {
	return validator(t, append([]string{"introspection_mode = local", "local_validation_key_dict = fs:posix:prefix=" + i.dir + "/"}, more...)...)
}

func TestAlgorithms(t *testing.T) {
	i := newIssuer(t)
	v := i.validator(t)
	for _, algorithm := range algorithms {
		token := i.sign(t, algorithm, nil, claims(nil))
		checkOutcome(t, algorithm, v.Validate(t.Context(), &auth.Request{}, "alice@example.com", token), nil)
		checkOutcome(t, algorithm+" of somebody else", v.Validate(t.Context(), &auth.Request{}, "bob@example.com", token), auth.ErrPasswordMismatch)
		at := strings.LastIndexByte(token, '.')
		broken := token[:at+1] + strings.Repeat("A", len(token)-at-1)
		checkOutcome(t, algorithm+" with a wrong signature", v.Validate(t.Context(), &auth.Request{}, "alice@example.com", broken), auth.ErrPasswordMismatch)
		checkOutcome(t, algorithm+" without a signature", v.Validate(t.Context(), &auth.Request{}, "alice@example.com", token[:at+1]), auth.ErrPasswordMismatch)
		// The payload of one token with the signature of another.
		other := strings.Split(i.sign(t, algorithm, nil, claims(jwt.MapClaims{"email": "bob@example.com"})), ".")
		mixed := strings.Join([]string{other[0], other[1], token[at+1:]}, ".")
		checkOutcome(t, algorithm+" with another's payload", v.Validate(t.Context(), &auth.Request{}, "bob@example.com", mixed), auth.ErrPasswordMismatch)
	}
}

// TestConfusion are the tricks with header fields.
func TestConfusion(t *testing.T) {
	i := newIssuer(t)
	v := i.validator(t)
	no := auth.ErrPasswordMismatch
	none := jwt.NewWithClaims(jwt.SigningMethodNone, claims(nil))
	unsigned, err := none.SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	checkOutcome(t, "alg none", v.Validate(t.Context(), &auth.Request{}, "alice@example.com", unsigned), no)
	for _, name := range []string{"NONE", "None", "nOnE", "", "HS1", "RS256 "} {
		header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"` + name + `","typ":"JWT"}`))
		checkOutcome(t, "alg "+name, v.Validate(t.Context(), &auth.Request{}, "alice@example.com", header+unsigned[strings.IndexByte(unsigned, '.'):]), no)
	}

	// The public key of RS256 as the secret of HS256, which is not what HS256's folder has.
	public, err := os.ReadFile(filepath.Join(i.dir, "default", "RS256", "default"))
	if err != nil {
		t.Fatal(err)
	}
	evil := &issuer{keys: map[string]any{"HS256": public}}
	checkOutcome(t, "a public key as a secret", v.Validate(t.Context(), &auth.Request{}, "alice@example.com", evil.sign(t, "HS256", nil, claims(nil))), no)
	// Even where somebody has put it there: it is not base64.
	i.write(t, "HS256", "pem", string(public))
	checkOutcome(t, "a public key in the secrets' folder", v.Validate(t.Context(), &auth.Request{}, "alice@example.com", evil.sign(t, "HS256", map[string]any{"kid": "pem"}, claims(nil))), errTemporary)
	i.write(t, "ES256", "p384", publicPEM(t, i.keys["ES384"]))
	checkOutcome(t, "a key of another curve", v.Validate(t.Context(), &auth.Request{}, "alice@example.com", i.sign(t, "ES256", map[string]any{"kid": "p384"}, claims(nil))), errTemporary)
	i.write(t, "RS256", "ec", publicPEM(t, i.keys["ES256"]))
	checkOutcome(t, "a key of another kind", v.Validate(t.Context(), &auth.Request{}, "alice@example.com", i.sign(t, "RS256", map[string]any{"kid": "ec"}, claims(nil))), errTemporary)

	if err := os.WriteFile(filepath.Join(i.dir, "secret"), []byte("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, kid := range []any{"nosuch", "../../secret", "..", ".", "a\x00b", strings.Repeat("x", 300), "", 7} {
		checkOutcome(t, "a strange kid", v.Validate(t.Context(), &auth.Request{}, "alice@example.com", i.sign(t, "HS256", map[string]any{"kid": kid}, claims(nil))), no)
	}
	for _, azp := range []any{"nosuch", "..", "../..", "."} {
		checkOutcome(t, "a strange azp", v.Validate(t.Context(), &auth.Request{}, "alice@example.com", i.sign(t, "HS256", nil, claims(jwt.MapClaims{"azp": azp}))), no)
	}
	checkOutcome(t, "a critical extension", v.Validate(t.Context(), &auth.Request{}, "alice@example.com", i.sign(t, "HS256", map[string]any{"crit": []string{"b64"}, "b64": false}, claims(nil))), no)
	i.write(t, "HS256", "a%2fb%25c", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
	checkOutcome(t, "a kid with a slash", v.Validate(t.Context(), &auth.Request{}, "alice@example.com", i.sign(t, "HS256", map[string]any{"kid": "a/b%c"}, claims(nil))), nil)
	for _, token := range []string{"t0ken", "a.b.c", "..", "a.b", "a.b.c.d", strings.Repeat(".", 2000)} {
		checkOutcome(t, "what is no JWT", v.Validate(t.Context(), &auth.Request{}, "alice@example.com", token), no)
	}
}

func TestClaims(t *testing.T) {
	i := newIssuer(t)
	now := time.Now().Unix()
	no := auth.ErrPasswordMismatch
	type c = jwt.MapClaims
	for _, tt := range []struct {
		name string
		c    c
		more string
		err  error
	}{
		{"no sub", c{"sub": nil}, "", no},
		{"no exp", c{"exp": nil}, "", no},
		{"an exp that is over", c{"exp": now - 10, "iat": now - 20, "nbf": nil}, "", no},
		{"an exp with a fraction", c{"exp": float64(now) + 60.5}, "", nil},
		{"an exp as text", c{"exp": "tomorrow"}, "", no},
		{"a negative exp", c{"exp": -1}, "", no},
		{"an nbf to come", c{"nbf": now + 30}, "", no},
		{"an iat to come", c{"iat": now + 30}, "", no},
		{"a clock that is a bit ahead", c{"iat": now + 1, "nbf": now + 1}, "", nil},
		{"neither iat nor nbf", c{"iat": nil, "nbf": nil}, "", nil},
		{"the issuer", c{"iss": "https://a"}, "issuers = https://a https://b", nil},
		{"another issuer", c{"iss": "https://c"}, "issuers = https://a https://b", no},
		{"no issuer", nil, "issuers = https://a", no},
		{"the audience", c{"aud": []string{"x", "mail"}}, "client_id = mail", nil},
		{"another audience", c{"aud": "x"}, "client_id = mail", no},
		{"no audience", nil, "client_id = mail", no},
		{"an azp with its own key", c{"azp": "app"}, "", nil},
		{"the scope", c{"scope": "openid mail"}, "scope = mail", nil},
		{"another scope", c{"scope": "openid"}, "scope = mail", auth.ErrUserDisabled},
		{"another name of the user", c{"preferred_username": "Alice@example.com", "email": nil}, "username_attribute = preferred_username", nil},
		{"an account that is not active", c{"state": "gone"}, "active_attribute = state\nactive_value = ok", no},
		{"an account without a state", nil, "active_attribute = state\nactive_value = ok", no},
	} {
		if err := os.MkdirAll(filepath.Join(i.dir, "app"), 0o700); err != nil {
			t.Fatal(err)
		}
		os.Symlink("../default/ES256", filepath.Join(i.dir, "app", "ES256"))
		token := i.sign(t, "ES256", nil, claims(tt.c))
		checkOutcome(t, tt.name, i.validator(t, tt.more).Validate(t.Context(), &auth.Request{}, "alice@example.com", token), tt.err)
	}
}

// The example of RFC 7515 appendix A.1, whose claims are not for us.
func TestExample(t *testing.T) {
	const token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
	i := &issuer{dir: t.TempDir()}
	key, err := base64.RawURLEncoding.DecodeString("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
	if err != nil {
		t.Fatal(err)
	}
	i.write(t, "HS256", "default", base64.StdEncoding.EncodeToString(key))
	_, err = i.validator(t).verify(token)
	if err == nil || !strings.Contains(err.Error(), "no sub") {
		t.Errorf("%v, want that the signature is right and sub is missing", err)
	}
}

// FuzzToken: nobody gets in without the key.
func FuzzToken(f *testing.F) {
	i := newIssuer(f)
	v := i.validator(f)
	f.Add(i.sign(f, "HS256", nil, claims(jwt.MapClaims{"email": "bob@example.com"})))
	f.Add("eyJhbGciOiJub25lIn0.eyJlbWFpbCI6ImFsaWNlQGV4YW1wbGUuY29tIiwic3ViIjoiMSIsImV4cCI6OTk5OTk5OTk5OX0.")
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		if err := v.Validate(t.Context(), &auth.Request{}, "alice@example.com", token); !auth.Refused(err) {
			t.Fatalf("%q: %v", token, err)
		}
	})
}

// FuzzFields: an answer is an object of texts, or temporary.
func FuzzFields(f *testing.F) {
	f.Add(`{"active":true,"email":"alice@example.com","aud":["a",1,null,{"b":2.5}]}`)
	f.Add(`{"a":{"b":{"c":[[[]]]}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parseFields([]byte(text))
		if err != nil {
			if auth.Refused(err) {
				t.Fatal(err)
			}
			return
		}
		for name := range all {
			if !all.has(name) {
				t.Fatalf("%q: %q has no value", text, name)
			}
		}
	})
}
