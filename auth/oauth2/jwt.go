package oauth2

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"dovepost/auth"
	"dovepost/lookup/bounded"
)

// algorithms are those of RFC 7518 and 8037 with a signature. "none" is not among
// them.
var algorithms = []string{"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
	"ES256", "ES384", "ES512", "EdDSA"}

// errKey is a key that cannot be read or used: temporary, the administrator's to mend.
var errKey = errors.New("key for tokens")

// verify reads a JWT whose signature is right. Errors: auth.ErrPasswordMismatch, or
// temporary.
func (v *Validator) verify(token string) (fields, error) {
	parser := jwt.NewParser(jwt.WithValidMethods(algorithms), jwt.WithJSONNumber(), jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation())
	claims := jwt.MapClaims{}
	f := fields{}
	_, err := parser.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		if _, critical := t.Header["crit"]; critical { // RFC 7515 4.1.11: we know none of them
			return nil, refusal("the token has critical extensions")
		}
		if err := f.add("", map[string]any(claims), 0); err != nil {
			return nil, refusal(err.Error())
		}
		kid, ok := t.Header["kid"].(string)
		if _, there := t.Header["kid"]; there && (!ok || kid == "") {
			return nil, refusal("the token's kid is empty")
		}
		return v.key(f.one("azp"), t.Method.Alg(), kid)
	})
	switch {
	case errors.Is(err, errKey), errors.Is(err, auth.ErrPasswordMismatch):
		return nil, err
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return nil, refusal("the token's signature is wrong")
	case errors.Is(err, jwt.ErrTokenUnverifiable):
		return nil, refusal("the token's algorithm is not known")
	case err != nil: // it may show parts of the token
		return nil, refusal("not a JWT")
	}
	return f, v.claims(f)
}

// claims checks what only a JWT has to have.
func (v *Validator) claims(f fields) error {
	switch {
	case f.one("sub") == "":
		return refusal("the token has no sub")
	case f.one("exp") == "":
		return refusal("the token has no exp")
	case len(v.s.Issuers) > 0 && f.one("iss") == "":
		return refusal("the token has no iss")
	case v.s.ClientID != "" && !slices.Contains(f["aud"], v.s.ClientID):
		return refusal("the token's aud is not client_id")
	}
	return nil
}

// key reads DIR/AZP/ALG/KID, as Dovecot does; azp and kid are "default" where the
// token has none. The folder of an algorithm holds its keys alone, and each key has
// to be of its kind. Errors: errKey, or auth.ErrPasswordMismatch where there is none.
func (v *Validator) key(azp, algorithm, kid string) (any, error) {
	path := v.s.Keys
	for _, name := range []string{azp, strings.ToUpper(algorithm), kid} {
		if name == "" {
			name = "default"
		}
		name = keyName.Replace(name)
		if name == "." || name == ".." || len(name) > 255 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, refusal("the token's azp or kid is no name")
		}
		path = filepath.Join(path, name)
	}
	text, err := bounded.ReadFile(path, maxKey)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refusal("there is no key " + path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errKey, err)
	}
	key, err := parseKey(algorithm, text)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errKey, path, err)
	}
	return key, nil
}

const maxKey = 64 << 10

// keyName makes one name of an azp or kid, as Dovecot does.
var keyName = strings.NewReplacer("/", "%2f", "%", "%25")

// curves are what ES* is defined for. RFC 7518 3.4.
var curves = map[string]int{"ES256": 256, "ES384": 384, "ES512": 521}

// parseKey reads a key for an algorithm: base64 for HS*, a public key in PEM for
// the others.
func parseKey(algorithm string, text []byte) (any, error) {
	if strings.HasPrefix(algorithm, "HS") {
		key, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(text)), ""))
		if err != nil || len(key) == 0 {
			return nil, errors.New("not base64")
		}
		return key, nil
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("not PEM")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if block.Type == "RSA PUBLIC KEY" {
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	}
	if err != nil {
		return nil, errors.New("not a public key")
	}
	ok := false
	switch k := key.(type) {
	case *rsa.PublicKey:
		ok = algorithm[:2] == "RS" || algorithm[:2] == "PS"
	case *ecdsa.PublicKey:
		ok = curves[algorithm] == k.Curve.Params().BitSize
	case ed25519.PublicKey:
		ok = algorithm == "EdDSA"
	}
	if !ok {
		return nil, fmt.Errorf("a %T is not for %s", key, algorithm)
	}
	return key, nil
}
