package mech

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// issuer is an authorization server that knows the tokens KIND-USER: good, narrow
// (without the scope), over (not active any more).
type issuer struct {
	server *httptest.Server
	file   string // the dovecot-oauth2.conf.ext
	keys   string
	key    *ecdsa.PrivateKey
	away   atomic.Bool
}

const secret = "cl1ent-secret"

func newIssuer(dir string) (*issuer, error) {
	i := &issuer{file: filepath.Join(dir, "dovecot-oauth2.conf.ext"), keys: filepath.Join(dir, "keys")}
	i.server = httptest.NewServer(http.HandlerFunc(i.introspect))
	var err error
	if i.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(i.key.Public())
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(i.keys, "default", "ES256"), 0o755); err != nil {
		return nil, err
	}
	if err := writePEM(filepath.Join(i.keys, "default", "ES256", "default"), "PUBLIC KEY", der); err != nil {
		return nil, err
	}
	return i, i.write("introspection_mode = post\nintrospection_url = " + i.server.URL + "/introspect\n")
}

// write writes the file; the rest of it is the same for all modes.
func (i *issuer) write(mode string) error {
	return os.WriteFile(i.file, []byte(mode+"scope = mail\nusername_attribute = email\nopenid_configuration_url = https://idp.example.net/.well-known/openid-configuration\n"+
		"client_id = dovecot\nclient_secret = "+secret+"\n"), 0o644)
}

func (i *issuer) introspect(w http.ResponseWriter, r *http.Request) {
	if i.away.Load() || r.FormValue("client_secret") != secret {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	kind, user, _ := strings.Cut(r.FormValue("token"), "-")
	answer := map[string]any{"active": kind == "good" || kind == "narrow"}
	if kind == "good" || kind == "narrow" {
		answer["email"], answer["scope"] = user, map[string]string{"good": "openid mail", "narrow": "openid"}[kind]
	}
	json.NewEncoder(w).Encode(answer)
}

// sign makes a JWT of the user that ends in the given time.
func (i *issuer) sign(user string, left time.Duration) string {
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"sub": "1", "email": user, "scope": "mail", "aud": "dovecot",
		"iat": now.Add(-time.Hour).Unix(), "exp": now.Add(left).Unix()})
	text, err := token.SignedString(i.key)
	if err != nil {
		panic(fmt.Sprint("sign: ", err))
	}
	return text
}
